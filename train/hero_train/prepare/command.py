"""The command ``hero-train prepare``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hero_train.prepare.schemas import SCHEMAS

if TYPE_CHECKING:
    from hero_train.prepare.features import FeatureSource
    from hero_train.prepare.summary import Summary

SchemaName = Enum("SchemaName", {name: name for name in SCHEMAS}, type=str)  # type: ignore[misc]

CLIP_INTERVAL = 1.5
"""Seconds per clip of videos that are encoded here, as in the paper."""

_ANNOTATIONS, _FEATURES, _LIMITS = "Annotations and subtitles", "Features", "What may be left out"


def prepare(
    out: Annotated[Path, typer.Option(help="Folder of the set.")],
    schema: Annotated[
        SchemaName | None,
        typer.Option(
            help="What the annotations look like; without it the set has all videos and no annotations, for pre-training.",
            rich_help_panel=_ANNOTATIONS,
        ),
    ] = None,
    train: Annotated[
        Path | None, typer.Option(help="Annotations to train on: a file, or a text LMDB.", rich_help_panel=_ANNOTATIONS)
    ] = None,
    validation: Annotated[
        Path | None, typer.Option(help="Annotations to choose by.", rich_help_panel=_ANNOTATIONS)
    ] = None,
    test: Annotated[Path | None, typer.Option(help="Annotations to judge by.", rich_help_panel=_ANNOTATIONS)] = None,
    annotations: Annotated[
        Path | None,
        typer.Option(
            help="All splits in one file, in place of the three; the annotations or --split-lists say which is which.",
            rich_help_panel=_ANNOTATIONS,
        ),
    ] = None,
    split_lists: Annotated[
        Path | None,
        typer.Option(
            help='JSON with the video ids of each split: {"train": [...], "validation": [...], "test": [...]}.',
            rich_help_panel=_ANNOTATIONS,
        ),
    ] = None,
    subtitles: Annotated[
        Path | None,
        typer.Option(
            help="Folder of .srt or .vtt, JSON Lines, a text LMDB, VIOLIN's file, or HowTo100M's captions.",
            rich_help_panel=_ANNOTATIONS,
        ),
    ] = None,
    features: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of .npy, .npz or .safetensors, a feature LMDB, or a prepared set; several stand side by side.",
            rich_help_panel=_FEATURES,
        ),
    ] = None,
    videos: Annotated[
        Path | None, typer.Option(help="Folder of video files, in place of --features.", rich_help_panel=_FEATURES)
    ] = None,
    frame_encoder: Annotated[
        Path | None, typer.Option(help="Frame encoder for --videos.", rich_help_panel=_FEATURES)
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Folder that keeps what was extracted from --videos; OUT.cache by default.", rich_help_panel=_FEATURES
        ),
    ] = None,
    clip_interval: Annotated[
        float | None, typer.Option(help="Seconds per clip; 1.5 for --videos.", rich_help_panel=_FEATURES)
    ] = None,
    durations: Annotated[
        Path | None,
        typer.Option(
            help="JSON with the seconds of each video, such as tvr_video2dur_idx.json.", rich_help_panel=_FEATURES
        ),
    ] = None,
    piece: Annotated[
        float | None,
        typer.Option(
            help="Cut long videos into pieces of so many seconds, ID.0, ID.1, ...; 60 for how2r and how2qa, 0 cuts none.",
            rich_help_panel=_FEATURES,
        ),
    ] = None,
    damaged_share: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Annotations, features and subtitles that may be damaged; 0.001.",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    missing_share: Annotated[
        float, typer.Option(min=0, max=1, help="Videos that may be missing.", rich_help_panel=_LIMITS)
    ] = 0.0,
    force: Annotated[bool, typer.Option(help="Replace a prepared set that is there.")] = False,
) -> None:
    """Make a training set from annotations, subtitles and features or videos.

    Every record that cannot be used is dropped and named in OUT/dropped.jsonl; docs/preparing.md says what is read of each schema.
    """
    from hero_train.data.lmdb_corpus import DAMAGED_SHARE
    from hero_train.prepare.pieces import Pieces
    from hero_train.prepare.preparation import Request, check_destination
    from hero_train.prepare.preparation import prepare as make

    chosen = SCHEMAS[schema.value] if schema is not None else None
    named = {"train": train, "validation": validation, "test": test}
    files = {split: path for split, path in named.items() if path is not None}
    _check_annotations(chosen is not None, bool(files), annotations is not None, split_lists is not None)
    check_destination(out, force)
    request = Request(
        out=out,
        features=_open_source(features or [], videos, frame_encoder, cache or Path(f"{out}.cache"), clip_interval),
        schema=chosen,
        files=files,
        together=annotations,
        split_lists=split_lists,
        subtitles=subtitles,
        durations=durations,
        pieces=Pieces(piece, every=True) if piece is not None else Pieces(chosen.piece_seconds if chosen else 0),
        damaged_share=DAMAGED_SHARE if damaged_share is None else damaged_share,
        missing_share=missing_share,
        force=force,
    )
    with _progress() as advance:
        summary = make(request, advance)
    show(summary, out)


def _check_annotations(has_schema: bool, has_files: bool, has_one: bool, has_lists: bool) -> None:
    from hero_train.errors import ConfigError

    if has_schema != (has_files or has_one):
        raise ConfigError(
            "Annotations and their --schema belong together: state both, or neither for a set without annotations."
        )
    if has_files and has_one:
        raise ConfigError(
            "State --annotations for a file with all splits, or --train, --validation and --test, and not both."
        )
    if has_lists and not has_one:
        raise ConfigError("--split-lists divide the file of --annotations; state it, or leave them out.")


def _open_source(
    features: list[Path], videos: Path | None, frame_encoder: Path | None, cache: Path, clip_interval: float | None
) -> FeatureSource:
    from hero_sdk.frame_encoder import load_frame_encoder
    from hero_train.errors import ConfigError
    from hero_train.prepare.features import VideoFiles, open_features

    if bool(features) == (videos is not None):
        raise ConfigError("State either --features or --videos with a --frame-encoder.")
    if (videos is None) != (frame_encoder is None):
        raise ConfigError(
            "--videos are read through a --frame-encoder; `hero-export frame-encoder` writes the packaged one."
        )
    if videos is None or frame_encoder is None:
        return open_features(features, clip_interval)
    # One thread each: several videos are read at the same time.
    return VideoFiles(videos, load_frame_encoder(frame_encoder, threads=1), clip_interval or CLIP_INTERVAL, cache)


@contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, where that is a terminal, whose length is told with each step."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("features"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("features", total=None)
        yield lambda total: bar.update(task, total=total, advance=1)


def show(summary: Summary, out: Path) -> None:
    """Print what is in a set, and what is not and why."""
    from hero_sdk.terminal import make_table, print_tables, printable
    from hero_train.prepare.preparation import DROPPED_FILE

    there = make_table("split", "annotations", "videos")
    there.title = f"{summary.schema or 'videos'}: {summary.task}"
    for name, split in summary.splits.items():
        there.add_row(name, str(split.annotations), str(split.videos))
    read, spoken = summary.features, summary.subtitles
    made = make_table()
    made.add_row(
        "features", f"{read.videos} videos, {read.clips} clips of {summary.clip_interval:g} s, {read.width} wide"
    )
    made.add_row(
        "subtitles", f"{spoken.subtitles} in {spoken.videos} videos, {spoken.without_frames} of them without a frame"
    )
    counts = []
    for title, found in (("dropped", summary.dropped), ("mended", summary.mended)):
        if found:
            table = make_table(title, "how many")
            for what, count in found.items():
                table.add_row(printable(what), str(count))
            counts.append(table)
    print_tables(*([there] if summary.splits else []), made, *counts)
    typer.echo(f"The set is {out}." + (f" {out / DROPPED_FILE} names what was dropped." if summary.dropped else ""))
