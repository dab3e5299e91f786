"""Bundles to and from the hub, through ``huggingface_hub`` and a stub of the hub's HTTP API on this machine."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from huggingface_hub import constants

import hero_sdk
from hero_export.errors import ExportError
from hero_export.hub import prepare_push, pull_bundle, push_bundle
from hero_export.model_card import MARK
from hero_export.report import CaseResult, ExportReport
from hero_export.signing import KeyFiles, make_keys, sign_bundle
from hero_sdk.errors import BundleError, HubError, InputError, SignatureError
from hero_sdk.hub import HubReference, local_bundle
from hero_sdk.manifest import Manifest, read_bundle
from tests.hub_stub import TOKEN, HubStub
from tests.tiny_bundle import seal, write_tiny_bundle
from tests.unit.hero_export_command import RunExport, make_export_run

pytestmark = pytest.mark.filterwarnings(
    # huggingface_hub's upload without hf-xet uses an argument that its own HTTP library has deprecated.
    "ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning"
)

HERE = HubReference("me/tiny")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubStub]:
    """A hub, and the library's settings pointed at it; it has read the environment when it was imported."""
    with HubStub() as stub:
        monkeypatch.setattr(constants, "ENDPOINT", stub.url)
        template = f"{stub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        for name in ("HF_HUB_CACHE", "HF_ASSETS_CACHE"):
            monkeypatch.setattr(constants, name, str(tmp_path / "cache" / name))
        monkeypatch.setattr(
            "huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", constants.HF_ASSETS_CACHE, raising=False
        )
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield stub


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return verified(write_tiny_bundle(tmp_path / "bundle", external_weights=True))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunExport:
    return make_export_run(monkeypatch, capsys)


def verified(bundle: Path, **changes: object) -> Path:
    """Give a bundle the report of an export."""
    manifest = Manifest.from_json((bundle / "manifest.json").read_text(encoding="utf-8"))
    case = CaseResult("query", "query_vector", "batch of one", 1, 1, 2e-7, 1e-8, 2.0, 0.9999999, True, True)
    case = dataclasses.replace(case, **changes)  # type: ignore[arg-type]
    report = ExportReport(manifest.fingerprint, {"max_relative_error": 1e-4}, (), (case,), {"torch": "2.9"})
    (bundle / "reports").mkdir(exist_ok=True)
    (bundle / "reports" / "export.json").write_text(report.to_json(), encoding="utf-8")
    metrics = {"metrics": {"VCMR": {"R@1": 0.25}}, "seconds": 3}
    (bundle / "reports" / "task.json").write_text(json.dumps(metrics), encoding="utf-8")
    seal(bundle, manifest)
    return bundle


def content(bundle: Path) -> dict[str, bytes]:
    return {path.relative_to(bundle).as_posix(): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}


# There and back


def test_a_bundle_comes_back_as_it_went(hub: HubStub, bundle: Path, tmp_path: Path) -> None:
    (bundle / "private-notes.txt").write_text("not listed, not sent", encoding="utf-8")
    stages: list[str] = []
    pushed = push_bundle(bundle, HERE, on_stage=stages.append)
    sent = hub.files("me/tiny")
    assert (
        set(sent) - {"README.md", ".gitattributes"}
        == set(pushed.files)
        == {"manifest.json", *read_bundle(bundle).files}
    )
    assert (pushed.deleted, pushed.card) == ((), True)
    assert pushed.url == f"{hub.url}/me/tiny/commit/{pushed.commit}"
    assert hub.repositories["me/tiny"].messages == ["", "Bundle tiny-0"]
    assert stages[0] == "Checking the bundle"
    listing, manifest = pull_bundle(HERE, tmp_path / "out")
    assert listing.commit == pushed.commit
    assert manifest == read_bundle(bundle)
    (bundle / "private-notes.txt").unlink()
    assert content(tmp_path / "out") == content(bundle)
    # Large files through Git LFS, as the hub asked for.
    assert any(method == "PUT" and path.startswith("/lfs/") for method, path in hub.requests)


