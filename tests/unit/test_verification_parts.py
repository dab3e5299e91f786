"""The parts of a verification that need no model: intervals, tolerances, plots, costs, where a report goes."""

from __future__ import annotations

import dataclasses
import itertools
import json
import xml.etree.ElementTree
from pathlib import Path

import numpy as np
import pytest

from hero_export.errors import BudgetError, ExportError, VerificationError
from hero_export.stage_costs import StageClock, peak_memory
from hero_export.tolerances import FP32, TOLERANCES, tolerance_of
from hero_export.verification.bootstrap import paired_interval
from hero_export.verification.destination import check_place, staged_report
from hero_export.verification.metric import sure_loss
from hero_export.verification.plots import Bar, bars, curves
from hero_export.verification.report import BASE, MetricResult, VariantResult, VerificationReport
from hero_export.verification.task import Scores, TaskSplit
from hero_export.verification.verifying import Options, budget_of, require_verified
from hero_sdk.manifest import RETRIEVAL


def test_an_interval_is_of_the_difference_and_not_of_the_items() -> None:
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 100, 400)
    low, high = paired_interval(hard + 1, hard)
    assert low == pytest.approx(1)
    assert high == pytest.approx(1)
    assert paired_interval(hard, hard) == (0, 0)


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Of coins that differ by a tenth; the normal approximation gives the same width."""
    inside, widths = 0, []
    rng = np.random.default_rng(1)
    for _ in range(60):
        first, second = rng.random(300) < 0.6, rng.random(300) < 0.5
        low, high = paired_interval(first, second)
        inside += low <= 0.1 <= high
        widths.append(high - low)
    assert 52 <= inside <= 60
    expected = 2 * 1.96 * np.sqrt((0.24 + 0.25) / 300)
    assert np.mean(widths) == pytest.approx(expected, rel=0.1)


def test_an_interval_is_the_same_each_time() -> None:
    rng = np.random.default_rng(2)
    pair = rng.random(50), rng.random(50)
    assert paired_interval(*pair) == paired_interval(*pair) != paired_interval(*pair, seed=1)


def test_a_search_counts_what_a_variant_surely_does_not_lose_more_than() -> None:
    """Of 400 items four come out wrong, and four right that were wrong: no loss, and yet no proof of that."""

    def scores(items: np.ndarray) -> Scores:
        return Scores({"accuracy": float(items.mean()), "BLEU-4": 0.5 - items.mean()}, {"accuracy": items}, {})

    torch, found = np.zeros(400), np.zeros(400)
    torch[:200] = found[:200] = 1
    assert sure_loss(scores(torch), scores(found), "accuracy") == 0
    found[[0, 1, 2, 3, 396, 397, 398, 399]] = 0, 0, 0, 0, 1, 1, 1, 1
    error = np.sqrt(8 / 400 / 399)
    assert sure_loss(scores(torch), scores(found), "accuracy") == pytest.approx(1.96 * error, rel=0.1)
    found[4] = 0
    assert sure_loss(scores(torch), scores(found), "accuracy") > 1 / 400 + 1.5 * error
    assert sure_loss(scores(torch), scores(found), "BLEU-4") == pytest.approx(-1 / 400), "no mean over items"
    assert sure_loss(scores(torch[:1]), scores(torch[:1]), "accuracy") == float("inf")


def test_a_precision_has_the_tolerance_of_its_numbers() -> None:
    assert tolerance_of("int8-dynamic") is TOLERANCES["int8"] is tolerance_of("int4-weights")
    assert tolerance_of("int8") == dataclasses.replace(TOLERANCES["int8"], calibrated=True)
    assert tolerance_of("fp8").calibrated
    assert tolerance_of("fp32") is FP32
    assert tolerance_of("posit8") is FP32, "what nobody has looked at may not be coarse"
    order = [TOLERANCES[name] for name in ("fp32", "fp16", "bf16", "int8")]
    for one, other in itertools.pairwise(order):
        assert one.min_cosine > other.min_cosine
        assert one.max_relative_error < other.max_relative_error
        assert one.budget <= other.budget


def test_a_stated_budget_is_not_for_fp32() -> None:
    options = Options(budget=3.0)
    assert budget_of("int8", options) == 3.0
    assert budget_of("fp32", options) == FP32.budget
    assert budget_of("int8", Options()) == 1.0


def scores(**metrics: float) -> Scores:
    table = {name.replace("_", "/"): value for name, value in metrics.items()}
    items = {
        name: np.array([1.0] * round(100 * value) + [0.0] * round(100 - 100 * value)) for name, value in table.items()
    }
    return Scores(table, items, {})


class Split(TaskSplit):
    task = RETRIEVAL

    def score(self, judge: object) -> Scores:
        raise NotImplementedError

    def calls(self, judge: object) -> dict[str, object]:
        raise NotImplementedError


def test_a_loss_is_in_points_and_judged_by_the_budget() -> None:
    torch, found = scores(**{"VR_R@1": 0.5, "VR_R@5": 0.9}), scores(**{"VR_R@1": 0.48, "VR_R@5": 0.5})
    first, other = Split().compare(torch, found, "onnxruntime-int8", 1.0)
    assert (first.metric, first.items, round(first.loss, 9), first.budget, first.passed) == (
        "VR/R@1",
        100,
        2.0,
        1.0,
        False,
    )
    assert first.low is not None
    assert first.high is not None
    assert first.low <= 2.0 <= first.high
    assert (other.metric, other.budget, other.passed) == ("VR/R@5", None, True), "shown and not judged"
    assert Split().compare(torch, found, "onnxruntime-int8", 2.0)[0].passed


def report(*problems: tuple[str, ...], metrics: tuple[MetricResult, ...] = ()) -> VerificationReport:
    variants = tuple(
        VariantResult(f"v{number}", "onnxruntime", "int8", None, {"int8": 3}, 10, None, own)
        for number, own in enumerate(problems)
    )
    empty: dict[str, object] = {
        field.name: () for field in dataclasses.fields(VerificationReport) if field.name in ("checks", "cases", "worst")
    }
    return VerificationReport(
        bundle="bundle",
        task=RETRIEVAL,
        fingerprint="ab",
        split="test",
        sample=None,
        threads=1,
        tools={},
        machine="x",
        tolerances={},
        variants=variants,
        metrics=metrics,
        layers=(),
        **{"latencies": (), "stages": (), "absent": {}, **empty},  # type: ignore[arg-type]
    )


LOST = MetricResult("v0", "VR/R@1", 100, 0.5, 0.4, 10.0, None, float("nan"), 1.0, False)


def test_a_budget_alone_has_an_error_of_its_own(tmp_path: Path) -> None:
    require_verified(report((), ()), tmp_path)
    with pytest.raises(BudgetError, match=r"v0: VR loses 10\n.*state another --budget"):
        require_verified(report(("VR loses 10",), metrics=(LOST,)), tmp_path)
    with pytest.raises(VerificationError, match="hero-export replay"):
        require_verified(report(("VR loses 10",), ("a number is wrong",), metrics=(LOST,)), tmp_path)


def test_a_number_that_is_none_is_null_in_json() -> None:
    content = json.loads(report((), metrics=(LOST,)).to_json())
    assert content["metrics"][0]["high"] is None
    assert content["passed"] is True
    assert content["version"] == 1


def test_plots_are_svg_whatever_the_names() -> None:
    drawn = [
        bars([Bar("a <b> & c", 12.0, "12", 10.0, 14.0), Bar("lost", 0.0, "0", wrong=True)]),
        bars([]),
        curves({"one": [1e-7, 1e-6, 0.0], "other & more": [1e-3, float("nan"), 1e-2]}, "norms"),
        curves({}, "nothing"),
    ]
    for svg in drawn:
        root = xml.etree.ElementTree.fromstring(svg)
        assert root.tag.endswith("svg")
    texts = "".join(xml.etree.ElementTree.fromstring(drawn[0]).itertext())
    assert "a <b> & c" in texts
    assert drawn[2].count("<polyline") == 2
    assert "1e-7" in drawn[2]


def test_stages_say_what_they_cost() -> None:
    told: list[str] = []
    clock = StageClock(told.append)
    clock("first")
    block = bytearray(30_000_000)
    clock("second")
    costs = clock.costs()
    assert told == [cost.stage for cost in costs] == ["first", "second"]
    assert all(cost.seconds >= 0 for cost in costs)
    assert costs[0].peak_bytes <= costs[1].peak_bytes <= peak_memory()
    assert costs[0].peak_bytes > len(block)


def test_a_report_replaces_a_report_and_nothing_else(tmp_path: Path) -> None:
    place = tmp_path / "report"
    for _ in range(2):
        with staged_report(place) as folder:
            (folder / "report.json").write_text(report(()).to_json(), encoding="utf-8")
    assert [path.name for path in place.iterdir()] == ["report.json"]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "years.txt").write_text("of work")
    with pytest.raises(ExportError, match="is no report of a verification"):
        check_place(tmp_path / "thesis")
    with pytest.raises(ZeroDivisionError), staged_report(place) as folder:
        raise ZeroDivisionError
    assert [path.name for path in place.iterdir()] == ["report.json"]
    assert BASE == "base"
