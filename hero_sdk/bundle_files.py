"""Reading the files of a bundle that may come from anyone: no links, no devices, no path out of it, no size beyond what is stated.

A bundle is untrusted until its files have been checked, so each is looked at before it is opened, opened without following a
link, and read to the size that the manifest states and no further. What this cannot see is somebody who changes the folder
after it was checked: keep a bundle where only those may write whom you trust.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from hero_sdk.errors import BundleError

MANIFEST_FILE = "manifest.json"
SIGNATURE_FILE = "manifest.sig"

FILE_NAME_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*$"
"""Names that mean the same on every system, in a shell and as a pattern: no ``..``, no absolute path, no hidden file, no drive."""

MAX_NAME_LENGTH = 200
MAX_FILES = 1000
MAX_MANIFEST_BYTES = 4 << 20

MAX_BYTES = {
    ".onnx": 2 << 30,  # a protobuf message cannot be larger; weights beyond it lie in a file of their own
    **dict.fromkeys((".json", ".xml", ".md", ".html", ".txt", ".sh"), 128 << 20),  # read into memory as a whole
}
"""Largest file, in bytes, by suffix."""

MAX_OTHER_BYTES = 64 << 30
"""Largest file of any other kind: weights, engines."""

_BLOCK = 1 << 20


def check_names(files: Mapping[str, int], origin: str) -> None:
    """Refuse a list of files that a bundle cannot have.

    Args:
        files: the stated size in bytes of each, by name relative to the bundle.
        origin: what lists them, for messages.

    Raises:
        BundleError: a name that is no plain path inside the bundle, two names for one file, or sizes beyond all bounds.
    """
    if len(files) > MAX_FILES:
        raise BundleError(
            f"{origin} lists {len(files)} files; a bundle has at most {MAX_FILES}. Do not use this bundle."
        )
    seen: dict[str, str] = {}
    for name, size in files.items():
        if not re.fullmatch(FILE_NAME_PATTERN, name) or len(name) > MAX_NAME_LENGTH:
            raise BundleError(
                f"{origin} names {name[:MAX_NAME_LENGTH]!r}, which is no plain path inside the bundle; expected names of letters, "
                f"digits and _.+-, joined by /, at most {MAX_NAME_LENGTH} long. Do not use this bundle."
            )
        if name in (MANIFEST_FILE, SIGNATURE_FILE):
            raise BundleError(f"{origin} lists {name}, which cannot hold its own sha256. Export the bundle again.")
        # Where a file system ignores case, the second would be the first.
        if (other := seen.setdefault(name.lower(), name)) != name:
            raise BundleError(
                f"{origin} lists {other} and {name}, which are one file on many systems. Export the bundle again."
            )
        if size > (limit := MAX_BYTES.get(Path(name).suffix, MAX_OTHER_BYTES)):
            raise BundleError(
                f"{origin} states {size} bytes for {name}; expected at most {limit} for such a file. Do not use this bundle."
            )


def open_file(bundle: Path, name: str) -> BinaryIO:
    """Open a regular file of a bundle, without following links.

    Args:
        bundle: the folder, which may itself be a link.
        name: relative to it, from a list that ``check_names`` has passed.

    Raises:
        BundleError: no such file, a link in its path, a device, a folder or a pipe, or a file that may not be read.
    """
    path = bundle
    try:
        for part in name.split("/"):
            path = path / part
            if stat.S_ISLNK(path.lstat().st_mode):
                raise BundleError(
                    f"{path} is a symbolic link, which may lead outside the bundle; expected a file. "
                    "Copy the bundle with its files (cp -rL), or export it again."
                )
        # Without O_NONBLOCK the opening of a pipe would wait for somebody to write into it.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        if not stat.S_ISREG(path.lstat().st_mode):
            raise BundleError(f"{path} is a folder, a device or a pipe; expected a file. Do not use this bundle.")
        file = os.fdopen(os.open(path, flags), "rb")
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise BundleError(
                f"{bundle} has no {name}, which its manifest lists. Copy the whole folder, or export it again."
            ) from error
        raise BundleError(f"{path} cannot be read ({error}). See that this user may read the bundle.") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise BundleError(f"{path} became another kind of file while it was opened. Do not use this bundle.")
    return file


def read_file(bundle: Path, name: str, limit: int) -> bytes:
    """The content of a file, whose size is looked at before.

    Args:
        bundle: the folder.
        name: of the file, relative to it.
        limit: the most bytes to read.

    Raises:
        BundleError: as ``open_file``, or a larger file.
    """
    with open_file(bundle, name) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(limit + 1) if size <= limit else b""
        if size > limit or len(data) > limit:
            raise BundleError(
                f"{bundle / name} has {max(size, len(data))} bytes; expected at most {limit}. Do not use this bundle."
            )
        return data


def check_file(bundle: Path, name: str, size: int, sha256: str) -> None:
    """Compare a file with its stated size, and, when that is right, with its sha256.

    Raises:
        BundleError: as ``open_file``, or another size or content.
    """
    with open_file(bundle, name) as file:
        found = os.fstat(file.fileno()).st_size
        if found != size:
            raise BundleError(_differs(bundle / name, f"{found} bytes", f"{size}"))
        digest, rest = hashlib.sha256(), size
        while block := file.read(min(_BLOCK, rest)):
            digest.update(block)
            rest -= len(block)
    if rest or digest.hexdigest() != sha256:
        raise BundleError(_differs(bundle / name, f"sha256 {digest.hexdigest()[:16]}...", f"{sha256[:16]}..."))


def _differs(path: Path, found: str, expected: str) -> str:
    return (
        f"{path} is not the file that was exported: found {found}, the manifest says {expected}. "
        "Copy the bundle again, or export it again."
    )
