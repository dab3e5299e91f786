"""``reproduce.sh`` does what it says in a shell: it checks its inputs and runs the command."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from hero_export.reproduce import Variable, reproduce_script


@pytest.fixture
def script(tmp_path: Path) -> Path:
    text = reproduce_script(
        ["printf", "%s|", Variable("INPUT", "a file"), "--name", "two words", "$HOME", 0.001, Variable("OUT")],
        variables={"INPUT": "a folder", "OUT": "another one"},
        inputs={Variable("INPUT", "a file"): hashlib.sha256(b"content").hexdigest()},
        tools={"python": "3.11.7", "torch": "2.13.0+cpu", "onnx": "1.23"},
    )
    (tmp_path / "reproduce.sh").write_text(text, encoding="utf-8")
    (tmp_path / "in here").mkdir()
    (tmp_path / "in here" / "a file").write_text("content", encoding="utf-8")
    return tmp_path / "reproduce.sh"


def run(script: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", **variables}
    return subprocess.run(
        ["sh", script], capture_output=True, text=True, check=False, env=environment, cwd=script.parent
    )


def test_it_runs_the_command_word_for_word(script: Path) -> None:
    done = run(script, INPUT="in here", OUT="$(touch no)")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "in here/a file|--name|two words|$HOME|0.001|$(touch no)|"
    assert not (script.parent / "no").exists()


def test_it_asks_for_what_it_needs(script: Path) -> None:
    done = run(script, INPUT="in here")
    assert done.returncode != 0
    assert "OUT: expected another one" in done.stderr
    assert done.stdout == ""


def test_other_inputs_are_refused(script: Path) -> None:
    (script.parent / "in here" / "a file").write_text("other", encoding="utf-8")
    done = run(script, INPUT="in here", OUT="x")
    assert done.returncode != 0
    assert "FAILED" in done.stdout + done.stderr
    assert "two words" not in done.stdout


def test_it_names_the_versions(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert "# It was made with python 3.11.7, torch 2.13.0+cpu, onnx 1.23; other versions" in text
