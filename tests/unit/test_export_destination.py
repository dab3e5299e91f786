"""A bundle appears at its place whole or not at all, and nothing else is overwritten."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from hero_export import ExportError
from hero_export.bundles.destination import check_destination, staged


def write_bundle(folder: Path, mark: str = "old") -> Path:
    """What is recognised as a bundle: its manifest, of whatever version."""
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"format_version": 99, "graphs": {}, "fingerprint": mark}))
    (folder / "graphs").mkdir()
    (folder / "graphs" / "query.onnx").write_text(mark)
    return folder


def mark_of(folder: Path) -> str:
    return (folder / "graphs" / "query.onnx").read_text()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fill(folder: Path, mark: str = "new") -> None:
    (folder / "manifest.json").write_text(json.dumps({"format_version": 1, "graphs": {}, "fingerprint": mark}))
    (folder / "graphs").mkdir()
    (folder / "graphs" / "query.onnx").write_text(mark)


def test_the_folder_appears_when_all_is_written_and_not_before(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "bundle"
    with staged(out, force=False) as folder:
        fill(folder)
        assert folder.parent == out.parent
        assert not out.exists()
    assert mark_of(out) == "new"
    assert names(out.parent) == ["bundle"]


def test_others_may_read_it_as_they_may_read_any_new_folder(tmp_path: Path) -> None:
    (tmp_path / "usual").mkdir()
    with staged(tmp_path / "bundle", force=False) as folder:
        fill(folder)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "bundle")]
    assert modes[0] == modes[1]


def test_an_empty_folder_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bundle").mkdir()
    with staged(tmp_path / "bundle", force=False) as folder:
        fill(folder)
    assert mark_of(tmp_path / "bundle") == "new"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with staged(Path(), force=False) as folder:
        fill(folder)
    assert mark_of(tmp_path / "here") == "new"
    assert names(tmp_path) == ["bundle", "here"]


def stage(out: Path, *, force: bool = False, then: Callable[[], object] = lambda: None) -> None:
    """Write a bundle, and do something else before it is moved to its place."""
    with staged(out, force=force) as folder:
        fill(folder)
        then()


def raising(error: BaseException) -> Callable[[], object]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", [RuntimeError(), KeyboardInterrupt(), SystemExit()])
def test_an_error_leaves_nothing_behind(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        stage(tmp_path / "bundle", then=raising(error))
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [RuntimeError(), KeyboardInterrupt()])
def test_an_error_leaves_the_old_bundle(tmp_path: Path, error: BaseException) -> None:
    out = write_bundle(tmp_path / "bundle")
    with pytest.raises(type(error)):
        stage(out, force=True, then=raising(error))
    assert mark_of(out) == "old"
    assert names(tmp_path) == ["bundle"]


def test_a_bundle_is_replaced_with_force_alone(tmp_path: Path) -> None:
    out = write_bundle(tmp_path / "bundle")
    with pytest.raises(ExportError, match=r"is already a bundle\. Choose another --out, or replace it with --force"):
        check_destination(out, force=False)
    assert mark_of(out) == "old"
    with staged(out, force=True) as folder:
        fill(folder)
    assert mark_of(out) == "new"
    assert names(tmp_path) == ["bundle"]


@pytest.mark.parametrize("content", ["nothing", "{", "[]", '{"format_version": 1}', b"\xff\xfe"])
@pytest.mark.parametrize("force", [False, True])
def test_a_folder_that_is_no_bundle_is_never_replaced(tmp_path: Path, content: str | bytes, force: bool) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "manifest.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ExportError, match="exists and is not a bundle"):
        check_destination(tmp_path / "mine", force=force)


def test_files_and_links_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(write_bundle(tmp_path / "bundle"))
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link", "dangling"):
        with pytest.raises(ExportError, match=f"{name} exists and is not a bundle"):
            check_destination(tmp_path / name, force=True)


def test_a_place_that_was_taken_meanwhile_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    with pytest.raises(ExportError, match="already a bundle"):
        stage(out, then=lambda: write_bundle(out, "another's"))
    assert mark_of(out) == "another's"
    assert names(tmp_path) == ["bundle"]


def test_a_place_that_cannot_be_written_is_an_error_with_a_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ExportError, match="cannot be written"):
        stage(tmp_path / "file" / "bundle")
    assert names(tmp_path) == ["file"]


def test_a_full_disk_is_an_error_with_a_message(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"No space left on device.*room on the disk"):
        stage(tmp_path / "bundle", then=raising(OSError(28, os.strerror(28))))
    assert names(tmp_path) == []


def test_the_old_bundle_comes_back_when_the_new_one_cannot_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = write_bundle(tmp_path / "bundle")
    rename = Path.rename

    def failing(path: Path, target: Path) -> Path:
        if path.name.endswith(".partial"):
            raise OSError("the disk went away")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(ExportError, match="the disk went away"):
        stage(out, force=True)
    assert mark_of(out) == "old"
    assert names(tmp_path) == ["bundle"]
