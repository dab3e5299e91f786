"""Whatever lies in a bundle's folder, nothing outside of it is read, nothing more than is stated, and nothing that is no file."""

from __future__ import annotations

import hashlib
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hero_sdk import bundle_files
from hero_sdk.bundle_files import MAX_MANIFEST_BYTES, check_file, check_names, open_file, read_file
from hero_sdk.errors import BundleError
from hero_sdk.manifest import MANIFEST_FILE, read_bundle
from tests.tiny_bundle import write_tiny_bundle

GRAPH = "graphs/query.onnx"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "bundle")


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle / MANIFEST_FILE
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_a_whole_bundle_is_read(bundle: Path) -> None:
    read = read_bundle(bundle)
    assert read == read_bundle(str(bundle))
    assert read.files["tokenizer.json"].bytes == (bundle / "tokenizer.json").stat().st_size


def test_files_that_the_manifest_does_not_list_are_not_looked_at(bundle: Path) -> None:
    (bundle / "notes.txt").write_text("more", encoding="utf-8")
    (bundle / "elsewhere").symlink_to("/")
    os.mkfifo(bundle / "pipe")
    assert "notes.txt" not in read_bundle(bundle).files


def test_a_folder_without_manifest(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"has no manifest\.json; expected a bundle that `hero-export onnx` wrote"):
        read_bundle(tmp_path)


def test_a_manifest_that_is_not_text(bundle: Path) -> None:
    (bundle / MANIFEST_FILE).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BundleError, match=r"manifest\.json is not JSON"):
        read_bundle(bundle)


@pytest.mark.parametrize("size", [MAX_MANIFEST_BYTES + 1, 5 << 30])
def test_a_manifest_of_gigabytes_is_not_read(bundle: Path, size: int) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    os.truncate(bundle / MANIFEST_FILE, size)
    with pytest.raises(BundleError, match=rf"manifest\.json has {size} bytes; expected at most {MAX_MANIFEST_BYTES}"):
        read_bundle(bundle)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


def test_a_file_of_another_size_is_refused_without_reading_it(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.truncate(bundle / GRAPH, 50 << 30)
    monkeypatch.setattr(hashlib, "sha256", lambda: pytest.fail("the file was read"))
    with pytest.raises(
        BundleError, match=rf"query\.onnx is not the file that was exported: found {50 << 30} bytes, the man"
    ):
        check_file(bundle, GRAPH, 1234, "0" * 64)


def test_a_stated_size_beyond_all_bounds_is_refused_before_any_file_is_looked_at(bundle: Path) -> None:
    edit(bundle, lambda content: content["files"][GRAPH].update(bytes=3 << 30))
    with pytest.raises(
        BundleError, match=rf"states {3 << 30} bytes for graphs/query\.onnx; expected at most {2 << 30}"
    ):
        read_bundle(bundle)


def test_more_files_than_any_bundle_has(bundle: Path) -> None:
    entry = {"sha256": "0" * 64, "bytes": 0}
    edit(bundle, lambda content: content["files"].update({f"file{number}": entry for number in range(1000)}))
    with pytest.raises(BundleError, match=r"lists 100\d files; a bundle has at most 1000"):
        read_bundle(bundle)


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "found"), [(append, r"\d+ bytes, the"), (cut, r"\d+ bytes, the"), (flip, "sha256 [0-9a-f]{16}")]
)
def test_a_file_that_was_altered(bundle: Path, damage: Callable[[Path], None], found: str) -> None:
    damage(bundle / GRAPH)
    with pytest.raises(BundleError, match=rf"query\.onnx is not the file that was exported: found {found}"):
        read_bundle(bundle)


