"""Keys and signatures: ``hero-export keygen`` and ``hero-export sign``. Checking a signature is the SDK's."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hero_export.errors import ExportError
from hero_sdk.bundle_files import MANIFEST_FILE, MAX_MANIFEST_BYTES, SIGNATURE_FILE, read_file
from hero_sdk.errors import BundleError, InputError, require
from hero_sdk.manifest import Manifest, read_bundle
from hero_sdk.signature import EXTRA, PURPOSE, check_signature, read_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PUBLIC_SUFFIX = ".pub"
PRIVATE_MODE = 0o600


@dataclass(frozen=True)
class KeyFiles:
    """A pair of keys.

    Attributes:
        private, public: their files.
        key_id: the first digits of the sha256 of the public key, to tell keys apart.
    """

    private: Path
    public: Path
    key_id: str


def public_file(private: Path) -> Path:
    """Where the public key of a private one lies."""
    return private.with_name(private.name + PUBLIC_SUFFIX)


def check_key_place(private: Path) -> None:
    """Refuse a place for a new pair of keys where one of the two files is taken, for a lost key cannot be made again.

    Raises:
        ExportError: a file is there, or there is no folder for it.
    """
    for path in (private, public_file(private)):
        if path.exists() or path.is_symlink():
            raise ExportError(f"{path} exists, and a key is never overwritten. Choose another --out, or move it away.")
    if not private.parent.is_dir():
        raise ExportError(f"There is no folder {private.parent}; expected one that the key can be written to.")


def make_keys(private: Path, passphrase: str | None = None) -> KeyFiles:
    """Make a pair of ed25519 keys: the private one as PKCS8 in PEM, for its owner only, the public one beside it.

    Args:
        private: the file of the private key; the public one gets ``.pub`` behind its name.
        passphrase: encrypts the private key.

    Raises:
        ExportError: a file is there, or cannot be written.
        InputError: an empty passphrase.
        MissingPackageError: the package ``cryptography`` is not installed.
    """
    check_key_place(private)
    if passphrase == "":
        raise InputError("The passphrase is empty; expected one, or none at all for a key that is not encrypted.")
    serialization = require("cryptography.hazmat.primitives.serialization", EXTRA, PURPOSE)
    ed25519 = require("cryptography.hazmat.primitives.asymmetric.ed25519", EXTRA, PURPOSE)
    key = ed25519.Ed25519PrivateKey.generate()
    protection = (
        serialization.NoEncryption()
        if passphrase is None
        else serialization.BestAvailableEncryption(passphrase.encode("utf-8"))
    )
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    files = KeyFiles(private, public_file(private), key_id(key.public_key()))
    # The public one first: without it nobody can check, and a private key without it would have to be made again.
    _write_new(files.public, public_pem(key.public_key()), 0o644)
    try:
        _write_new(private, secret, PRIVATE_MODE)
    except BaseException:
        files.public.unlink()
        raise
    return files


def sign_bundle(bundle: Path, key: Path, *, passphrase: str | None = None, force: bool = False) -> str:
    """Check a bundle and sign its manifest.

    Args:
        bundle: the folder; ``manifest.sig`` is written there and nothing else is touched.
        key: file of the private key.
        passphrase: of the key, if it has one.
        force: replace a signature that another key made.

    Returns:
        The id of the key.

    Raises:
        BundleError: the bundle is not whole; nobody should vouch for it.
        ExportError: it is signed by another key, or the signature cannot be written.
        InputError: no key, a key that others can read, or another passphrase.
        MissingPackageError: the package ``cryptography`` is not installed.
    """
    private = load_private_key(key, passphrase)
    manifest = read_file(bundle, MANIFEST_FILE, MAX_MANIFEST_BYTES)
    if read_bundle(bundle) != Manifest.from_json(manifest.decode("utf-8")):
        raise BundleError(
            f"{bundle / MANIFEST_FILE} changed while it was checked. Sign the bundle when nobody writes to it."
        )
    check_signature_place(bundle, force=force)
    path = bundle / SIGNATURE_FILE
    partial = path.with_name(SIGNATURE_FILE + ".partial")
    try:
        partial.write_bytes(private.sign(manifest))
        os.replace(partial, path)
    except OSError as error:
        raise ExportError(
            f"{path} cannot be written ({error}). See that the bundle's folder may be written to."
        ) from error
    check_signature(bundle, manifest, public_pem(private.public_key()).decode("ascii"))
    return key_id(private.public_key())


def check_signature_place(bundle: Path, *, force: bool) -> None:
    """Refuse to replace a signature, which may be another's, unless ``force`` is given.

    Raises:
        ExportError: the bundle is signed.
    """
    path = bundle / SIGNATURE_FILE
    if not force and (path.exists() or path.is_symlink()):
        raise ExportError(f"{bundle} is already signed ({SIGNATURE_FILE}). Replace the signature with --force.")


def is_encrypted(key: Path) -> bool:
    """Whether a private key needs a passphrase.

    Raises:
        InputError: the file cannot be read.
    """
    return b"BEGIN ENCRYPTED PRIVATE KEY" in read_key(key)


def load_private_key(key: Path, passphrase: str | None = None) -> Ed25519PrivateKey:
    """Read a private key in PEM.

    Raises:
        InputError: no such file, no ed25519 private key, a file that others can read, or another passphrase.
        MissingPackageError: the package ``cryptography`` is not installed.
    """
    serialization = require("cryptography.hazmat.primitives.serialization", EXTRA, PURPOSE)
    ed25519 = require("cryptography.hazmat.primitives.asymmetric.ed25519", EXTRA, PURPOSE)
    unsupported = require("cryptography.exceptions", EXTRA, PURPOSE).UnsupportedAlgorithm
    data = read_key(key)
    if os.name == "posix" and (mode := stat.S_IMODE(key.stat().st_mode)) & 0o077:
        raise InputError(f"{key} can be read by others (mode {mode:04o}); expected 0600. Run: chmod 600 {key}")
    encrypted = is_encrypted(key)
    if encrypted and passphrase is None:
        raise InputError(f"{key} is encrypted; expected its passphrase, typed at a terminal or in HERO_KEY_PASSPHRASE.")
    try:
        private = serialization.load_pem_private_key(
            data, passphrase.encode("utf-8") if encrypted and passphrase is not None else None
        )
    except (ValueError, TypeError, unsupported) as error:
        raise InputError(
            f"{key} cannot be read as a private key ({error}); expected what `hero-export keygen` wrote"
            f"{', and its passphrase' if encrypted else ''}."
        ) from error
    if not isinstance(private, ed25519.Ed25519PrivateKey):
        raise InputError(f"{key} is a key of another kind ({type(private).__name__}); expected an ed25519 private key.")
    return private


def public_pem(key: Ed25519PublicKey) -> bytes:
    """A public key in PEM."""
    serialization = require("cryptography.hazmat.primitives.serialization", EXTRA, PURPOSE)
    return bytes(key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))


def key_id(key: Ed25519PublicKey) -> str:
    """The first 16 digits of the sha256 of a public key's 32 bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that must not be there; it never has wider rights than ``mode``."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ExportError(
            f"{path} cannot be written ({error}). Nothing was overwritten; choose another --out."
        ) from error