def test_the_card_says_what_the_bundle_is(hub: HubStub, bundle: Path) -> None:
    push_bundle(bundle, HERE)
    card = hub.files("me/tiny")["README.md"].decode()
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front) == {
        "library_name": "hero-video-sdk",
        "tags": ["hero", "video-retrieval", "moment-retrieval", "onnx", read_bundle(bundle).task],
    }
    size = sum(file.bytes for file in read_bundle(bundle).files.values()) / 1e6
    for text in (
        MARK,
        f"| task | {read_bundle(bundle).task} |",
        "| moments | 4.5 to 24 s |",
        "hero index videos --corpus corpus --bundle hub:me/tiny",
        f"| size | {size:.1f} MB |",
        "| signed | no |",
        "| query | fp32 | 4 | 0.0 |",
        "| query | query_vector | 1 | 1.0e-07 | 0.9999999 |",
        "| task | VCMR/R@1 | 0.25 |",
        'hero_sdk.load("hub:me/tiny")',
    ):
        assert text in body, text
    assert "seconds" not in body


def test_a_card_that_a_person_wrote_stays(hub: HubStub, bundle: Path, run: RunExport) -> None:
    hub.add("me/tiny", {"README.md": b"---\nlicense: mit\n---\nMine."})
    done = run("push", bundle, "me/tiny")
    assert done.code == 0, done.err
    assert "The model card of the repository was left as it is." in done.out
    assert hub.files("me/tiny")["README.md"] == b"---\nlicense: mit\n---\nMine."
    hub.add("me/tiny", {"README.md": f"---\nlicense: mit\n---\n{MARK}\nold".encode()})
    assert push_bundle(bundle, HERE).card
    assert b"| task | " in hub.files("me/tiny")["README.md"]


def test_a_readme_of_the_bundle_goes_as_it_is(hub: HubStub, bundle: Path, tmp_path: Path) -> None:
    (bundle / "README.md").write_text("---\nlicense: mit\n---\nOf the bundle.", encoding="utf-8")
    seal(bundle, read_bundle(bundle))
    assert push_bundle(bundle, HERE).card is False
    assert hub.files("me/tiny")["README.md"] == (bundle / "README.md").read_bytes()
    pull_bundle(HERE, tmp_path / "out")
    assert (tmp_path / "out" / "README.md").read_bytes() == (bundle / "README.md").read_bytes()


def test_what_the_bundle_before_had_is_deleted_and_nothing_else(hub: HubStub, bundle: Path, tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "key")
    sign_bundle(bundle, keys.private)
    push_bundle(bundle, HERE)
    hub.add("me/tiny", {**hub.files("me/tiny"), "notes/mine.txt": b"mine"})
    second = verified(write_tiny_bundle(tmp_path / "second", seed=1))  # without a file of weights, without a signature
    assert push_bundle(second, HERE).deleted == ("graphs/query.weights", "manifest.sig")
    assert hub.files("me/tiny")["notes/mine.txt"] == b"mine"
    assert "manifest.sig" not in hub.files("me/tiny")
    pull_bundle(HERE, tmp_path / "out")
    assert content(tmp_path / "out") == content(second)


@pytest.mark.parametrize(
    "manifest", [b"not JSON", b"[]", b'{"files": 3}', b'{"files": {"../x": 1, ".gitattributes2": {}}}']
)
def test_a_manifest_of_somebody_else_names_nothing_to_delete(hub: HubStub, bundle: Path, manifest: bytes) -> None:
    hub.add("me/tiny", {"manifest.json": manifest, "other.txt": b"x"})
    assert push_bundle(bundle, HERE).deleted == ()
    assert hub.files("me/tiny")["other.txt"] == b"x"


def test_a_private_repository_and_a_branch(
    hub: HubStub, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = HubReference("me/tiny", "next")
    push_bundle(bundle, reference, private=True, message="Better")
    repository = hub.repositories["me/tiny"]
    assert repository.private
    assert repository.messages[-1] == "Better"
    assert "manifest.json" not in hub.files("me/tiny")
    pull_bundle(reference, tmp_path / "out")
    push_bundle(bundle, reference)  # the branch is there
    with pytest.raises(HubError, match=r"has no manifest\.json; expected a bundle that `hero-export push` sent"):
        pull_bundle(HERE, tmp_path / "other")
    with pytest.raises(HubError, match="has no revision nothing; expected a branch"):
        pull_bundle(HubReference("me/tiny", "nothing"), tmp_path / "other")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match=r"no repository me/tiny, or keeps it private; .* set HF_TOKEN"):
        pull_bundle(reference, tmp_path / "other")
    assert not (tmp_path / "other").exists()


