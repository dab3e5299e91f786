"""A signed bundle is taken with its key, and with nothing that differs from what was signed."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

import hero_sdk
from hero_export import ExportError, inspect_bundle
from hero_export.bundles.signing import (
    KeyFiles,
    check_key_place,
    key_id,
    load_private_key,
    make_keys,
    public_pem,
    sign_bundle,
)
from hero_export.triton import write_repository
from hero_sdk.errors import BundleError, InputError, SignatureError
from hero_sdk.manifest import MANIFEST_FILE, read_bundle
from hero_sdk.signature import check_signature, load_public_key
from tests.tiny_bundle import write_tiny_bundle

# RFC 8032, section 7.1, tests 1 and 3.
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyFiles:
    return make_keys(tmp_path_factory.mktemp("keys") / "release")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> KeyFiles:
    return make_keys(tmp_path_factory.mktemp("other") / "other")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory, keys: KeyFiles) -> Path:
    folder = write_tiny_bundle(tmp_path_factory.mktemp("signed") / "bundle", external_weights=True)
    assert sign_bundle(folder, keys.private) == keys.key_id
    return folder


@pytest.fixture
def signed(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "bundle"))


# Checking


def test_every_reader_takes_a_signed_bundle(signed: Path, keys: KeyFiles, other: KeyFiles, tmp_path: Path) -> None:
    text = keys.public.read_text(encoding="ascii")
    for required in (keys.public, str(keys.public), text, [keys.public], [other.public, text]):
        assert read_bundle(signed, require_signature=required) == read_bundle(signed)
    with hero_sdk.load(signed, require_signature=keys.public, threads=1) as hero:
        assert hero.encode_query("the robot").vector.shape == (4,)
    assert inspect_bundle(signed, require_signature=keys.public).manifest == read_bundle(signed)
    assert write_repository(signed, tmp_path / "repository", require_signature=keys.public).is_dir()


def refused(bundle: Path, tmp_path: Path, required: Any, kind: type[Exception], message: str) -> None:
    for read in (
        lambda: read_bundle(bundle, require_signature=required),
        lambda: hero_sdk.load(bundle, require_signature=required),
        lambda: inspect_bundle(bundle, require_signature=required),
        lambda: write_repository(bundle, tmp_path / "repository", require_signature=required),
    ):
        with pytest.raises(kind, match=message):
            read()
    assert not (tmp_path / "repository").exists()


def test_an_unsigned_bundle(signed: Path, keys: KeyFiles, tmp_path: Path) -> None:
    (signed / "manifest.sig").unlink()
    refused(signed, tmp_path, keys.public, SignatureError, r"is not signed \(it has no manifest\.sig\)")


def test_a_bundle_that_another_key_signed(signed: Path, other: KeyFiles, tmp_path: Path) -> None:
    refused(
        signed, tmp_path, other.public, SignatureError, "is no signature of this manifest.json by .*other.pub: another"
    )


def edited(bundle: Path) -> None:
    path = bundle / MANIFEST_FILE
    content = json.loads(path.read_text(encoding="utf-8"))
    content["moment"]["nms_iou"] = 0.9
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def reformatted(bundle: Path) -> None:
    path = bundle / MANIFEST_FILE
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")


def exported_again(bundle: Path) -> None:
    signature = (bundle / "manifest.sig").read_bytes()
    shutil.rmtree(bundle)
    write_tiny_bundle(bundle, seed=1)
    (bundle / "manifest.sig").write_bytes(signature)


def broken_signature(bundle: Path) -> None:
    data = bytearray((bundle / "manifest.sig").read_bytes())
    data[10] ^= 1
    (bundle / "manifest.sig").write_bytes(data)


def longer_signature(bundle: Path) -> None:
    (bundle / "manifest.sig").write_bytes((bundle / "manifest.sig").read_bytes() + b"\n")


def empty_signature(bundle: Path) -> None:
    (bundle / "manifest.sig").write_bytes(b"")


@pytest.mark.parametrize(
    "damage", [edited, reformatted, exported_again, broken_signature, longer_signature, empty_signature]
)
def test_a_manifest_or_signature_that_was_altered(
    signed: Path, keys: KeyFiles, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(signed)
    refused(signed, tmp_path, keys.public, SignatureError, "altered after it was signed")


@pytest.mark.parametrize("name", ["tokenizer.json", "graphs/query.onnx", "graphs/query.weights"])
def test_a_file_that_was_altered(signed: Path, keys: KeyFiles, tmp_path: Path, name: str) -> None:
    """The signature covers it through the manifest's sha256."""
    data = bytearray((signed / name).read_bytes())
    data[len(data) // 2] ^= 1
    (signed / name).write_bytes(data)
    refused(signed, tmp_path, keys.public, BundleError, "is not the file that was exported")


def test_a_signature_that_is_a_link_or_a_gigabyte(signed: Path, keys: KeyFiles, tmp_path: Path) -> None:
    (signed / "manifest.sig").rename(tmp_path / "moved")
    (signed / "manifest.sig").symlink_to(tmp_path / "moved")
    refused(signed, tmp_path, keys.public, BundleError, "is a symbolic link")
    (signed / "manifest.sig").unlink()
    with (signed / "manifest.sig").open("wb") as file:
        file.truncate(1 << 30)
    refused(signed, tmp_path, keys.public, BundleError, "expected at most 1024")


def test_without_a_required_key_a_signature_says_nothing(signed: Path) -> None:
    (signed / "manifest.sig").write_bytes(b"nonsense")
    assert read_bundle(signed).fingerprint == "tiny-0"


def test_no_keys_at_all_are_not_taken_for_no_requirement(signed: Path) -> None:
    for nothing in ([], ()):
        with pytest.raises(InputError, match="no key is given"):
            hero_sdk.load(signed, require_signature=nothing)


def test_what_is_no_public_key(signed: Path, keys: KeyFiles, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.pub"
    point = ec.generate_private_key(ec.SECP256R1()).public_key()
    foreign.write_bytes(point.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    (tmp_path / "text").write_text("a key", encoding="utf-8")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 30)
    for key, message in (
        (tmp_path / "nowhere.pub", "cannot be read"),
        (tmp_path, "cannot be read"),
        (tmp_path / "text", "is no public key in PEM"),
        (tmp_path / "large", "has more than 16384 bytes"),
        (foreign, "is a key of another kind"),
        (keys.private, "is a private key; expected the public one"),
        (keys.private.read_text(), "the given key is a private key"),
        ("-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----\n", "the given key is no public key"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            read_bundle(signed, require_signature=key)
        assert "MC4C" not in str(caught.value)  # how the bytes of an ed25519 private key begin


@pytest.mark.parametrize(("seed", "public", "message", "signature"), VECTORS)
def test_the_signature_is_that_of_the_standard(
    tmp_path: Path, seed: str, public: str, message: str, signature: str
) -> None:
    private = ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(seed))
    assert private.sign(bytes.fromhex(message)).hex() == signature
    pem = public_pem(private.public_key()).decode("ascii")
    assert load_public_key(pem).public_bytes_raw().hex() == public
    (tmp_path / "manifest.sig").write_bytes(bytes.fromhex(signature))
    check_signature(tmp_path, bytes.fromhex(message), pem)
    with pytest.raises(SignatureError):
        check_signature(tmp_path, bytes.fromhex(message) + b"\0", pem)


def test_the_file_is_the_bare_signature_of_the_manifests_bytes(signed: Path, keys: KeyFiles) -> None:
    signature = (signed / "manifest.sig").read_bytes()
    assert len(signature) == 64
    key = serialization.load_pem_public_key(keys.public.read_bytes())
    assert isinstance(key, ed25519.Ed25519PublicKey)
    key.verify(signature, (signed / MANIFEST_FILE).read_bytes())


def test_the_package_is_imported_only_when_it_is_asked_for(signed: Path, keys: KeyFiles) -> None:
    code = (
        "import sys, hero_sdk\n"
        "from hero_sdk.manifest import read_bundle\n"
        f"read_bundle({str(signed)!r})\n"
        "assert 'cryptography' not in sys.modules\n"
        "sys.modules['cryptography'] = None\n"
        f"try: read_bundle({str(signed)!r}, require_signature={str(keys.public)!r})\n"
        "except hero_sdk.MissingPackageError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 'pip install "hero-video-sdk[sign]"' in done.stdout


# Making


def test_a_pair_of_keys(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        files = make_keys(tmp_path / "release")
    finally:
        os.umask(old)
    assert (files.private, files.public) == (tmp_path / "release", tmp_path / "release.pub")
    assert stat.S_IMODE(files.private.stat().st_mode) == 0o600
    assert files.private.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----\n")
    private = load_private_key(files.private)
    assert public_pem(private.public_key()) == files.public.read_bytes()
    assert key_id(private.public_key()) == files.key_id
    assert make_keys(tmp_path / "second").key_id != files.key_id


def test_a_key_with_a_passphrase(signed: Path, tmp_path: Path) -> None:
    files = make_keys(tmp_path / "release", "open sesame")
    assert files.private.read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    with pytest.raises(InputError, match="is encrypted; expected its passphrase"):
        sign_bundle(signed, files.private, force=True)
    with pytest.raises(InputError, match=r"cannot be read as a private key .* and its passphrase"):
        sign_bundle(signed, files.private, passphrase="guess", force=True)
    sign_bundle(signed, files.private, passphrase="open sesame", force=True)
    read_bundle(signed, require_signature=files.public)
    with pytest.raises(InputError, match="The passphrase is empty"):
        make_keys(tmp_path / "second", "")
    assert not (tmp_path / "second").exists()


@pytest.mark.parametrize("taken", ["release", "release.pub"])
def test_a_key_is_never_overwritten(tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_text("mine")
    for make in (check_key_place, make_keys):
        with pytest.raises(ExportError, match=rf"{taken} exists, and a key is never overwritten"):
            make(tmp_path / "release")
    (tmp_path / taken).unlink()
    (tmp_path / taken).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ExportError, match="never overwritten"):
        make_keys(tmp_path / "release")
    assert [path.name for path in tmp_path.iterdir()] == [taken]


def test_a_key_that_appears_meanwhile_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hero_export.bundles.signing.check_key_place", lambda private: None)
    (tmp_path / "release").write_text("mine")
    with pytest.raises(ExportError, match="Nothing was overwritten"):
        make_keys(tmp_path / "release")
    assert (tmp_path / "release").read_text() == "mine"
    assert not (tmp_path / "release.pub").exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="There is no folder"):
        make_keys(tmp_path / "nowhere" / "release")


def test_a_signature_is_replaced_with_force_alone(signed: Path, other: KeyFiles, keys: KeyFiles) -> None:
    before = (signed / "manifest.sig").read_bytes()
    with pytest.raises(ExportError, match=r"already signed \(manifest\.sig\)\. Replace the signature with --force"):
        sign_bundle(signed, other.private)
    assert (signed / "manifest.sig").read_bytes() == before
    sign_bundle(signed, other.private, force=True)
    read_bundle(signed, require_signature=other.public)
    assert sorted(path.name for path in signed.iterdir()) == [
        "graphs",
        "manifest.json",
        "manifest.sig",
        "tokenizer.json",
    ]


def test_nobody_vouches_for_a_damaged_bundle(signed: Path, keys: KeyFiles) -> None:
    (signed / "tokenizer.json").write_text("{}")
    (signed / "manifest.sig").unlink()
    with pytest.raises(BundleError, match="is not the file that was exported"):
        sign_bundle(signed, keys.private)
    assert not (signed / "manifest.sig").exists()


def test_a_private_key_that_others_can_read(signed: Path, tmp_path: Path) -> None:
    files = make_keys(tmp_path / "release")
    files.private.chmod(0o640)
    with pytest.raises(InputError, match=r"can be read by others \(mode 0640\); expected 0600\. Run: chmod 600"):
        sign_bundle(signed, files.private, force=True)


def test_what_is_no_private_key(signed: Path, keys: KeyFiles, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    public = Path(shutil.copyfile(keys.public, tmp_path / "public"))
    for path, message in (
        (foreign, "another kind"),
        (public, "cannot be read as a private key"),
        (tmp_path / "no", "read"),
    ):
        if path.exists():
            path.chmod(0o600)
        with pytest.raises(InputError, match=message):
            sign_bundle(signed, path, force=True)
