"""The signature of a bundle: ed25519 over the exact bytes of ``manifest.json``, in ``manifest.sig`` beside it.

The manifest holds the sha256 of every file, so the signature covers the whole bundle. ``hero-export sign`` writes it. The 64
raw bytes and keys in PEM are what other tools read as well:

    openssl pkeyutl -verify -pubin -inkey release.pub -rawin -in manifest.json -sigfile manifest.sig
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hero_sdk.bundle_files import SIGNATURE_FILE, read_file
from hero_sdk.errors import InputError, SignatureError, require

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

PublicKey = str | os.PathLike[str]
"""A PEM file, or the text of one."""

PublicKeys = PublicKey | Sequence[PublicKey]
"""One public key or several, of which any will do."""

MAX_SIGNATURE_BYTES = 1 << 10
MAX_KEY_BYTES = 16 << 10
EXTRA, PURPOSE = "sign", "sign bundles and to check signatures"
_PEM_BEGIN = "-----BEGIN"


def check_signature(bundle: Path, manifest: bytes, keys: PublicKeys) -> None:
    """Refuse a bundle that none of the keys signed.

    Args:
        bundle: the folder.
        manifest: the bytes of its ``manifest.json``.
        keys: public keys.

    Raises:
        SignatureError: no signature, or one that no key made over these bytes.
        InputError: no key, or something that is no ed25519 public key in PEM.
        MissingPackageError: the package ``cryptography`` is not installed.
    """
    chosen = [keys] if isinstance(keys, (str, os.PathLike)) else list(keys)
    if not chosen:
        raise InputError("A signature is required and no key is given; expected at least one public key.")
    public = [load_public_key(key) for key in chosen]
    path = bundle / SIGNATURE_FILE
    if not path.exists() and not path.is_symlink():
        raise SignatureError(
            f"{bundle} is not signed (it has no {SIGNATURE_FILE}), and a signature is required. Fetch the signed bundle, or "
            "sign this one with `hero-export sign` when you made it."
        )
    signature = read_file(bundle, SIGNATURE_FILE, MAX_SIGNATURE_BYTES)
    if not any(_is_by(key, signature, manifest) for key in public):
        names = ", ".join(_shown(key) for key in chosen)
        raise SignatureError(
            f"{path} is no signature of this manifest.json by {names}: another key signed the bundle, or it was altered after "
            "it was signed. Fetch it again from where you trust, and see that you have the right public key."
        )


def load_public_key(key: PublicKey) -> Ed25519PublicKey:
    """Read a public key in PEM.

    Raises:
        InputError: no such file, or no ed25519 public key.
        MissingPackageError: the package ``cryptography`` is not installed.
    """
    serialization = require("cryptography.hazmat.primitives.serialization", EXTRA, PURPOSE)
    ed25519 = require("cryptography.hazmat.primitives.asymmetric.ed25519", EXTRA, PURPOSE)
    unsupported = require("cryptography.exceptions", EXTRA, PURPOSE).UnsupportedAlgorithm
    data, shown = read_key(key), _shown(key)
    if b"PRIVATE KEY" in data:
        raise InputError(
            f"{shown} is a private key; expected the public one, which `hero-export keygen` put beside it."
        )
    try:
        public = serialization.load_pem_public_key(data)
    except (ValueError, unsupported) as error:
        raise InputError(
            f"{shown} is no public key in PEM ({error}); expected what `hero-export keygen` wrote."
        ) from error
    if not isinstance(public, ed25519.Ed25519PublicKey):
        raise InputError(f"{shown} is a key of another kind ({type(public).__name__}); expected an ed25519 public key.")
    return public


def read_key(key: PublicKey) -> bytes:
    """The bytes of a key, from its file when it is not a PEM text itself.

    Raises:
        InputError: no such file, one that cannot be read, or one that is far too large.
    """
    if isinstance(key, str) and key.lstrip().startswith(_PEM_BEGIN):
        return key.encode("utf-8")
    try:
        with Path(key).open("rb") as file:
            data = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise InputError(f"The key {key} cannot be read ({error}); expected a PEM file.") from error
    if len(data) > MAX_KEY_BYTES:
        raise InputError(f"{key} has more than {MAX_KEY_BYTES} bytes; expected a key in PEM.")
    return data


def _is_by(key: Ed25519PublicKey, signature: bytes, manifest: bytes) -> bool:
    invalid = require("cryptography.exceptions", EXTRA, PURPOSE).InvalidSignature
    try:
        key.verify(signature, manifest)
    except invalid:
        return False
    return True


def _shown(key: PublicKey) -> str:
    return "the given key" if isinstance(key, str) and key.lstrip().startswith(_PEM_BEGIN) else str(key)
