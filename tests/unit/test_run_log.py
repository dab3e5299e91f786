"""The log of a run: a line per entry, and none of steps that were not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hero_train.run_log import LOG_FILE, add_line, cut_log


def steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / LOG_FILE).read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for step in (20, 40, 40, 60):
        add_line(tmp_path, {"step": step, "loss": {"total": 1.5}})
    return tmp_path


@pytest.mark.parametrize(
    ("step", "left"), [(0, []), (39, [20]), (40, [20, 40, 40]), (59, [20, 40, 40]), (60, [20, 40, 40, 60])]
)
def test_lines_of_later_steps_are_dropped(folder: Path, step: int, left: list[int]) -> None:
    before = (folder / LOG_FILE).read_text(encoding="utf-8")
    cut_log(folder, step)
    assert steps(folder) == left
    assert before.startswith((folder / LOG_FILE).read_text(encoding="utf-8"))
    assert [path.name for path in folder.iterdir()] == [LOG_FILE]


@pytest.mark.parametrize("torn", ['{"step": 20, "loss', '{"step": 20}', "{}\n", "null\n", '{"step": "x"}\n'])
def test_a_line_that_was_broken_off_is_dropped(folder: Path, torn: str) -> None:
    with (folder / LOG_FILE).open("a", encoding="utf-8") as file:
        file.write(torn)
    cut_log(folder, 60)
    assert steps(folder) == [20, 40, 40, 60]


def test_a_run_without_a_log_has_none_to_cut(tmp_path: Path) -> None:
    cut_log(tmp_path, 5)
    assert not list(tmp_path.iterdir())


def test_a_log_that_fits_is_left_alone(folder: Path) -> None:
    before = (folder / LOG_FILE).stat()
    cut_log(folder, 60)
    after = (folder / LOG_FILE).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
