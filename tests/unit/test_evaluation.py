"""The one form of every evaluation: groups, baselines and what is printed of them."""

from __future__ import annotations

import json

import pytest

from hero_train.cli import show
from hero_train.evaluation import Evaluation, Metrics, baseline_by_group, by_group
from hero_train.metrics_answers import Judged, measure_answers


def mean(items: object) -> Metrics:
    values = list(items)  # type: ignore[call-overload]
    return {"mean": sum(values) / len(values)}


def test_groups_are_measured_beside_all() -> None:
    """What is in no group counts among all."""
    groups = {1: "odd", 2: "even", 3: "odd", 6: None}
    tables = by_group(list(groups), groups.get, mean)
    assert tables == {"all": {"mean": 3.0}, "even": {"mean": 2.0}, "odd": {"mean": 2.0}}
    assert list(tables) == ["all", "even", "odd"]
    assert set(baseline_by_group("chance", tables)) == {"chance", "chance/even", "chance/odd"}


def test_answers_of_each_kind_beside_guessing_in_that_kind() -> None:
    judged = [
        *(Judged("who", said, right, 4) for said, right in ((0, 0), (1, 0), (2, 2))),
        *(Judged("when", said, right, 2) for said, right in ((1, 1), (1, 1))),
        Judged(None, 0, 1, 4),
    ]
    found = measure_answers(judged, "questions")
    assert found.metrics == {"all": {"accuracy": 4 / 6}, "when": {"accuracy": 1.0}, "who": {"accuracy": 2 / 3}}
    assert found.baselines["chance"]["accuracy"] == pytest.approx((4 / 4 + 2 / 2) / 6)
    assert found.baselines["chance/when"] == {"accuracy": 0.5}
    assert found.baselines["majority"] == {"accuracy": 3 / 6}, "place 1 is right three times"
    assert found.baselines["majority/who"] == {"accuracy": 2 / 3}
    assert found.baselines["majority/when"] == {"accuracy": 1.0}


def test_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """The headlines that there are, in percent; a baseline without a metric leaves its place empty, and what is absent is said."""
    evaluation = Evaluation(
        metrics={"all": {"BLEU-1": 0.9, "BLEU-4": 0.25, "CIDEr": 0.5}, "beam": {"BLEU-4": 0.3, "CIDEr": 0.6}},
        baselines={"random": {"CIDEr": 0.01}},
        counts={"moments": 12, "captions": 30},
        absent={"METEOR": "there is no `java`"},
    )
    show("test", evaluation)
    printed = capsys.readouterr().out
    rows = {cells[0]: cells[1:] for line in printed.splitlines() if (cells := line.split())}
    assert "test: 12 moments, 30 captions; percent" in " ".join(printed.split())
    assert rows["BLEU-4"] == ["CIDEr"]
    assert (rows["all"], rows["beam"], rows["random"]) == (["25.0", "50.0"], ["30.0", "60.0"], ["1.0"])
    assert "METEOR is absent: there is no `java`." in printed


def test_the_entry_of_a_split_in_the_results_is_json() -> None:
    evaluation = Evaluation({"all": {"accuracy": 0.5}}, {"chance": {"accuracy": 0.25}}, {"questions": 4})
    entry = json.loads(json.dumps(evaluation.as_dict()))
    assert Evaluation(**entry) == evaluation
    assert set(entry) == {"metrics", "baselines", "counts", "absent"}
