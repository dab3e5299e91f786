"""What reaches the terminal of a person who runs ``hero``: text without control characters, in any encoding, and errors."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

import hero_sdk
from hero_sdk import cli, terminal
from hero_sdk.command import without_controls
from tests.tiny_bundle import write_tiny_bundle
from tests.unit.hero_command import Run, ids_in, make_run
from tests.unit.tiny_videos import write_srt, write_video

ESCAPE = "\x1b"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return make_run(monkeypatch, capsys)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("cli") / "bundle")


def test_names_cannot_steer_the_terminal(run: Run, bundle: Path, tmp_path: Path) -> None:
    folder, corpus = tmp_path / "videos", tmp_path / "corpus"
    names = [
        f"red{ESCAPE}[31m.mp4",
        "two\nlines.mp4",
        "eight\x9b31m bits.mp4",
        "turned\u202eround.mp4",
        "[bold]markup.mp4",
    ]
    for name in names:
        write_video(folder / name, ["red"])
        write_srt((folder / name).with_suffix(".srt"), [f"{ESCAPE}]0;title\x07 gem"])
    (folder / f"broken{ESCAPE}[2J.mp4").write_text("no video")
    options = ("--corpus", corpus, "--bundle", bundle)
    index = run("index", folder, *options)
    assert index.code == 1
    assert ids_in(corpus) == sorted(names)
    broken, counts = index.err.splitlines()
    assert broken.startswith("broken\N{REPLACEMENT CHARACTER}[2J.mp4: ")
    assert counts.startswith("5 added")
    shown = [run("videos", "--corpus", corpus), run("search", "the gem", *options)]
    for table in shown:
        assert "red\N{REPLACEMENT CHARACTER}[31m.mp4" in table.out
        assert "two lines.mp4" in table.out
        assert "[bold]markup.mp4" in table.out
    error = run("search", "the gem", "--corpus", f"{corpus}{ESCAPE}[2J", "--bundle", bundle)
    assert error.err.startswith("CorpusError")
    as_json = [run("videos", "--corpus", corpus, "--json"), run("search", "the gem", *options, "--json")]
    assert {row["video_id"] for row in json.loads(as_json[0].out)} == set(names)
    for done in (index, *shown, error, *as_json):
        assert not set(done.out + done.err) & {ESCAPE, "\x9b", "\x07", "\u202e"}


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_output_goes_through_a_pipe_that_has_no_unicode(
    run: Run, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    corpus = tmp_path / "corpus"
    with hero_sdk.load(bundle) as hero:
        hero.corpus(corpus).add(write_video(tmp_path / "two.mp4", ["red"]), video_id="動画")
    for option, expected in (("--json", b'"video_id": "\\u52d5\\u753b"'), (None, b"??")):
        pipe = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", pipe)
        assert run("videos", "--corpus", corpus, *filter(None, [option])).code == 0
        pipe.flush()
        assert isinstance(pipe.buffer, io.BytesIO)
        assert expected in pipe.buffer.getvalue()


def test_debug_shows_the_traceback(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["hero", "videos", "--debug", "--corpus", str(tmp_path)])
    with pytest.raises(hero_sdk.CorpusError):
        cli.main()
    assert run("videos", "--corpus", tmp_path).code == 2
    monkeypatch.setenv("HERO_DEBUG", "1")
    with pytest.raises(hero_sdk.CorpusError):
        cli.main()


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "0:00.0"),
        (4.54, "0:04.5"),
        (59.94, "0:59.9"),
        (59.96, "1:00.0"),
        (600, "10:00.0"),
        (3599.97, "1:00:00.0"),
        (36000 + 61.5, "10:01:01.5"),
    ],
)
def test_times_are_rounded_before_they_are_split(seconds: float, expected: str) -> None:
    assert terminal.format_time(seconds) == expected


def test_control_characters_are_replaced_and_letters_stay() -> None:
    assert (
        without_controls("Füße 動画\tx\x00\x7f\r\n")
        == "Füße 動画 x\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}  "
    )
    assert without_controls("a\nb\x1b", keep="\n") == "a\nb\N{REPLACEMENT CHARACTER}"
