"""Bundles on the Hugging Face hub: what ``hero_sdk.load("hub:owner/name")`` and ``hero-export pull`` fetch.

Only what the manifest lists is fetched, from one commit: first the manifest, whose size is looked at before, then the files, whose
sizes at the hub must be those of the manifest. Everything is checked like any bundle and moved into its place when it is
whole. ``huggingface_hub`` does the transfers; it reads HF_TOKEN, HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE from the environment.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from hero_sdk.bundle_files import MANIFEST_FILE, MAX_MANIFEST_BYTES, SIGNATURE_FILE, read_file
from hero_sdk.errors import BundleError, HubError, InputError, require
from hero_sdk.manifest import Manifest, read_bundle
from hero_sdk.signature import MAX_SIGNATURE_BYTES, PublicKeys, check_signature

logger = logging.getLogger(__name__)

HUB_PREFIX = "hub:"
"""In front of a repository's id. A bare ``owner/name`` is a folder: it must not turn into a download when the folder is missing."""

EXTRA, PURPOSE = "hub", "fetch bundles from the Hugging Face hub and to send them there"
LIBRARY = "hero-video-sdk"
MAIN_REVISION = "main"

Stage = Callable[[str], None]
"""Told what begins, in words for a person."""

TIMEOUT = 30.0
"""Seconds to wait for an answer about a repository; transfers have the library's own limits."""

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
_COMMIT = r"[0-9a-f]{40}"
_ID = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
_REVISION = r"[A-Za-z0-9_][\w./+-]*"


@dataclass(frozen=True)
class HubReference:
    """A bundle on the hub: ``revision`` is a branch, a tag or a commit, None for the main branch."""

    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repository + (f"@{self.revision}" if self.revision else "")

    @classmethod
    def parse(cls, text: str, revision: str | None = None) -> HubReference:
        """Read ``owner/name`` or ``owner/name@revision``, with or without the prefix ``hub:``.

        Args:
            text: to read.
            revision: another way to say it; not both.

        Raises:
            InputError: anything else.
        """
        if revision is not None:
            text = f"{text}@{revision}"
        match = re.fullmatch(rf"(?:{HUB_PREFIX})?({_ID})(?:@({_REVISION}))?", text, re.ASCII)
        if match is None or ".." in text:
            raise InputError(f"{text!r} is no bundle on the hub; expected owner/name, or owner/name@revision.")
        return cls(match[1], match[2])


@dataclass(frozen=True)
class HubListing:
    """What a repository holds at one commit.

    Attributes:
        commit: its sha.
        sizes: bytes of every file, by path.
    """

    commit: str
    sizes: dict[str, int]


def local_bundle(bundle: str | os.PathLike[str], *, require_signature: PublicKeys | None = None) -> Path:
    """The folder of a bundle; one on the hub is fetched into the hub's cache, unless it is there.

    Args:
        bundle: a folder, or ``hub:owner/name`` with ``@revision`` behind it or not.
        require_signature: as in ``read_bundle``; a bundle without it is not fetched.

    Raises:
        HubError, BundleError, SignatureError, InputError, MissingPackageError: as ``fetch_bundle``. When the hub cannot be
            reached, the commit that was fetched last for this revision is taken, with a warning in the log.
    """
    text = os.fspath(bundle)
    if not text.startswith(HUB_PREFIX):
        return Path(bundle)
    reference = HubReference.parse(text)
    hub = hub_library()
    name = reference.repository.replace("/", "--")
    with hub_errors(reference):
        folder: Path = hub.cached_assets_path(LIBRARY, namespace="bundles", subfolder=name)
    revision = reference.revision or MAIN_REVISION
    if re.fullmatch(_COMMIT, revision) and (folder / revision).is_dir():
        return folder / revision  # a commit stays what it is
    # Which commit a branch or a tag was at when it was last looked up.
    known = folder / "revisions" / revision.replace("/", "--")
    try:
        listing = list_repository(reference)
    except HubError as error:
        # What the hub says is so: a repository that was removed or closed is not used on in silence.
        if _is_refusal(error.__cause__) or not known.is_file():
            raise
        commit = known.read_text(encoding="ascii").strip()
        logger.warning("Using the copy of %s that was fetched before (commit %s): %s", reference, commit, error)
        return folder / commit
    place = folder / listing.commit
    if not place.is_dir():
        _fetch_into_cache(reference, listing, place, require_signature)
    with hub_errors(reference):
        known.parent.mkdir(parents=True, exist_ok=True)
        known.write_text(listing.commit, encoding="ascii")
    return place