def test_a_file_that_shrinks_while_it_is_read(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (bundle / GRAPH).stat().st_size
    real = bundle_files.open_file

    def shrinking(folder: Path, name: str) -> Any:
        file = real(folder, name)
        stat = os.fstat(file.fileno())
        os.truncate(folder / name, 0)
        monkeypatch.setattr(os, "fstat", lambda _: stat)
        return file

    monkeypatch.setattr(bundle_files, "open_file", shrinking)
    with pytest.raises(BundleError, match="is not the file that was exported: found sha256"):
        check_file(bundle, GRAPH, size, hashlib.sha256(b"").hexdigest())


def test_a_file_that_is_missing(bundle: Path) -> None:
    (bundle / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"has no tokenizer\.json, which its manifest lists. Copy the whole folder"):
        read_bundle(bundle)


def test_a_file_that_may_not_be_read(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(BundleError, match=r"manifest\.json cannot be read \(.*Permission denied"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    "name",
    [
        "../outside.json", "graphs/../../outside.json", "graphs/..", "..", ".", "./x", "graphs/./x", "/etc/passwd", "//x",
        "graphs//query.onnx", "graphs/", "", "C:/x", "C:x", "graphs\\query.onnx", "..\\x", "~/x", ".hidden", "a/.hidden",
        "a b", "x\n", "x\0y", "caf\u00e9", "\ud800", "x*", "-x", "a/-x", "x" * 201, "$(x)",
    ],
)  # fmt: skip
def test_a_name_that_is_no_plain_path_is_refused(bundle: Path, name: str) -> None:
    edit(bundle, lambda content: content["files"].update({name: {"sha256": "0" * 64, "bytes": 0}}))
    with pytest.raises(BundleError, match="no plain path inside the bundle") as caught:
        read_bundle(bundle)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name", ["a", "graphs/query.int8.onnx", "engines/trt-10.8+sm_86/q.plan", "README.md", "x" * 200]
)
def test_the_names_that_a_bundle_has(name: str) -> None:
    check_names({name: 1}, "it")


@pytest.mark.parametrize("name", ["manifest.json", "manifest.sig"])
def test_a_manifest_cannot_list_itself(name: str) -> None:
    with pytest.raises(BundleError, match=rf"lists {name}, which cannot hold its own sha256"):
        check_names({name: 1}, "it")


def test_names_that_are_one_file_on_another_system(bundle: Path) -> None:
    edit(bundle, lambda content: content["files"].update({"Tokenizer.JSON": content["files"]["tokenizer.json"]}))
    with pytest.raises(BundleError, match=r"lists tokenizer\.json and Tokenizer\.JSON, which are one file"):
        read_bundle(bundle)


def test_a_name_that_is_listed_twice(bundle: Path) -> None:
    path = bundle / MANIFEST_FILE
    text = path.read_text(encoding="utf-8")
    entry = json.dumps({"sha256": "0" * 64, "bytes": 1})
    path.write_text(text.replace('"files": {', '"files": {"tokenizer.json": ' + entry + ","), encoding="utf-8")
    with pytest.raises(BundleError, match=r"is not JSON \(an object has the names \['tokenizer\.json'\] twice"):
        read_bundle(bundle)


@pytest.mark.parametrize("name", [MANIFEST_FILE, "tokenizer.json", GRAPH])
@pytest.mark.parametrize("inside", [False, True])
def test_a_link_in_place_of_a_file(bundle: Path, name: str, inside: bool) -> None:
    moved = (bundle if inside else bundle.parent) / "moved"
    (bundle / name).rename(moved)
    (bundle / name).symlink_to(moved)
    with pytest.raises(BundleError, match=r"is a symbolic link, which may lead outside the bundle"):
        read_bundle(bundle)


def test_a_link_in_place_of_a_folder(bundle: Path) -> None:
    (bundle / "graphs").rename(bundle.parent / "graphs")
    (bundle / "graphs").symlink_to(bundle.parent / "graphs")
    with pytest.raises(BundleError, match=r"graphs is a symbolic link"):
        read_bundle(bundle)


def test_the_bundle_itself_may_be_a_link(bundle: Path) -> None:
    link = bundle.parent / "current"
    link.symlink_to(bundle)
    assert read_bundle(link) == read_bundle(bundle)


def test_a_link_that_appears_after_the_look(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bundle.parent / "outside").write_text("secret", encoding="utf-8")
    real = os.open

    def swapping(path: Path, flags: int) -> int:
        path.unlink()
        path.symlink_to(bundle.parent / "outside")
        return real(path, flags)

    monkeypatch.setattr(os, "open", swapping)
    with pytest.raises(BundleError, match="cannot be read"):
        open_file(bundle, "tokenizer.json")


@pytest.mark.parametrize("name", [MANIFEST_FILE, "tokenizer.json"])
def test_a_pipe_is_refused_and_not_waited_for(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    with pytest.raises(BundleError, match="is a folder, a device or a pipe; expected a file"):
        read_bundle(bundle)


def test_a_pipe_that_appears_after_the_look(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def swapping(path: Path, flags: int) -> int:
        path.unlink()
        os.mkfifo(path)
        return real(path, flags)

    monkeypatch.setattr(os, "open", swapping)
    with pytest.raises(BundleError, match="became another kind of file"):
        open_file(bundle, "tokenizer.json")


def test_a_device_is_refused() -> None:
    with pytest.raises(BundleError, match="/dev/zero is a folder, a device or a pipe"):
        read_file(Path("/dev"), "zero", 10)


def test_a_folder_in_place_of_a_file(bundle: Path) -> None:
    (bundle / "tokenizer.json").unlink()
    (bundle / "tokenizer.json").mkdir()
    with pytest.raises(BundleError, match=r"tokenizer\.json is a folder"):
        read_bundle(bundle)


def test_a_file_in_place_of_a_folder(bundle: Path) -> None:
    edit(bundle, lambda content: content["files"].update({"tokenizer.json/x": {"sha256": "0" * 64, "bytes": 0}}))
    with pytest.raises(BundleError, match=r"has no tokenizer\.json/x"):
        read_bundle(bundle)
