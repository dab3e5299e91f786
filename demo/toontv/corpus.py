"""The corpus: scripts, annotations and splits first, then the videos in parallel."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.toontv import annotate, questions, world, write
from demo.toontv.assets import ToonTvError, images_folder
from demo.toontv.script import Episode, Split, write_episode

VERSION = 3
SPLITS: tuple[Split, ...] = ("train", "val", "test")

_BATCH = 4  # episodes a worker makes before it reports


@dataclass(frozen=True)
class CorpusPlan:
    """What to make: numbers of episodes, and the seed on which everything else depends."""

    train: int = 400
    val: int = 20
    test: int = 60
    seed: int = 7

    def __post_init__(self) -> None:
        if min(self.train, self.val, self.test) < 0 or self.train + self.val + self.test == 0:
            raise ToonTvError(
                f"A corpus needs at least one episode and no negative numbers; asked for were "
                f"train={self.train}, val={self.val}, test={self.test}."
            )

    def video_ids(self, split: Split) -> list[str]:
        """The ids of a split. They do not depend on the sizes of the others, and neither do the episodes."""
        return [f"{split}_{number:04d}" for number in range(getattr(self, split))]


def write_scripts(plan: CorpusPlan) -> dict[Split, list[Episode]]:
    """The scripts of all episodes."""
    held_out = world.held_out_combinations(plan.seed)
    return {
        split: [write_episode(video_id, split, plan.seed, held_out) for video_id in plan.video_ids(split)]
        for split in SPLITS
    }


def build_corpus(
    out: Path, plan: CorpusPlan, processes: int = 2, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Write the whole corpus to the folder `out` and return the contents of its corpus.json.

    `progress` is called with the numbers of episodes done and planned. The files do not depend on `processes`.
    Raises AssetsMissingError before anything is written when the sprites are not installed, and ToonTvError when
    `out` holds videos of another plan: they would be found by whoever lists the folder.
    """
    images_folder()
    _refuse_leftovers(out, plan)
    scripts = write_scripts(plan)
    counts = {split: _write_annotations(out, split, episodes, plan.seed) for split, episodes in scripts.items()}
    episodes = list(itertools.chain.from_iterable(scripts.values()))
    (out / "videos").mkdir(parents=True, exist_ok=True)
    for episode in episodes:
        write.write_text(out / "subtitles" / f"{episode.video_id}.srt", write.srt_text(episode))
    done = 0
    for finished in _render(episodes, out / "videos", processes):
        done += finished
        if progress is not None:
            progress(done, len(episodes))
    splits = {split: plan.video_ids(split) for split in SPLITS}
    write.write_text(out / "splits.json", json.dumps(splits, indent=1) + "\n")
    summary: dict[str, Any] = {
        "name": "ToonTV",
        "version": VERSION,
        "seed": plan.seed,
        "frames_per_second": world.FRAMES_PER_SECOND,
        "seconds": sum(episode.duration for episode in episodes),
        "counts": counts,
        "held_out_combinations": list(world.held_out_combinations(plan.seed)),
    }
    write.write_text(out / "corpus.json", json.dumps(summary, indent=1) + "\n")
    return summary


def _refuse_leftovers(out: Path, plan: CorpusPlan) -> None:
    planned = {video_id for split in SPLITS for video_id in plan.video_ids(split)}
    strangers = sorted(path.name for path in (out / "videos").glob("*.mp4") if path.stem not in planned)
    if strangers:
        raise ToonTvError(
            f"{out} already holds {len(strangers)} videos that are not part of this corpus, such as {strangers[0]}. "
            "Name an empty folder, or delete that one."
        )


def _write_annotations(out: Path, split: Split, episodes: list[Episode], seed: int) -> dict[str, int]:
    """The four tables of one split; returns the number of rows of each, and of episodes and scenes."""
    index = annotate.SceneIndex(episodes)
    tables: dict[str, list[dict[str, Any]]] = {name: [] for name in ("", "qa_", "statements_", "captions_")}
    base = SPLITS.index(split) * annotate.DESC_ID_STRIDE
    for episode in episodes:
        rng = random.Random(f"{seed}/{episode.video_id}/annotations")
        for name, make in (
            ("", lambda *rest: annotate.moment_queries(rest[0], index, *rest[1:])),
            ("qa_", questions.questions),
            ("statements_", questions.statements),
            ("captions_", annotate.captions),
        ):
            tables[name] += make(episode, rng, base + len(tables[name]))
    names = {"": "queries", "qa_": "questions", "statements_": "statements", "captions_": "captions"}
    counts = {"episodes": len(episodes), "scenes": sum(len(episode.scenes) for episode in episodes)}
    for name, rows in tables.items():
        counts[names[name]] = write.write_jsonl(out / "annotations" / f"{name}{split}.jsonl", rows)
    return counts


def _render(episodes: list[Episode], folder: Path, processes: int) -> Iterator[int]:
    """Write the videos; yields the number of episodes of each batch as it is done."""
    batches = [episodes[start : start + _BATCH] for start in range(0, len(episodes), _BATCH)]
    if processes <= 1:
        for batch in batches:
            yield _render_batch(batch, folder)
        return
    # Spawned, not forked: a forked child of a process with threads (PyAV, torch) may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        for future in as_completed([pool.submit(_render_batch, batch, folder) for batch in batches]):
            yield future.result()


def _render_batch(episodes: list[Episode], folder: Path) -> int:
    for episode in episodes:
        write.write_video(episode, folder / f"{episode.video_id}.mp4")
    return len(episodes)