def _is_refusal(error: BaseException | None) -> bool:
    """Whether the hub answered, and the answer was no."""
    return getattr(getattr(error, "response", None), "status_code", None) in (401, 403, 404)


def _fetch_into_cache(
    reference: HubReference, listing: HubListing, place: Path, require_signature: PublicKeys | None
) -> None:
    with hub_errors(reference):
        temporary = Path(tempfile.mkdtemp(prefix=".partial-", dir=place.parent))
    try:
        fetch_bundle(reference, listing, temporary, require_signature=require_signature)
        with hub_errors(reference):
            try:
                temporary.rename(place)
            except OSError:
                if not place.is_dir():  # otherwise another process was faster
                    raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def list_repository(reference: HubReference) -> HubListing:
    """Which commit a revision is at, and which files it has.

    Raises:
        HubError: no such repository or revision, or a hub that cannot be reached or refuses.
        MissingPackageError: huggingface_hub is not installed.
    """
    hub = hub_library()
    with hub_errors(reference):
        info = hub.HfApi(library_name=LIBRARY).repo_info(
            reference.repository, revision=reference.revision, files_metadata=True, timeout=TIMEOUT
        )
    # A commit names the folder of a download; it comes from a server.
    if not re.fullmatch(_COMMIT, info.sha or ""):
        raise HubError(f"The hub says that {reference} is at the commit {info.sha!r}; expected 40 hexadecimal digits.")
    return HubListing(info.sha, {file.rfilename: file.size or 0 for file in info.siblings or ()})


def fetch_manifest(
    reference: HubReference, listing: HubListing, folder: Path, *, require_signature: PublicKeys | None = None
) -> Manifest:
    """Fetch the manifest of a bundle, and its signature when there is one, into a folder.

    Raises:
        HubError: no bundle there, or a hub that fails.
        BundleError: a manifest that cannot be read, or files at the hub that are missing or of another size than it says.
        SignatureError: none of the required keys signed it.
    """
    if MANIFEST_FILE not in listing.sizes:
        raise HubError(f"{reference} has no {MANIFEST_FILE}; expected a bundle that `hero-export push` sent there.")
    for name, limit in ((MANIFEST_FILE, MAX_MANIFEST_BYTES), (SIGNATURE_FILE, MAX_SIGNATURE_BYTES)):
        if (found := listing.sizes.get(name, 0)) > limit:
            raise BundleError(
                f"{name} of {reference} has {found} bytes; expected at most {limit}. Do not use this bundle."
            )
    _download(reference, listing, [MANIFEST_FILE, SIGNATURE_FILE], folder)
    data = read_file(folder, MANIFEST_FILE, MAX_MANIFEST_BYTES)
    if require_signature is not None:
        check_signature(folder, data, require_signature)
    manifest = Manifest.from_json(data.decode("utf-8", errors="replace"), f"{MANIFEST_FILE} of {reference}")
    for name, file in manifest.files.items():
        if listing.sizes.get(name) != file.bytes:
            there = f"{listing.sizes[name]} bytes" if name in listing.sizes else "nothing"
            raise BundleError(
                f"{reference} has {there} under {name}; its manifest says "
                f"{file.bytes} bytes. The bundle was sent in part or altered: send it again with `hero-export push`."
            )
    return manifest


