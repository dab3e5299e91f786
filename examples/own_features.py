"""Search videos of which only the frame features are there: extracted elsewhere, once, without the video files.

    python examples/own_features.py BUNDLE FEATURES "the robot takes the red gem"

FEATURES is a folder with one NAME.npy per video, float32 (clips, feature_dim), and NAME.srt or NAME.vtt where there are
subtitles. The features must come from the frame encoder that the model was trained with: others of the same width are
accepted and find nothing useful.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from search_folder import print_moments

import hero_sdk
from hero_sdk.video_files import find_sidecar


def encode_file(hero: hero_sdk.Hero, path: Path) -> hero_sdk.EncodedVideo:
    """Encode the features in a .npy file, with the subtitles beside it."""
    subtitles = find_sidecar(path)
    features = np.load(path, allow_pickle=False).astype(np.float32)
    return hero.encode_features(features, () if subtitles is None else hero_sdk.read_subtitles(subtitles))


def main() -> None:
    """Read the command line, encode and search."""
    parser = argparse.ArgumentParser(description="Index frame features that exist already, and search them.")
    parser.add_argument("bundle", type=Path, help="what `hero-export onnx` wrote")
    parser.add_argument("features", type=Path, help="folder with one .npy file per video")
    parser.add_argument("sentence", help="what happens in the moment")
    parser.add_argument(
        "--corpus", type=Path, default=Path("corpus"), help="folder of the corpus (default: %(default)s)"
    )
    chosen = parser.parse_args()
    with hero_sdk.load(chosen.bundle) as hero:
        corpus = hero.corpus(chosen.corpus)
        for path in sorted(chosen.features.glob("*.npy")):
            if path.stem not in corpus:
                corpus.add_encoded(path.stem, encode_file(hero, path), source=str(path))
        print_moments(corpus.search(chosen.sentence, top_k=5))


if __name__ == "__main__":
    main()
