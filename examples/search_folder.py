"""Index a folder of videos and print the moments that a sentence describes.

    python examples/search_folder.py BUNDLE VIDEOS "the robot takes the red gem"

Videos that are in the corpus already are not encoded again, so a second sentence takes a moment.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import hero_sdk
from hero_sdk.video_files import find_videos


def index_and_search(hero: hero_sdk.Hero, videos: Path, corpus_folder: Path, sentence: str) -> list[hero_sdk.Moment]:
    """Add the videos that are new to the corpus, then search all of it."""
    corpus = hero.corpus(corpus_folder)
    known = set(corpus.video_ids())
    ids = {path: path.relative_to(videos).as_posix() for path in find_videos(videos)}
    new = [(path, None, video_id) for path, video_id in ids.items() if video_id not in known]
    for result in corpus.add_many(new):
        print(f"{result.video_id}: {result.error or 'added'}")
    return corpus.search(sentence, top_k=5)


def print_moments(moments: Sequence[hero_sdk.Moment]) -> None:
    """One line per moment, best first."""
    for moment in moments:
        print(f"{moment.score:.2e}  {moment.video_id}  {moment.start:.1f} s to {moment.end:.1f} s  {moment.subtitle}")


def main() -> None:
    """Read the command line and search."""
    parser = argparse.ArgumentParser(description="Index a folder of videos and search it.")
    parser.add_argument("bundle", type=Path, help="what `hero-export onnx` wrote")
    parser.add_argument("videos", type=Path, help="folder with videos, at any depth")
    parser.add_argument("sentence", help="what happens in the moment")
    parser.add_argument(
        "--corpus", type=Path, default=Path("corpus"), help="folder of the corpus (default: %(default)s)"
    )
    chosen = parser.parse_args()
    with hero_sdk.load(chosen.bundle) as hero:
        print_moments(index_and_search(hero, chosen.videos, chosen.corpus, chosen.sentence))


if __name__ == "__main__":
    main()
