"""Two searches that have to find the same moments, whose scores went through different arithmetic."""

from __future__ import annotations

import dataclasses

import pytest

from hero_sdk import Moment


def assert_same_moments(found: list[Moment], expected: list[Moment], tolerance: float) -> None:
    """The same moments in the same order, at least one; ``tolerance`` is relative and of the scores alone."""
    assert expected
    assert [dataclasses.replace(moment, score=0) for moment in found] == [
        dataclasses.replace(moment, score=0) for moment in expected
    ]
    assert [moment.score for moment in found] == pytest.approx(
        [moment.score for moment in expected], rel=tolerance, abs=1e-30
    )
