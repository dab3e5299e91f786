"""The results of ``hero-bench training``: what each layout is filled with, and how fast steps on it are."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from hero_bench.padding import PaddedVideos
from hero_bench.results import BASELINE, CaseResult, Run, filled_table, milliseconds, to_json
from hero_sdk.rows import PackedVideos

if TYPE_CHECKING:
    from rich.table import Table

LAYOUT_COLUMNS = ("layout", "rows", "slots", "filled", "frames projected", "of use", "clip slots", "filled")
STEP_COLUMNS = ("case", "layout", "n", "p50 ms", "p95 ms", "videos / s", "speed-up", "95 % interval", "verdict")


@dataclass(frozen=True)
class LayoutCounts:
    """What a layout computes on and how much of it is there, summed over all batches.

    Attributes:
        layout: its name.
        rows, slots, used_slots: of stage 1.
        frames, used_frames: features of frames that stage 1 projects.
        clip_slots, used_clip_slots: of stage 2.
    """

    layout: str
    rows: int
    slots: int
    used_slots: int
    frames: int
    used_frames: int
    clip_slots: int
    used_clip_slots: int

    def row(self, batches: int) -> list[str]:
        """A line of a table with ``LAYOUT_COLUMNS``, per batch."""
        pairs = (
            (self.slots, self.used_slots),
            (self.frames, self.used_frames),
            (self.clip_slots, self.used_clip_slots),
        )
        cells = chain.from_iterable((f"{all_ / batches:,.0f}", f"{used / all_:.1%}") for all_, used in pairs)
        return [self.layout, f"{self.rows / batches:,.0f}", *cells]


def count_padded(layout: str, batches: Sequence[PaddedVideos]) -> LayoutCounts:
    """Counts of the authors' layout."""
    return LayoutCounts(
        layout,
        rows=sum(len(batch.mask) for batch in batches),
        slots=sum(batch.mask.size for batch in batches),
        used_slots=sum(int(batch.mask.sum()) for batch in batches),
        frames=sum(batch.frame_features[..., 0].size for batch in batches),
        used_frames=sum(len(batch.regrouping.source_row) for batch in batches),
        clip_slots=sum(batch.video_mask.size for batch in batches),
        used_clip_slots=sum(int(batch.video_mask.sum()) for batch in batches),
    )


def count_packed(layout: str, batches: Sequence[PackedVideos]) -> LayoutCounts:
    """Counts of packed rows. In training their frame tables are as long as the fullest one needs."""
    first, second = [batch.cross_modal for batch in batches], [batch.temporal for batch in batches]
    return LayoutCounts(
        layout,
        rows=sum(len(rows.segment_ids) for rows in first),
        slots=sum(rows.segment_ids.size for rows in first),
        used_slots=sum(int((rows.segment_ids > 0).sum()) for rows in first),
        frames=sum(len(rows.frame_index) * int(rows.frame_index.max() + 1) for rows in first),
        used_frames=sum(int((rows.frame_index >= 0).sum()) for rows in first),
        clip_slots=sum(rows.segment_ids.size for rows in second),
        used_clip_slots=sum(int((rows.segment_ids > 0).sum()) for rows in second),
    )


@dataclass(frozen=True)
class TrainingReport:
    """``hero-bench training``: what the layouts are filled with, and the cases that were measured on them."""

    run: Run
    layouts: tuple[LayoutCounts, ...]
    cases: tuple[CaseResult, ...]

    def to_json(self) -> str:
        """As the text of the results file."""
        counts = [dataclasses.asdict(layout) for layout in self.layouts]
        return to_json({**self.run.to_dict(), "layouts": counts, "cases": [case.to_dict() for case in self.cases]})

    def to_table(self) -> Table:
        """One line per case and layout."""
        return filled_table(STEP_COLUMNS, list(chain.from_iterable(map(_step_rows, self.cases))))

    def to_layout_table(self) -> Table:
        """One line per layout: what it is filled with, per batch."""
        batches = int(self.run.settings["batches"])
        return filled_table(LAYOUT_COLUMNS, [layout.row(batches) for layout in self.layouts])


def _step_rows(result: CaseResult) -> list[list[str]]:
    lines: list[list[str]] = []
    for layout in result.durations:
        summary, against = result.summary(layout), result.comparison(layout)
        per_second = 1000 * result.case.items / summary.p50
        verdict = (
            ["", "", BASELINE]
            if against is None
            else [f"{1 / against.ratio:.2f}", f"{1 / against.high:.2f} - {1 / against.low:.2f}", against.verdict]
        )
        timing = [milliseconds(summary.p50), milliseconds(summary.p95), f"{per_second:,.1f}"]
        lines.append(["", layout, str(summary.n), *timing, *verdict])
    lines[0][0] = result.case.name
    return lines