def fetch_bundle(
    reference: HubReference,
    listing: HubListing,
    folder: Path,
    *,
    require_signature: PublicKeys | None = None,
    on_stage: Stage | None = None,
) -> Manifest:
    """Fetch a bundle into an empty folder and check it.

    Args:
        reference: where it is.
        listing: what is there, from ``list_repository``.
        folder: empty; after an error its content means nothing.
        require_signature: as in ``read_bundle``; looked at before the files are fetched.
        on_stage: told about each stage as it begins.

    Raises:
        HubError: no bundle there, or a hub that fails.
        BundleError: a bundle that is incomplete or altered.
        SignatureError: none of the required keys signed it.
    """
    begin: Stage = on_stage or (lambda stage: None)
    begin(f"Reading the manifest of {reference}")
    manifest = fetch_manifest(reference, listing, folder, require_signature=require_signature)
    total = sum(file.bytes for file in manifest.files.values())
    begin(f"Fetching {len(manifest.files)} files, {total / 1e6:.1f} MB")
    _download(reference, listing, list(manifest.files), folder)
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # huggingface_hub's notes about the download
    begin("Checking every file")
    return read_bundle(folder, require_signature=require_signature)


def fetch_text(reference: HubReference, listing: HubListing, name: str, limit: int) -> str:
    """The text of a single small file of a repository.

    Raises:
        HubError: it is larger than ``limit`` bytes, or the hub fails.
    """
    if listing.sizes[name] > limit:
        raise HubError(f"{name} of {reference} has {listing.sizes[name]} bytes; expected at most {limit}.")
    with tempfile.TemporaryDirectory() as folder:
        _download(reference, listing, [name], Path(folder))
        return read_file(Path(folder), name, limit).decode("utf-8", errors="replace")


def hub_library() -> ModuleType:
    """The package ``huggingface_hub``, or a MissingPackageError that says how to install it."""
    return require("huggingface_hub", EXTRA, PURPOSE)


@contextmanager
def hub_errors(reference: HubReference) -> Iterator[None]:
    """Turn what ``huggingface_hub`` raises into a HubError that says what to do."""
    errors: Any = require("huggingface_hub.errors", EXTRA, PURPOSE)
    try:
        yield
    except errors.RepositoryNotFoundError as error:
        raise HubError(
            f"The hub has no repository {reference.repository}, or keeps it private; expected one that this user may read. "
            "Check the name, and set HF_TOKEN or run `hf auth login`."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise HubError(
            f"{reference.repository} has no revision {reference.revision}; expected a branch, a tag or a commit of it."
        ) from error
    except errors.HfHubHTTPError as error:
        code = error.response.status_code if error.response is not None else None
        advice = "Set HF_TOKEN to a token with the right to do this." if code in (401, 403) else "Try again later."
        raise HubError(f"The hub refused the request for {reference} ({_short(error)}). {advice}") from error
    except errors.HFValidationError as error:
        raise InputError(f"{reference} is no repository's id ({_short(error)}); expected owner/name.") from error
    except Exception as error:  # the library's and its transports' exceptions share no base class but Exception
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            raise HubError(
                f"{reference} cannot be written to the disk ({_short(error)}). See that there is room, that the folder may be "
                "written to, and where HF_HOME points."
            ) from error
        # The error of whichever HTTP library this version uses is the base of the one for answers.
        unreachable = (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, errors.HfHubHTTPError.__bases__[0])
        if isinstance(error, (*unreachable, ConnectionError, TimeoutError)):
            raise HubError(
                f"The hub cannot be reached for {reference} ({_short(error)}); expected a connection. Check the network, "
                "HF_ENDPOINT and HF_HUB_OFFLINE, or use a bundle in a folder."
            ) from error
        raise HubError(
            f"The transfer of {reference} failed ({_short(error.__cause__ or error)}). Try again."
        ) from error


def _download(reference: HubReference, listing: HubListing, names: list[str], folder: Path) -> None:
    hub = hub_library()
    with hub_errors(reference):
        # The names are free of what a pattern could mean, see FILE_NAME_PATTERN.
        hub.snapshot_download(
            reference.repository,
            revision=listing.commit,
            allow_patterns=names,
            local_dir=folder,
            library_name=LIBRARY,
        )


def _short(error: BaseException) -> str:
    """The first line of a message, which the library may have spread over many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200].rstrip('.')}" if lines else type(error).__name__