# What is not sent


def test_a_damaged_bundle_is_not_sent(hub: HubStub, bundle: Path) -> None:
    (bundle / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BundleError, match="is not the file that was exported"):
        push_bundle(bundle, HERE)
    assert hub.requests == []


def no_report(bundle: Path) -> None:
    (bundle / "reports" / "export.json").unlink()


def failed_case(bundle: Path) -> None:
    verified(bundle, passed=False)


def other_model(bundle: Path) -> None:
    path = bundle / "reports" / "export.json"
    path.write_text(path.read_text(encoding="utf-8").replace("tiny-0", "tiny-1"), encoding="utf-8")


def no_cases(bundle: Path) -> None:
    path = bundle / "reports" / "export.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "cases": []}), encoding="utf-8")


def no_json(bundle: Path) -> None:
    (bundle / "reports" / "export.json").write_text("{", encoding="utf-8")


def other_cases(bundle: Path) -> None:
    (bundle / "reports" / "export.json").write_text('{"cases": [{"passed": true}]}', encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (no_report, "was never verified"),
        (failed_case, "1 of 1 comparisons that did not pass, such as query, batch of one"),
        (other_model, "is not the report of this model"),
        (no_cases, "is not the report of this model"),
        (no_json, "is not JSON"),
        (other_cases, "cannot be read"),
    ],
)
def test_an_unverified_bundle_is_not_sent(
    hub: HubStub, bundle: Path, change: Callable[[Path], None], message: str
) -> None:
    manifest = read_bundle(bundle)
    change(bundle)
    seal(bundle, manifest)
    for refuse in (push_bundle, prepare_push):
        with pytest.raises(ExportError, match=message):
            refuse(bundle, HERE)
    assert hub.requests == []


def test_a_signature_may_be_required(hub: HubStub, bundle: Path, tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "key")
    with pytest.raises(SignatureError, match="is not signed"):
        push_bundle(bundle, HERE, require_signature=keys.public)
    push_bundle(bundle, HERE)
    hub.requests.clear()
    with pytest.raises(SignatureError, match="is not signed"):
        pull_bundle(HERE, tmp_path / "out", require_signature=keys.public)
    assert not any("graphs" in path for _, path in hub.requests)  # not one of its files was fetched
    sign_bundle(bundle, keys.private)
    push_bundle(bundle, HERE, require_signature=keys.public)
    pull_bundle(HERE, tmp_path / "out", require_signature=keys.public)
    read_bundle(tmp_path / "out", require_signature=keys.public)
    assert "| signed | yes, `manifest.sig` |" in hub.files("me/tiny")["README.md"].decode()


def test_who_may_not_write(hub: HubStub, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_guess")
    with pytest.raises(
        HubError, match=r"The hub refused the request for me/tiny \(.*\)\. Set HF_TOKEN to a token with"
    ):
        push_bundle(bundle, HERE)
    assert hub.repositories == {}


def test_a_file_that_the_repository_ignores_is_missed(hub: HubStub, bundle: Path) -> None:
    hub.add("me/tiny", {".gitignore": b"*.weights\n"})
    hub.repositories["me/tiny"].ignored = {"graphs/query.weights"}
    with pytest.raises(HubError, match=r"does not hold \['graphs/query\.weights'\] as they are \(1 in all\)"):
        push_bundle(bundle, HERE)


def test_a_commit_that_came_between(hub: HubStub, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("me/tiny", {"x": b"1"})
    real = hero_sdk.hub.list_repository  # type: ignore[attr-defined]

    def then_another(reference: HubReference) -> object:
        listing = real(reference)
        hub.add("me/tiny", {"x": b"2"})
        return listing

    monkeypatch.setattr("hero_export.hub.list_repository", then_another)
    with pytest.raises(HubError, match="The hub refused the request"):
        push_bundle(bundle, HERE)
    assert hub.files("me/tiny") == {"x": b"2"}


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
