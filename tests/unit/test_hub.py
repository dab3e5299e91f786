"""Bundles from the hub, through ``huggingface_hub`` and a stub of the hub's HTTP API on this machine."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

import hero_sdk
from hero_export.bundles.hub import pull_bundle, push_bundle
from hero_export.bundles.signing import KeyFiles, make_keys
from hero_sdk.errors import BundleError, HubError, InputError, SignatureError
from hero_sdk.hub import HubReference, local_bundle
from hero_sdk.manifest import read_bundle
from tests.hub_stub import TOKEN, HubStub
from tests.tiny_bundle import write_tiny_bundle
from tests.unit.hero_export_command import RunExport, make_export_run
from tests.unit.verified_bundle import content, verified

pytestmark = pytest.mark.filterwarnings(
    # huggingface_hub's upload without hf-xet uses an argument that its own HTTP library has deprecated.
    "ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning"
)

HERE = HubReference("me/tiny")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return verified(write_tiny_bundle(tmp_path / "bundle", external_weights=True))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunExport:
    return make_export_run(monkeypatch, capsys)


# What is not taken


def spoiled(name: str, change: Callable[[bytes], bytes]) -> Callable[[dict[str, bytes]], None]:
    def spoil(files: dict[str, bytes]) -> None:
        files[name] = change(files[name])

    return spoil


def missing(files: dict[str, bytes]) -> None:
    del files["graphs/temporal.onnx"]


def escaping(files: dict[str, bytes]) -> None:
    manifest = json.loads(files["manifest.json"])
    manifest["files"]["../../evil"] = {"sha256": "0" * 64, "bytes": 1}
    files["manifest.json"] = json.dumps(manifest).encode()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoiled("tokenizer.json", lambda data: data[:-2] + b" }"), "is not the file that was exported: found sha256"),
        (spoiled("graphs/query.onnx", lambda data: data[:-1]), r"bytes under graphs/query\.onnx; its manifest says"),
        (spoiled("manifest.json", lambda data: b"{"), "is not JSON"),
        (spoiled("manifest.json", lambda data: data + b" " * (5 << 20)), "expected at most 4194304"),
        (lambda files: files.update({"manifest.sig": bytes(2000)}), "has 2000 bytes; expected at most 1024"),
        (missing, r"has nothing under graphs/temporal\.onnx"),
        (escaping, "no plain path inside the bundle"),
    ],
)
def test_a_bundle_that_was_spoiled_at_the_hub(
    hub: HubStub, bundle: Path, tmp_path: Path, spoil: Callable[[dict[str, bytes]], None], message: str
) -> None:
    push_bundle(bundle, HERE)
    files = hub.files("me/tiny")
    spoil(files)
    hub.add("me/tiny", files)
    with pytest.raises(BundleError, match=message):
        pull_bundle(HERE, tmp_path / "out")
    with pytest.raises(BundleError, match=message):
        hero_sdk.load("hub:me/tiny")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == ["bundle"]
    assert not list((tmp_path / "cache").rglob("tokenizer.json"))


def test_the_place_is_kept_as_in_an_export(hub: HubStub, bundle: Path, tmp_path: Path, run: RunExport) -> None:
    push_bundle(bundle, HERE)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").touch()
    assert run("pull", "me/tiny", "--out", mine).code == 3
    assert run("pull", "me/tiny", "--out", mine, "--force").code == 3
    assert [path.name for path in mine.iterdir()] == ["notes.txt"]
    assert run("pull", "me/tiny", "--out", bundle).code == 3
    done = run("pull", "me/tiny", "--out", bundle, "--force", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["fingerprint"] == "tiny-0"
    hub.failing = 500
    assert run("pull", "me/tiny", "--out", bundle, "--force").code == 8
    assert read_bundle(bundle).fingerprint == "tiny-0"


def test_a_commit_from_the_hub_cannot_choose_a_folder(hub: HubStub, bundle: Path) -> None:
    hub.add("me/tiny", {"manifest.json": b"{}"})
    repository = hub.repositories["me/tiny"]
    repository.commits["../../evil"] = repository.commits[repository.branches["main"]]
    repository.branches["main"] = "../../evil"
    with pytest.raises(HubError, match="expected 40 hexadecimal digits"):
        hero_sdk.load("hub:me/tiny")


# hero_sdk.load


def test_load_keeps_a_bundle_and_asks_for_changes_alone(hub: HubStub, bundle: Path) -> None:
    first = push_bundle(bundle, HERE).commit
    with hero_sdk.load("hub:me/tiny", threads=1) as hero:
        assert hero.encode_query("the robot").vector.shape == (4,)
    hub.requests.clear()
    hero_sdk.load("hub:me/tiny").close()
    assert hub.requests == [("GET", "/api/models/me/tiny")]
    hub.requests.clear()
    assert local_bundle(f"hub:me/tiny@{first}").name == first
    assert hub.requests == []  # a commit stays what it is
    second = push_bundle(verified(write_tiny_bundle(bundle.parent / "second", seed=1)), HERE).commit
    assert local_bundle("hub:me/tiny").name == second
    assert read_bundle(local_bundle(f"hub:me/tiny@{first}")).fingerprint == "tiny-0"


def test_load_without_a_network_takes_the_copy_that_is_there(
    hub: HubStub, bundle: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_bundle(bundle, HERE)
    folder = local_bundle("hub:me/tiny")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with caplog.at_level(logging.WARNING, "hero_sdk"):
        assert local_bundle("hub:me/tiny") == folder
    assert "Using the copy of me/tiny that was fetched before" in caplog.text
    with pytest.raises(HubError, match=r"The hub cannot be reached for me/other .* or use a bundle in a folder"):
        hero_sdk.load("hub:me/other")
    with pytest.raises(HubError, match="The hub cannot be reached for me/tiny@next"):
        hero_sdk.load("hub:me/tiny@next")


def test_load_does_not_go_on_with_what_the_hub_refuses(
    hub: HubStub, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push_bundle(bundle, HERE)
    local_bundle("hub:me/tiny")
    hub.repositories["me/tiny"].private = True
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="no repository me/tiny, or keeps it private"):
        local_bundle("hub:me/tiny")
    hub.failing = 503
    assert local_bundle("hub:me/tiny").is_dir()


def test_two_processes_fetch_at_the_same_time(hub: HubStub, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = push_bundle(bundle, HERE).commit
    real = Path.rename

    def second(path: Path, target: Path) -> Path:
        """The other one is there first."""
        shutil.copytree(path, target)
        return real(path, target)

    monkeypatch.setattr(Path, "rename", second)
    place = local_bundle("hub:me/tiny")
    assert read_bundle(place) == read_bundle(bundle)
    assert sorted(path.name for path in place.parent.iterdir()) == sorted([commit, "revisions"])


def test_load_without_room_on_the_disk(hub: HubStub, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push_bundle(bundle, HERE)

    def full(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hero_sdk.hub.tempfile.mkdtemp", full)
    with pytest.raises(HubError, match=r"cannot be written to the disk .*No space left on device"):
        hero_sdk.load("hub:me/tiny")


def test_load_offline(hub: HubStub, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match=r"The hub cannot be reached .*HF_HUB_OFFLINE"):
        hero_sdk.load("hub:me/tiny")


def test_load_with_a_required_signature(hub: HubStub, bundle: Path, tmp_path: Path) -> None:
    keys: KeyFiles = make_keys(tmp_path / "key")
    push_bundle(bundle, HERE)
    with pytest.raises(SignatureError, match="is not signed"):
        hero_sdk.load("hub:me/tiny", require_signature=keys.public)
    assert not list((tmp_path / "cache").rglob("*.onnx"))
    hero_sdk.load("hub:me/tiny").close()
    # What is there already is checked as well.
    with pytest.raises(SignatureError, match="is not signed"):
        hero_sdk.load("hub:me/tiny", require_signature=keys.public)


def test_a_folder_is_never_looked_for_at_the_hub(hub: HubStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match=r"me/tiny has no manifest\.json"):
        hero_sdk.load("me/tiny")
    folder = write_tiny_bundle(tmp_path / "hub:me" / "tiny")
    hero_sdk.load(folder).close()
    hero_sdk.load("./hub:me/tiny").close()
    assert hub.requests == []


@pytest.mark.parametrize(
    "text",
    [
        "hub:",
        "hub:tiny",
        "hub:a/b/c",
        "hub:../b",
        "hub:a/..",
        "hub:a/b@",
        "hub:a/b@../c",
        "hub:a b/c",
        "hub:a/b@-x",
        "hub:/b",
    ],
)
def test_what_is_no_repository(text: str) -> None:
    with pytest.raises(InputError, match="is no bundle on the hub; expected owner/name"):
        hero_sdk.load(text)


def test_references() -> None:
    assert HubReference.parse("hub:me/tiny") == HubReference.parse("me/tiny") == HERE
    assert HubReference.parse("me/tiny@refs/pr/1") == HubReference("me/tiny", "refs/pr/1")
    assert HubReference.parse("me/tiny", "v1.0") == HubReference("me/tiny", "v1.0")
    assert str(HubReference("me/tiny", "v1.0")) == "me/tiny@v1.0"
    with pytest.raises(InputError):
        HubReference.parse("me/tiny@v1", "v2")


# The commands


def test_a_dry_run_of_a_push_asks_the_hub_nothing(hub: HubStub, bundle: Path, run: RunExport) -> None:
    done = run("push", bundle, "me/tiny", "--dry-run", "--json")
    assert done.code == 0, done.err
    plan = json.loads(done.out)
    names = [file["path"] for file in plan["files"]]
    assert names == ["manifest.json", *read_bundle(bundle).files, "README.md"]
    assert (plan["place"], plan["dry_run"]) == ("hub:me/tiny", True)
    assert hub.requests == []
    assert "Dry run: would write hub:me/tiny" in run("push", bundle, "me/tiny", "--dry-run").out
    (bundle / "tokenizer.json").write_text("{}", encoding="utf-8")
    assert run("push", bundle, "me/tiny", "--dry-run").code == 4


def test_a_dry_run_of_a_pull_fetches_the_manifest_alone(
    hub: HubStub, bundle: Path, tmp_path: Path, run: RunExport
) -> None:
    push_bundle(bundle, HERE)
    hub.requests.clear()
    done = run("pull", "me/tiny", "--out", tmp_path / "out", "--dry-run", "--json")
    assert done.code == 0, done.err
    assert {file["path"]: file["bytes"] for file in json.loads(done.out)["files"]} == {
        name: len(data) for name, data in content(bundle).items()
    }
    assert {path for method, path in hub.requests if method == "GET" and "/resolve/" in path} == {
        f"/me/tiny/resolve/{hub.repositories['me/tiny'].branches['main']}/manifest.json"
    }
    assert not (tmp_path / "out").exists()


def test_the_commands_in_a_process_of_their_own(hub: HubStub, bundle: Path, tmp_path: Path) -> None:
    """With nothing but the environment to say where the hub is and who asks."""
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }

    def command(name: str, *arguments: object) -> str:
        done = subprocess.run(
            [Path(sys.executable).with_name(name), *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    pushed = json.loads(command("hero-export", "push", bundle, "me/tiny", "--json"))
    assert pushed["reference"] == "me/tiny"
    pulled = json.loads(command("hero-export", "pull", "me/tiny", "--out", tmp_path / "out", "--json"))
    assert pulled["commit"] == pushed["commit"]
    assert content(tmp_path / "out") == content(bundle)
    assert json.loads(command("hero", "info", "hub:me/tiny", "--json"))["fingerprint"] == "tiny-0"
    assert list((tmp_path / "home" / "assets").rglob("manifest.json"))
