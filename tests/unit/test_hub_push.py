"""Bundles to the hub, through ``huggingface_hub`` and a stub of the hub's HTTP API on this machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import hero_sdk
from hero_export.bundles.hub import prepare_push, pull_bundle, push_bundle
from hero_export.bundles.model_card import MARK
from hero_export.bundles.signing import make_keys, sign_bundle
from hero_export.bundles.variants import amend
from hero_export.errors import ExportError
from hero_sdk.errors import BundleError, HubError, SignatureError
from hero_sdk.hub import HubReference
from hero_sdk.manifest import read_bundle
from hero_sdk.variants import Variant, VariantGraph
from tests.hub_stub import HubStub
from tests.tiny_bundle import seal, write_tiny_bundle
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


def test_the_card_lists_variants(hub: HubStub, bundle: Path) -> None:
    with amend(bundle) as amendment:
        place = amendment.place("openvino-int8")
        (place / "query.xml").write_text("<net/>")
        (place / "query.bin").write_bytes(bytes(3_000_000))
        graph = VariantGraph("variants/openvino-int8/query.xml", "int8")
        amendment.add(Variant("openvino", "int8", {"query": graph}))
    push_bundle(bundle, HERE)
    assert "| `openvino-int8` | query |  | 3.0 |" in hub.files("me/tiny")["README.md"].decode()


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

    monkeypatch.setattr("hero_export.bundles.hub.list_repository", then_another)
    with pytest.raises(HubError, match="The hub refused the request"):
        push_bundle(bundle, HERE)
    assert hub.files("me/tiny") == {"x": b"2"}
