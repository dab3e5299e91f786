"""The demo's own judgement: it must see when something is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from demo.__main__ import SIZES, check_equal, check_floors, sample, set_apart
from demo.judge import Answer, Difference, compare
from demo.shell import DemoError, Shell
from hero_sdk import Moment
from hero_train.data.annotations import MomentQuery
from hero_train.metrics import QueryResult, Ranking


def answer(*moments: Moment, start: float = 3.0, end: float = 6.0) -> Answer:
    query = MomentQuery("0", "the robot jumps", "test_0001", ((start, end),), "v")
    found = Ranking.of((0, moment.start, moment.end, moment.score) for moment in moments)
    return Answer(query, moments, QueryResult("0", "v", 0, query.moments, Ranking.of([(0, 0, 0, 1)]), found, found))


def console() -> Console:
    return Console(quiet=True)


def test_a_moment_is_right_in_the_right_video_at_an_iou_of_0_7() -> None:
    assert answer(Moment("test_0001.mp4", 3.0, 5.2, 0.5)).right  # 2.2 of 3
    assert not answer(Moment("test_0001.mp4", 3.0, 5.0, 0.5)).right
    assert not answer(Moment("test_0002.mp4", 3.0, 6.0, 0.5)).right


def test_equal_answers_do_not_differ() -> None:
    one = [[Moment("a.mp4", 0, 3, 0.5), Moment("b.mp4", 0, 3, 0.25)]]
    other = [[Moment("a.mp4", 0, 3, 0.50001), Moment("b.mp4", 0, 3, 0.25)]]
    difference = compare(one, other)
    assert difference.moments == 0
    assert difference.score == pytest.approx(1e-5)
    check_equal(difference, 1, console())


def test_another_moment_and_another_score_are_seen() -> None:
    one = [[Moment("a.mp4", 0, 3, 0.5)]]
    assert compare(one, [[Moment("a.mp4", 0, 4.5, 0.5)]]).moments == 1
    shifted = compare(one, [[Moment("a.mp4", 0, 3, 0.501)]])
    assert shifted == Difference(0, pytest.approx(1e-3))
    for difference in (Difference(1, 0.0), shifted):
        with pytest.raises(DemoError, match="expected the same moments"):
            check_equal(difference, 1, console())


def test_moments_of_one_score_may_change_places() -> None:
    first, second = Moment("a.mp4", 0, 3, 0.5), Moment("b.mp4", 0, 3, 0.5)
    assert compare([[first, second]], [[second, first]]) == Difference(0, 0.0)


def test_a_list_that_is_shorter_is_an_error() -> None:
    first, second = Moment("a.mp4", 0, 3, 0.5), Moment("b.mp4", 0, 3, 0.5)
    with pytest.raises(ValueError, match="shorter"):
        compare([[first, second]], [[first]])


def test_a_recall_below_its_floor_is_said_and_ends_the_demo_when_it_is_no_noise(
    capsys: pytest.CaptureFixture[str],
) -> None:
    floors = SIZES["full"].floors
    assert floors is not None
    found = {kind: dict(values) for kind, values in floors.items()}
    queries = dict.fromkeys(floors, 120)
    check_floors(found, floors, queries, Console(width=100))
    assert "below" not in capsys.readouterr().out
    found["t"]["SVMR/R@1/IoU=0.7"] = 0.80  # the standard error of .83 on 120 queries is .034
    check_floors(found, floors, queries, Console(width=100))
    assert capsys.readouterr().out.count("below") == 1
    found["t"]["SVMR/R@1/IoU=0.7"] = 0.79
    with pytest.raises(DemoError, match=r"SVMR R@1 of queries about what is said: 0\.790, expected at least 0\.83"):
        check_floors(found, floors, queries, Console(width=100))


def test_the_sample_has_three_queries_of_each_kind_and_is_the_same_each_time() -> None:
    queries = [MomentQuery(str(i), "x", "v", ((0, 1),), kind) for i, kind in enumerate(["v", "t", "vt"] * 10)]  # type: ignore[arg-type]
    chosen = sample(queries)
    assert [query.type for query in chosen] == ["v"] * 3 + ["t"] * 3 + ["vt"] * 3
    assert sample(queries) == chosen
    assert len({query.query_id for query in chosen}) == 9


def test_only_the_held_out_episodes_are_set_apart(tmp_path: Path) -> None:
    for kind, suffix in (("videos", "mp4"), ("subtitles", "srt")):
        (tmp_path / kind).mkdir()
        for name in ("test_0000", "train_0000"):
            (tmp_path / kind / f"{name}.{suffix}").write_text(name, encoding="utf-8")
    set_apart(tmp_path, tmp_path / "held_out", "test")
    files = sorted(path.relative_to(tmp_path / "held_out").as_posix() for path in (tmp_path / "held_out").rglob("*.*"))
    assert files == ["subtitles/test_0000.srt", "videos/test_0000.mp4"]


def test_a_command_that_fails_ends_the_demo(tmp_path: Path) -> None:
    shell = Shell(console(), tmp_path)
    assert shell.run("python", "-c", "print('fine')") == "fine\n"
    shell.run("python", "-c", "raise SystemExit(3)", expect=3)
    with pytest.raises(DemoError, match="ended with 3; expected 0"):
        shell.run("python", "-c", "raise SystemExit(3)")
