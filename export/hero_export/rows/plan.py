"""``hero-export plan``: which row shapes a corpus fills best, by packing its lengths into each."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hero_export.errors import ExportError
from hero_export.report import rich_table
from hero_export.rows.geometry import reads_texts
from hero_export.rows.lengths import CorpusLengths, WindowLengths
from hero_sdk.bins import first_fit
from hero_sdk.rows import LAST_TEXT_POSITION, RowGeometry, piece_sizes
from hero_train.config import CaptioningConfig, HeroConfig

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

STEP = 8
"""Shapes are multiples of this, which suits the vector units of every engine."""

SLOTS = (64, 96, 128, 160, 192, 256, 320, 384, 512)
"""Slots of a row that are tried."""

MOST_LOST = 0.001
"""Largest share of tokens that a proposed shape may cut, and of subtitles that it may split."""

MORE_ROWS = 1.02
"""How many more rows a shorter frame table may cost; it is read and projected whole, however few frames are in it."""

Entry = tuple[WindowLengths, tuple[int, ...]]
"""A window with the tokens of each text that it is read with."""


@dataclass(frozen=True)
class Candidate:
    """A shape of rows.

    Attributes:
        options: of ``hero-export onnx``.
        rows: how many the corpus takes.
        empty: share of their slots that hold nothing.
        empty_frames: share of the frame tables that holds nothing; None where rows have no such table.
        cut: share of tokens, or of texts, that do not fit and are cut.
        split: share of subtitles that are read in pieces, since a row has no room for all their frames; None as above.
        work: arithmetic of the rows, beside that of the proposed shape.
        proposed: whether this one is.
    """

    options: dict[str, int]
    rows: int
    empty: float
    empty_frames: float | None
    cut: float
    split: float | None
    work: float
    proposed: bool = False

    @property
    def loss(self) -> float:
        """The larger of what is cut and what is split: either way the model reads something else."""
        return max(self.cut, self.split or 0.0)


@dataclass(frozen=True)
class RowPlan:
    """What a corpus asks for.

    Attributes:
        videos, windows, requests: of the corpus; a request is a video, a question or a statement, and was packed by itself or
            with others.
        together: how many requests were packed together.
        padded_empty: share of slots that would hold nothing with a row per subtitle, padded to the longest of the request.
        cross_modal, temporal, texts: shapes of the rows of stage 1, of stage 2 and of queries or texts; empty where the corpus
            says nothing about them.
        options: those of the proposed shapes together, to copy.
    """

    videos: int
    windows: int
    requests: int
    together: int
    padded_empty: float
    cross_modal: tuple[Candidate, ...]
    temporal: tuple[Candidate, ...]
    texts: tuple[Candidate, ...]
    options: dict[str, int]

    def command(self) -> str:
        """The options as they are typed."""
        return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in self.options.items())

    def summary(self) -> str:
        """What was measured and what follows, in a few lines."""
        packed = "each packed by itself" if self.together == 1 else f"{self.together} packed together"
        return (
            f"{self.videos} videos, read in {self.windows} windows; {self.requests} requests, {packed}. With a row per subtitle, "
            f"padded to the longest of its request, {self.padded_empty:.0%} of the slots would be empty.\n"
            f"hero-export onnx ... {self.command()}"
        )

    def to_json(self) -> str:
        """As text for programs."""
        return json.dumps({**dataclasses.asdict(self), "command": self.command()}, indent=2)

    def to_rich(self) -> Group:
        """As tables for a terminal."""
        from rich.console import Group

        tables = (
            ("Rows of stage 1", self.cross_modal),
            ("Rows of stage 2", self.temporal),
            ("Queries and texts", self.texts),
        )
        return Group(*(_table(title, candidates) for title, candidates in tables if candidates))


def _table(title: str, candidates: Sequence[Candidate]) -> Table:
    names = list(candidates[0].options)
    columns = (
        *(name.replace("_", " ") for name in names),
        "rows",
        "empty slots",
        "empty frames",
        "cut",
        "split",
        "work",
        "",
    )
    rows = [
        [
            *(str(one.options[name]) for name in names),
            str(one.rows),
            f"{one.empty:.1%}",
            "" if one.empty_frames is None else f"{one.empty_frames:.1%}",
            f"{one.cut:.2%}",
            "" if one.split is None else f"{one.split:.2%}",
            f"{one.work:.2f}",
            "proposed" if one.proposed else "",
        ]
        for one in candidates
    ]
    return rich_table(title, columns, rows)


def plan_rows(
    lengths: CorpusLengths, config: HeroConfig, *, together: int = 1, most: int = 1000, seed: int = 0
) -> RowPlan:
    """Pack the lengths of a corpus into rows of many shapes and propose one.

    Args:
        lengths: of the corpus.
        config: of the model; its position tables limit the shapes.
        together: requests that are packed together: 1 as a server sees them, more as an indexer packs them.
        most: requests that are looked at; of a larger corpus as many are drawn.
        seed: of the draw.

    Raises:
        ExportError: no request to pack together, or texts for which the model has no room.
    """
    if together < 1 or most < 1:
        raise ExportError(f"together is {together} and sample {most}; expected at least 1 of either.")
    # Only what shapes the texts decides how much room is left beside them.
    texts, options = _plan_texts(lengths, config)
    query_tokens = options.get("query_tokens", RowGeometry.query_tokens)
    groups = _grouped(_requests(lengths, most, seed), query_tokens, together)
    cross_modal = _plan_cross_modal(groups, config, query_tokens)
    temporal = _plan_temporal(groups, config, query_tokens)
    for candidates in (cross_modal, temporal):
        options |= next(one.options for one in candidates if one.proposed)
    return RowPlan(
        videos=len(lengths.videos),
        windows=sum(map(len, lengths.videos)),
        requests=len(lengths.texts) or len(lengths.videos),
        together=together,
        padded_empty=_padded_empty(groups),
        cross_modal=cross_modal,
        temporal=temporal,
        texts=texts,
        options={name: options[name] for name in _ORDER if name in options},
    )


_ORDER = ("slots", "frames", "temporal_slots", "query_tokens", "answers", "caption_tokens")


def _requests(lengths: CorpusLengths, most: int, seed: int) -> list[list[Entry]]:
    """What is encoded for each request, of at most so many."""
    requests: list[list[Entry]]
    if lengths.texts:
        requests = [[(window, one.tokens) for window in lengths.videos[one.video]] for one in lengths.texts]
    else:
        requests = [[(window, ()) for window in windows] for windows in lengths.videos]
    if len(requests) > most:
        chosen = np.sort(np.random.default_rng(seed).permutation(len(requests))[:most])
        requests = [requests[number] for number in chosen]
    return requests


@dataclass(frozen=True)
class _Reading:
    """A window, read with a text of so many tokens, or with none."""

    window: WindowLengths
    text: int


def _grouped(requests: list[list[Entry]], query_tokens: int, together: int) -> list[list[_Reading]]:
    """What is packed together."""
    readings = [
        [_Reading(window, min(tokens, query_tokens)) for window, texts in request for tokens in (texts or (0,))]
        for request in requests
    ]
    return [
        [reading for request in readings[start : start + together] for reading in request]
        for start in range(0, len(readings), together)
    ]


def _plan_texts(lengths: CorpusLengths, config: HeroConfig) -> tuple[tuple[Candidate, ...], dict[str, int]]:
    """Shapes of queries or texts, and the options that follow from them alone."""
    options: dict[str, int] = {}
    if lengths.captions and isinstance(config, CaptioningConfig):
        options["caption_tokens"] = min(_holding(lengths.captions, STEP), config.decoder_positions)
    if any(len(one.tokens) > 1 for one in lengths.texts):
        options["answers"] = max(len(one.tokens) for one in lengths.texts)
    tokens = np.array([*lengths.queries, *(length for one in lengths.texts for length in one.tokens)])
    if not len(tokens):
        return (), options
    limit = min(config.text_positions, config.query_positions)
    sizes = _multiples(STEP, min(limit, _rounded(int(tokens.max()))))
    measured = [
        Candidate(
            options={"query_tokens": size},
            rows=len(tokens),
            empty=float(1 - np.minimum(tokens, size).sum() / (len(tokens) * size)),
            empty_frames=None,
            cut=float((tokens > size).mean()),
            split=None,
            work=_layer_work(config, size) * len(tokens),
        )
        for size in sizes
    ]
    candidates = _proposed(measured)
    return candidates, options | next(one.options for one in candidates if one.proposed)


def _plan_cross_modal(groups: list[list[_Reading]], config: HeroConfig, query_tokens: int) -> tuple[Candidate, ...]:
    least = 2 + (query_tokens if reads_texts(config) else 0)
    most = config.text_positions if config.text_positions <= LAST_TEXT_POSITION else max(SLOTS)
    sizes = [size for size in SLOTS if least <= size <= most] or [most]
    if sizes[0] < least:
        raise ExportError(
            f"A text of {query_tokens} tokens leaves no room for a frame and a word in the {most} text positions of the model. "
            "Use a model with more positions."
        )
    measured = []
    for slots in sizes:
        longest = min(slots, config.frame_positions)
        whole = _pack_cross_modal(groups, config, slots, longest)
        # The shortest table that costs hardly any row and splits hardly any subtitle.
        tables = (_pack_cross_modal(groups, config, slots, frames) for frames in _multiples(STEP, longest))
        fitting = (
            one for one in tables if one.rows <= MORE_ROWS * whole.rows and one.loss <= max(MOST_LOST, whole.loss)
        )
        measured.append(next(fitting, whole))
    return _proposed(measured)


def _pack_cross_modal(groups: list[list[_Reading]], config: HeroConfig, slots: int, frames: int) -> Candidate:
    geometry = RowGeometry(slots=slots, frames=frames)
    rows = used = used_frames = tokens = kept = segments = split = 0
    for group in groups:
        sizes = []
        for reading in group:
            for owned, said in reading.window.segments:
                pieces = piece_sizes(owned, said, reading.text, geometry)
                sizes += [(count + own + reading.text, count) for count, own in pieces]
                segments += 1
                split += len(pieces) > 1
                tokens += said * len(pieces)
                kept += sum(own for _, own in pieces)
        rows += max(first_fit(sizes, (slots, frames)), default=0) + 1
        used += sum(size for size, _ in sizes)
        used_frames += sum(count for _, count in sizes)
    work = config.cross_modal_layers * _layer_work(config, slots) + frames * config.feature_dim * config.hidden_size
    return Candidate(
        options={"slots": slots, "frames": frames},
        rows=rows,
        empty=1 - used / (rows * slots),
        empty_frames=1 - used_frames / (rows * frames),
        cut=1 - kept / tokens if tokens else 0.0,
        split=split / segments if segments else 0.0,
        work=rows * work,
    )


def _plan_temporal(groups: list[list[_Reading]], config: HeroConfig, query_tokens: int) -> tuple[Candidate, ...]:
    least = config.clip_limit + (query_tokens if reads_texts(config) else 0)
    measured = []
    for slots in sorted({_rounded(least * share) for share in (1.0, 1.25, 1.5, 2.0, 3.0, 4.0)}):
        rows = used = 0
        for group in groups:
            sizes = [(reading.window.clips + reading.text,) for reading in group]
            rows += max(first_fit(sizes, (slots,))) + 1
            used += sum(size for (size,) in sizes)
        work = config.temporal_layers * _layer_work(config, slots) + slots * config.feature_dim * config.hidden_size
        measured.append(
            Candidate({"temporal_slots": slots}, rows, 1 - used / (rows * slots), None, 0.0, None, rows * work)
        )
    return _proposed(measured)


def _layer_work(config: HeroConfig, slots: int) -> float:
    """Multiplications of a transformer layer on a row: projections, feed-forward network, attention."""
    width = config.hidden_size
    return slots * (4 * width**2 + 2 * width * config.intermediate_size) + 2 * slots**2 * width


def _proposed(measured: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The candidates with their work beside that of the one that is proposed: the least among those that lose hardly anything."""
    least = min(one.loss for one in measured)
    best = min((one for one in measured if one.loss <= max(MOST_LOST, least)), key=lambda one: one.work)
    return tuple(dataclasses.replace(one, work=one.work / best.work, proposed=one is best) for one in measured)


def _padded_empty(groups: list[list[_Reading]]) -> float:
    used = padded = 0
    for group in groups:
        sizes = [(owned, said + reading.text) for reading in group for owned, said in reading.window.segments]
        used += sum(map(sum, sizes))
        padded += len(sizes) * max(map(sum, sizes), default=0)
    return 1 - used / padded if padded else 0.0


def _holding(sizes: Sequence[int], step: int) -> int:
    """The smallest multiple of ``step`` that cuts hardly any of these."""
    return _rounded(float(np.quantile(sizes, 1 - MOST_LOST)), step)


def _rounded(size: float, step: int = STEP) -> int:
    return math.ceil(size / step) * step


def _multiples(step: int, most: int) -> list[int]:
    """Multiples up to a limit, and the limit."""
    return sorted({*range(step, most + 1, step), most})
