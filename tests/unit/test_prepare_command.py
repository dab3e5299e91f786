"""The real command: from video files to a set, the same each time, and nothing that looks whole when it is killed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hero_train import cli
from hero_train.data.corpus import read_all_subtitles
from hero_train.data.features import load_features
from tests.tiny_training import VIDEOS, write_training_set
from tests.unit.hero_command import Ran
from tests.unit.releases import TVR, lines_of, write_arrays, write_lines
from tests.unit.tiny_videos import write_video


class Command:
    """Runs ``hero-train prepare`` in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> Ran:
        self._monkeypatch.setattr(sys, "argv", ["hero-train", "prepare", *map(str, arguments)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = self._capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return Ran(stopped.value.code, out, err)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.delenv("HERO_DEBUG", raising=False)
    return Command(monkeypatch, capsys)


@pytest.fixture(scope="module")
def training_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_training_set(tmp_path_factory.mktemp("training"))


def options(training_set: Path, out: Path) -> list[str]:
    named = {
        "out": out,
        "schema": "tvr",
        "train": training_set / "queries.jsonl",
        "subtitles": training_set / "subtitles",
        "videos": training_set / "videos",
        "frame-encoder": training_set / "encoder",
    }
    return [part for name, value in named.items() for part in (f"--{name}", str(value))]


def linked_videos(training_set: Path, folder: Path) -> Path:
    """A folder of the same videos, to which others can be added."""
    folder.mkdir()
    for path in (training_set / "videos").iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_from_videos_to_a_set(training_set: Path, tmp_path: Path, command: Command) -> None:
    done = command(*options(training_set, tmp_path / "set"))
    assert done.code == 0, done.err
    assert "6 videos, 36 clips of 1.5 s, 6 wide" in done.out
    assert "18 in 6 videos, 0 of them without a frame" in done.out
    assert f"The set is {tmp_path / 'set'}." in done.out.replace("\n", "")
    record = json.loads((tmp_path / "set" / "prepared.json").read_text())
    spec = json.loads((training_set / "encoder" / "frame_encoder.json").read_text())
    assert record["features"]["encoder"] == {"name": spec["name"], "fingerprint": spec["fingerprint"]}
    assert record["splits"] == {"train": {"file": str(training_set / "queries.jsonl"), "annotations": 18, "videos": 6}}
    found, dropped = load_features(tmp_path / "set", VIDEOS)
    assert not dropped
    for video in found.values():
        assert video.features.shape == (6, 6)
        assert video.duration == pytest.approx(9.0, abs=0.3)
    said = read_all_subtitles(tmp_path / "set" / "subtitles.jsonl", VIDEOS)
    assert said == read_all_subtitles(training_set / "subtitles", VIDEOS)


def test_a_second_time_gives_the_same_files_and_extracts_nothing(
    training_set: Path, tmp_path: Path, command: Command
) -> None:
    assert command(*options(training_set, tmp_path / "set")).code == 0
    first, cached = digests(tmp_path / "set"), sorted((tmp_path / "set.cache").rglob("*.safetensors"))
    times = [path.stat().st_mtime_ns for path in cached]
    refused = command(*options(training_set, tmp_path / "set"))
    assert refused.code == 2
    assert "is a prepared set already. Choose another --out, or replace it with --force." in refused.err
    assert command(*options(training_set, tmp_path / "set"), "--force").code == 0
    assert digests(tmp_path / "set") == first
    assert [path.stat().st_mtime_ns for path in cached] == times
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "set.cache"]
    inodes = {path.stem: path.stat().st_ino for path in cached}
    for file in (tmp_path / "set" / "features").iterdir():
        assert file.stat().st_ino == inodes[file.stem], "a set takes no room beside the cache"


def test_a_failure_leaves_the_set_that_was_there(training_set: Path, tmp_path: Path, command: Command) -> None:
    assert command(*options(training_set, tmp_path / "set")).code == 0
    first = digests(tmp_path / "set")
    bad = write_lines(tmp_path / "bad.jsonl", [*lines_of(training_set / "queries.jsonl"), "{"])
    failed = command(
        *options(training_set, tmp_path / "set"), "--force", "--train", bad, "--cache", tmp_path / "unused"
    )
    assert failed.code == 2
    assert not (tmp_path / "unused").exists(), "it ended before any video was read"
    assert f"1 of 19 records cannot be read ({bad}:19: is not JSON" in failed.err
    assert digests(tmp_path / "set") == first
    assert not list(tmp_path.glob(".*"))


def test_a_folder_that_is_no_set_is_never_replaced(training_set: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "thesis.txt").write_text("years of work")
    refused = command(*options(training_set, tmp_path / "set"), "--force")
    assert refused.code == 2
    assert "exists and is not a prepared set" in refused.err
    assert (tmp_path / "set" / "thesis.txt").read_text() == "years of work"


def test_a_video_that_cannot_be_decoded_is_named(training_set: Path, tmp_path: Path, command: Command) -> None:
    videos = linked_videos(training_set, tmp_path / "videos")
    (videos / "sixth.mp4").unlink()
    (videos / "sixth.mp4").write_bytes(b"not a video")
    arguments = [*options(training_set, tmp_path / "set"), "--videos", str(videos)]
    failed = command(*arguments)
    assert failed.code == 2
    assert f"1 of 6 records cannot be read ({videos}:sixth: " in failed.err
    done = command(*arguments, "--damaged-share", 0.2)
    assert done.code == 0, done.err
    assert "annotation of a video without features" in done.out
    assert "dropped.jsonl names what was dropped." in done.out.replace("\n", "")
    assert {line["id"] for line in lines_of(tmp_path / "set" / "dropped.jsonl")} == {"sixth", "15", "16", "17"}


def test_killed_in_the_middle_and_run_again(training_set: Path, tmp_path: Path, command: Command) -> None:
    """SIGKILL of the real command once two videos are extracted, and long before the last one is."""
    videos = linked_videos(training_set, tmp_path / "videos")
    write_video(videos / "long.mp4", ["red", "green", "blue"], seconds_each=200.0)
    lines = [
        *lines_of(training_set / "queries.jsonl"),
        {"desc_id": 99, "desc": "a", "vid_name": "long", "ts": [1, 500]},
    ]
    named = ["--videos", str(videos), "--train", str(write_lines(tmp_path / "queries.jsonl", lines))]
    arguments = [*options(training_set, tmp_path / "set"), *named]
    process = subprocess.Popen(
        [sys.executable, "-m", "hero_train.cli", "prepare", *arguments], stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    try:
        while len(cached := sorted((tmp_path / "set.cache").rglob("*.safetensors"))) < 2:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "set").exists()
    assert (tmp_path / ".set.partial").is_dir(), "it was killed while it wrote"
    assert not list(tmp_path.rglob("prepared.json"))
    times = {path: path.stat().st_mtime_ns for path in cached}

    assert command(*arguments).code == 0
    assert {path: path.stat().st_mtime_ns for path in cached} == times, "what was extracted is not extracted again"
    assert not list(tmp_path.glob(".*"))
    assert command(*options(training_set, tmp_path / "whole"), *named, "--cache", tmp_path / "other").code == 0
    killed, whole = digests(tmp_path / "set"), digests(tmp_path / "whole")
    assert killed == whole


def test_killed_between_two_renamings(tmp_path: Path, command: Command) -> None:
    """The old set is put back before anything else."""
    features = write_arrays(tmp_path / "features", {str(line["vid_name"]): 9 for line in TVR})
    file = write_lines(tmp_path / "tvr.jsonl", TVR)
    arguments = [
        "--out",
        tmp_path / "set",
        "--schema",
        "tvr",
        "--train",
        file,
        "--features",
        features,
        "--clip-interval",
        1.5,
    ]
    assert command(*arguments).code == 0
    first = digests(tmp_path / "set")
    os.rename(tmp_path / "set", tmp_path / ".set.replaced")
    assert command(*arguments, "--train", tmp_path / "nowhere.jsonl").code == 2
    assert digests(tmp_path / ".set.replaced") == first
    assert command(*arguments).code == 0
    assert digests(tmp_path / "set") == first
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--features", "f", "--schema", "tvr"], "Annotations and their --schema belong together"),
        (["--features", "f", "--train", "a"], "Annotations and their --schema belong together"),
        (["--features", "f", "--schema", "tvr", "--train", "a", "--annotations", "b"], "and not both"),
        (
            ["--features", "f", "--schema", "tvr", "--train", "a", "--split-lists", "b"],
            "divide the file of --annotations",
        ),
        ([], "State either --features or --videos"),
        (["--features", "f", "--videos", "v"], "State either --features or --videos"),
        (["--videos", "v"], "are read through a --frame-encoder"),
        (["--features", "f", "--frame-encoder", "e"], "are read through a --frame-encoder"),
        (["--features", "f", "--piece", "-1"], "expected a positive number of seconds, or 0"),
    ],
)
def test_options_that_contradict(tmp_path: Path, command: Command, arguments: list[str], message: str) -> None:
    (tmp_path / "f").mkdir()
    write_arrays(tmp_path / "f", {"v": 3})
    named = [str(tmp_path / "f") if argument == "f" else argument for argument in arguments]
    refused = command("--out", tmp_path / "set", "--clip-interval", 1.5, *named)
    assert refused.code == 2
    assert message in refused.err


def test_a_set_without_annotations(training_set: Path, tmp_path: Path, command: Command) -> None:
    arguments = [
        "--out",
        tmp_path / "set",
        "--videos",
        training_set / "videos",
        "--frame-encoder",
        training_set / "encoder",
    ]
    done = command(*arguments, "--subtitles", training_set / "subtitles", "--cache", tmp_path / "cache")
    assert done.code == 0, done.err
    assert "6 videos" in done.out
    assert json.loads((tmp_path / "set" / "prepared.json").read_text())["task"] == "pretraining"


def test_help_says_which_schemas_there_are(command: Command) -> None:
    shown = command("--help")
    assert shown.code == 0
    for name in ("--schema", "--train", "--subtitles", "--features", "--frame-encoder", "--damaged-share"):
        assert name in shown.out
