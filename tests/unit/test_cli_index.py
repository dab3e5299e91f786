"""``hero index``: which videos and subtitles get into the corpus, under which ids, and what a repeated run does."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tiny_bundle import write_tiny_bundle
from tests.unit.hero_command import Run, ids_in, make_run, stored
from tests.unit.tiny_videos import write_collection, write_srt

COMMAND = Path(sys.executable).with_name("hero")
IDS = ["one.mp4", "three.mkv", "two.mp4"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return make_run(monkeypatch, capsys)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("cli") / "bundle")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_collection(folder)
    return folder


def test_index_adds_the_videos_of_all_folders_by_their_path(
    run: Run, bundle: Path, videos: Path, tmp_path: Path
) -> None:
    folder, corpus = tmp_path / "videos", tmp_path / "corpus"
    shutil.copytree(videos, folder / "season 1")
    shutil.copy(videos / "two.mp4", folder)
    done = run("index", folder, "--corpus", corpus, "--bundle", bundle)
    assert (done.code, done.out) == (0, "")
    assert done.err == f"4 added, 0 already there, 0 failed; {corpus} has 4 videos.\n"
    assert ids_in(corpus) == [*(f"season 1/{name}" for name in IDS), "two.mp4"]
    texts = {row["video_id"]: row["subtitle_text"] for row in stored(corpus, "subtitle_text")}
    assert texts["season 1/three.mkv"] == ["hello there", "good bye"]
    assert texts["two.mp4"] == []


def test_an_index_run_that_is_repeated_goes_on_where_it_stopped(
    run: Run, bundle: Path, videos: Path, tmp_path: Path
) -> None:
    folder, corpus = tmp_path / "videos", tmp_path / "corpus"
    shutil.copytree(videos, folder)
    arguments = ("index", folder, "--corpus", corpus, "--bundle", bundle)
    (folder / "three.mkv").rename(tmp_path / "three.mkv")
    assert run(*arguments).code == 0
    first = stored(corpus, "added")
    (tmp_path / "three.mkv").rename(folder / "three.mkv")
    done = run(*arguments)
    assert (done.code, done.err) == (0, f"1 added, 2 already there, 0 failed; {corpus} has 3 videos.\n")
    second = stored(corpus, "added")
    assert [row for row in second if row["video_id"] != "three.mkv"] == first
    assert run(*arguments).err.startswith("0 added, 3 already there, 0 failed")
    assert stored(corpus, "added") == second
    assert run(*arguments, "--replace").err.startswith("3 added, 0 already there, 0 failed")
    third = stored(corpus, "added")
    assert [row["video_id"] for row in third] == IDS
    assert all(new["added"] > old["added"] for new, old in zip(third, second, strict=True))  # type: ignore[operator]


def test_a_video_that_cannot_be_decoded_does_not_stop_the_rest(
    run: Run, bundle: Path, videos: Path, tmp_path: Path
) -> None:
    folder, corpus = tmp_path / "videos", tmp_path / "corpus"
    shutil.copytree(videos, folder)
    (folder / "broken.mp4").write_text("no video")
    (folder / "two.srt").write_text("no subtitles")
    for expected in ("2 added, 0 already there", "0 added, 2 already there"):
        done = run("index", folder, "--corpus", corpus, "--bundle", bundle)
        assert (done.code, done.out) == (1, "")
        broken, subtitle, counts = done.err.splitlines()
        assert broken.startswith(f"broken.mp4: {folder / 'broken.mp4'} cannot be read as a video")
        assert subtitle.startswith(f"two.mp4: {folder / 'two.srt'} has no cue")
        assert counts == f"{expected}, 2 failed; {corpus} has 2 videos."
    assert ids_in(corpus) == ["one.mp4", "three.mkv"]


def test_subtitles_come_from_the_folder_that_is_named(run: Run, bundle: Path, videos: Path, tmp_path: Path) -> None:
    folder, texts = tmp_path / "videos", tmp_path / "texts"
    for name in ("a", "b"):
        shutil.copytree(videos, folder / name)
    write_srt(texts / "a" / "one.srt", ["in the same folder"])
    write_srt(texts / "one.srt", ["at the top"])
    write_srt(texts / "two.srt", ["also at the top"])
    assert run("index", folder, "--corpus", tmp_path / "c", "--bundle", bundle, "--subtitles", texts).code == 0
    found = {row["video_id"]: row["subtitle_text"] for row in stored(tmp_path / "c", "subtitle_text")}
    assert found == {
        "a/one.mp4": ["in the same folder"],
        "b/one.mp4": ["at the top"],
        "a/two.mp4": ["also at the top"],
        "b/two.mp4": ["also at the top"],
        "a/three.mkv": ["hello there", "good bye"],
        "b/three.mkv": ["hello there", "good bye"],
    }


def test_a_folder_of_subtitles_that_cannot_be_read_is_named(
    run: Run, bundle: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is made here, for permissions do not bind every user that runs the tests."""
    folder = tmp_path / "videos"
    shutil.copytree(videos, folder / "locked")
    shutil.copy(videos / "two.mp4", folder)
    (folder / "locked" / "subtitles").mkdir()
    list_folder = Path.iterdir

    def locked(place: Path) -> Iterator[Path]:
        if place == folder / "locked" / "subtitles":
            raise PermissionError(13, "Permission denied")
        return list_folder(place)

    monkeypatch.setattr(Path, "iterdir", locked)
    done = run("index", folder, "--corpus", tmp_path / "c", "--bundle", bundle)
    assert done.code == 1
    assert f"locked/two.mp4: The folder {folder / 'locked' / 'subtitles'} cannot be searched for subtitles" in done.err
    assert ids_in(tmp_path / "c") == ["locked/one.mp4", "locked/three.mkv", "two.mp4"]


