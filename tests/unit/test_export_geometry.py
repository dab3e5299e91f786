"""Row shapes that a model cannot serve are refused, and those at its limits are not."""

from __future__ import annotations

import dataclasses

import pytest

from hero_export import GeometryError
from hero_export.rows.geometry import check_geometry, check_limits, row_geometry
from hero_sdk.errors import InputError
from hero_sdk.manifest import CAPTIONING, QUESTION_ANSWERING, STATEMENTS
from hero_sdk.rows import RowGeometry
from tests.tiny_checkpoint import CONFIG, task_config

LIMIT = RowGeometry(slots=40, frames=16, temporal_slots=20, query_tokens=14)
"""Every shape as large, or for the temporal row as small, as the model allows."""


def test_the_limits_themselves_are_allowed() -> None:
    check_geometry(LIMIT, CONFIG, max_batch=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slots": 41}, "41 slots .* 40 text positions. Choose --slots 40 or fewer"),
        ({"frames": 17}, "17 frames, and the model has 16 frame positions. Choose --frames 16 or fewer"),
        ({"temporal_slots": 19}, "19 slots, .* up to 20 clips at once. Choose --temporal-slots 20 or more"),
        ({"query_tokens": 15}, "15 tokens, .* 14 query positions .* Choose --query-tokens 14 or fewer"),
        ({"slots": 1, "frames": 1}, "1 slot; a frame and its text need at least 2. Change --slots"),
    ],
)
def test_a_shape_beyond_a_limit_is_refused_with_the_option_to_change(change: dict[str, int], message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        check_geometry(dataclasses.replace(LIMIT, **change), CONFIG, max_batch=1)


def test_a_query_needs_text_positions_as_well() -> None:
    config = dataclasses.replace(CONFIG, text_positions=10)
    geometry = RowGeometry(slots=10, frames=10, temporal_slots=20, query_tokens=11)
    with pytest.raises(GeometryError, match="Choose --query-tokens 10 or fewer"):
        check_geometry(geometry, config, max_batch=1)


def test_rows_longer_than_the_last_text_position_need_no_more_positions_than_that() -> None:
    """Text positions stop at 511, so the paper's table of 514 serves rows of any length."""
    paper = dataclasses.replace(CONFIG, text_positions=514, frame_positions=100, clip_limit=20)
    check_geometry(RowGeometry(slots=600, frames=64, temporal_slots=20, query_tokens=14), paper, max_batch=1)


@pytest.mark.parametrize("max_batch", [0, -1])
def test_a_batch_holds_at_least_one_row(max_batch: int) -> None:
    with pytest.raises(GeometryError, match=r"must be at least 1\. Change --max-batch"):
        check_geometry(LIMIT, CONFIG, max_batch)


def test_it_is_an_error_of_the_caller() -> None:
    assert issubclass(GeometryError, InputError)


@pytest.mark.parametrize("task", [QUESTION_ANSWERING, STATEMENTS])
def test_a_text_needs_room_behind_the_longest_video(task: str) -> None:
    config = task_config(task)
    chosen = row_geometry(config, slots=40, frames=16, query_tokens=14)
    assert chosen.temporal_slots == RowGeometry.temporal_slots
    long = dataclasses.replace(config, clip_limit=120, temporal_positions=120)
    chosen = row_geometry(long, slots=40, frames=16, query_tokens=14)
    assert chosen.temporal_slots == 134
    check_geometry(chosen, long, max_batch=1)
    with pytest.raises(GeometryError, match="Choose --temporal-slots 134 or more, or --query-tokens 13 or fewer"):
        check_geometry(dataclasses.replace(chosen, temporal_slots=133), long, max_batch=1)
    assert row_geometry(CONFIG, temporal_slots=77).temporal_slots == 77
    assert row_geometry(dataclasses.replace(CONFIG, clip_limit=24)) == RowGeometry()


def test_answers_and_tokens_of_captions_have_limits() -> None:
    config = task_config(CAPTIONING)
    check_limits(config, answers=2, caption_tokens=16)
    with pytest.raises(GeometryError, match=r"expected at least 2\. Change --answers"):
        check_limits(config, answers=1, caption_tokens=16)
    with pytest.raises(GeometryError, match=r"expected at least 1\. Change --caption-tokens"):
        check_limits(config, answers=2, caption_tokens=0)
    with pytest.raises(GeometryError, match=r"decoder has 16 positions\. Choose --caption-tokens 16 or fewer"):
        check_limits(config, answers=2, caption_tokens=17)
    check_limits(CONFIG, answers=2, caption_tokens=17)
