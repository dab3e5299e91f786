"""The small demo, from making the corpus to the report."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest


@pytest.mark.slow  # trains, exports and serves: about a minute
def test_the_small_demo_runs_to_its_report(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    root = Path(__file__).parents[2]
    command = [
        sys.executable,
        "-m",
        "demo",
        "--size",
        "small",
        "--work",
        str(tmp_path / "work"),
        "--report",
        str(report),
    ]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]

    for words in (
        "48 queries: 0 of their moments differ",
        "SubtitleError: ",
        "no_such_file.srt",
        "MediaError: ",
        "sound_only.mp4",
        "cut_off.mp4",
        "chance",
    ):
        assert words in done.stdout
    page = report.read_text(encoding="utf-8")
    assert page.count("<article>") == 9
    assert page.count("data:image/jpeg;base64,") == 27
    plots = page.split("<svg")[1:]
    assert len(plots) == 9
    for plot in plots:
        ElementTree.fromstring("<svg" + plot.split("</svg>")[0] + "</svg>")
    assert str(tmp_path) not in page