@pytest.mark.parametrize(
    ("folder", "options", "message"),
    [
        (
            "videos",
            ("--subtitles", "nowhere"),
            "nowhere is not a folder; expected the folder that holds the subtitle files",
        ),
        ("empty", (), "empty has no video files"),
        ("nowhere", (), "nowhere is not a folder; expected the folder that holds the videos"),
        ("videos/one.mp4", (), "one.mp4 is not a folder"),
    ],
)
def test_index_refuses_before_it_makes_anything(
    run: Run,
    bundle: Path,
    videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    folder: str,
    options: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("videos").symlink_to(videos)
    Path("empty").mkdir()
    Path("empty/notes.txt").write_text("no video")
    done = run("index", folder, "--corpus", "corpus", "--bundle", bundle, *options)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("InputError: ")
    assert message in done.err
    assert not Path("corpus").exists()


def test_names_that_are_no_unicode_stay_apart(run: Run, bundle: Path, videos: Path, tmp_path: Path) -> None:
    folder, corpus = tmp_path / "videos", tmp_path / "corpus"
    folder.mkdir()
    for name in (b"\xe9.mp4", b"\xe8.mp4"):  # two letters of Latin-1
        shutil.copy(videos / "two.mp4", os.path.join(os.fsencode(folder), name))
    arguments = ("index", folder, "--corpus", corpus, "--bundle", bundle)
    assert run(*arguments).err.startswith("2 added, 0 already there, 0 failed")
    assert len(set(ids_in(corpus))) == 2
    assert run(*arguments).err.startswith("0 added, 2 already there, 0 failed")
    assert run("remove", *ids_in(corpus), "--corpus", corpus).code == 0


def test_progress_is_shown_on_a_terminal(bundle: Path, videos: Path, tmp_path: Path) -> None:
    mine, theirs = pty.openpty()
    command = [COMMAND, "index", videos, "--corpus", tmp_path / "c", "--bundle", bundle]
    environment = {"TERM": "xterm", "COLUMNS": "100", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=theirs, stdout=subprocess.PIPE, text=True, env=environment) as process:
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(mine, 4096):
                shown += part
        except OSError:
            pass  # Linux's way to say that the terminal's other end is closed
        finally:
            os.close(mine)
        assert process.stdout is not None
        assert process.stdout.read() == ""
    assert process.returncode == 0
    assert b"Indexing" in shown
    assert b"3/3" in shown
    assert b"3 added, 0 already there, 0 failed" in shown
