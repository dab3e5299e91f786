"""``hero-export push`` and ``pull``: bundles to and from the Hugging Face hub, through ``huggingface_hub``."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hero_export.bundles.destination import check_destination, staged
from hero_export.bundles.model_card import CARD_FILE, MARK, model_card
from hero_sdk.bundle_files import MANIFEST_FILE, MAX_MANIFEST_BYTES, SIGNATURE_FILE
from hero_sdk.errors import HubError
from hero_sdk.hub import (
    LIBRARY,
    HubListing,
    HubReference,
    Stage,
    fetch_bundle,
    fetch_manifest,
    fetch_text,
    hub_errors,
    hub_library,
    list_repository,
)
from hero_sdk.manifest import Manifest, read_bundle
from hero_sdk.signature import PublicKeys

MAX_CARD_BYTES = 1 << 20


@dataclass(frozen=True)
class Shipment:
    """What goes to the hub.

    Attributes:
        reference: where to.
        manifest: of the bundle.
        files: bytes of each, by path.
        card: the text of the model card; None when the bundle lists a ``README.md`` of its own, which then goes as it is.
    """

    reference: HubReference
    manifest: Manifest
    files: dict[str, int]
    card: str | None


@dataclass(frozen=True)
class Pushed:
    """A push that succeeded.

    Attributes:
        reference: where to.
        commit: its sha.
        url: of the commit.
        files: bytes of each file of the bundle, by path.
        deleted: files of the bundle that was there before.
        card: whether the model card was written; one that a person changed stays.
    """

    reference: HubReference
    commit: str
    url: str
    files: dict[str, int]
    deleted: tuple[str, ...]
    card: bool


def prepare_push(bundle: Path, reference: HubReference, *, require_signature: PublicKeys | None = None) -> Shipment:
    """Check a bundle and say what a push would send. Nothing is sent.

    Args:
        bundle: the folder.
        reference: where it is to go; the revision is a branch.
        require_signature: public keys of which one must have signed the bundle; None asks for no signature.

    Raises:
        BundleError: the bundle is incomplete or altered.
        ExportError: it was never verified.
        SignatureError: none of the required keys signed it.
        MissingPackageError: huggingface_hub is not installed.
    """
    manifest = read_bundle(bundle, require_signature=require_signature)
    names = [MANIFEST_FILE, *manifest.files]
    if (bundle / SIGNATURE_FILE).exists():
        names.insert(1, SIGNATURE_FILE)
    card = model_card(bundle, manifest, reference)
    sizes = {name: (bundle / name).stat().st_size for name in names}
    return Shipment(reference, manifest, sizes, None if CARD_FILE in manifest.files else card)


def push_bundle(
    bundle: Path,
    reference: HubReference,
    *,
    private: bool = False,
    message: str | None = None,
    require_signature: PublicKeys | None = None,
    on_stage: Stage | None = None,
) -> Pushed:
    """Send a bundle to the hub, with a model card, in one commit.

    Files of a bundle that is there already and that the new one has not are deleted in that commit; other files of the repository
    stay. A repository or branch that is missing is made.

    Args:
        bundle: the folder; it must be whole and verified.
        reference: where it goes; the revision is a branch.
        private: make a new repository private; one that is there stays as it is.
        message: of the commit; None names the bundle's fingerprint.
        require_signature: public keys of which one must have signed the bundle; None asks for no signature.
        on_stage: told about each stage as it begins.

    Raises:
        BundleError, ExportError, SignatureError, MissingPackageError: as ``prepare_push``; nothing was sent.
        HubError: the hub cannot be reached, refuses, or does not hold what was sent.
    """
    begin: Stage = on_stage or (lambda stage: None)
    begin("Checking the bundle")
    shipment = prepare_push(bundle, reference, require_signature=require_signature)
    hub: Any = hub_library()
    api = hub.HfApi(library_name=LIBRARY)
    begin(f"Looking at {reference}")
    with hub_errors(reference):
        api.create_repo(reference.repository, private=private or None, exist_ok=True)
        if reference.revision is not None:
            api.create_branch(reference.repository, branch=reference.revision, exist_ok=True)
    before = list_repository(reference)
    card = shipment.card if _may_write_card(reference, before) else None
    operations: list[Any] = [hub.CommitOperationAdd(name, bundle / name) for name in shipment.files]
    if card is not None:
        operations.append(hub.CommitOperationAdd(CARD_FILE, card.encode("utf-8")))
    deleted = _left_over(reference, before, shipment)
    operations += [hub.CommitOperationDelete(name, is_folder=False) for name in deleted]
    begin(f"Sending {len(shipment.files)} files, {sum(shipment.files.values()) / 1e6:.1f} MB")
    with hub_errors(reference):
        commit = api.create_commit(
            reference.repository,
            operations,
            commit_message=message or f"Bundle {shipment.manifest.fingerprint[:12]}",
            revision=reference.revision,
            parent_commit=before.commit,
        )
    begin("Looking at what arrived")
    _check_arrived(HubReference(reference.repository, commit.oid), shipment)
    return Pushed(reference, commit.oid, commit.commit_url, shipment.files, tuple(deleted), card is not None)


def prepare_pull(
    reference: HubReference, out: Path, *, force: bool = False, require_signature: PublicKeys | None = None
) -> dict[str, int]:
    """Bytes of every file that a pull would write. Only the manifest is fetched, and nothing is written at ``out``.

    Args and errors are those of ``pull_bundle``.
    """
    check_destination(out, force=force)
    listing = list_repository(reference)
    with tempfile.TemporaryDirectory() as folder:
        manifest = fetch_manifest(reference, listing, Path(folder), require_signature=require_signature)
    names = [MANIFEST_FILE, *({SIGNATURE_FILE} & listing.sizes.keys()), *manifest.files]
    return {name: listing.sizes[name] for name in names}


def pull_bundle(
    reference: HubReference,
    out: Path,
    *,
    force: bool = False,
    require_signature: PublicKeys | None = None,
    on_stage: Stage | None = None,
) -> tuple[HubListing, Manifest]:
    """Fetch a bundle from the hub; it appears at its place when every file has been checked, and not before.

    Args:
        reference: where it is.
        out: the folder, see ``destination.staged``.
        force: replace a bundle that is there.
        require_signature: public keys of which one must have signed the bundle, looked at before its files are fetched.
        on_stage: told about each stage as it begins.

    Raises:
        ExportError: ``out`` may not be replaced or cannot be written.
        HubError: no bundle there, or a hub that fails.
        BundleError: a bundle that is incomplete or altered.
        SignatureError: none of the required keys signed it.
        MissingPackageError: huggingface_hub is not installed.
    """
    with staged(out, force=force) as folder:
        listing = list_repository(reference)
        manifest = fetch_bundle(reference, listing, folder, require_signature=require_signature, on_stage=on_stage)
    return listing, manifest


def _may_write_card(reference: HubReference, before: HubListing) -> bool:
    """Whether the repository has no card, or one that a push wrote."""
    if CARD_FILE not in before.sizes:
        return True
    return MARK in fetch_text(reference, before, CARD_FILE, MAX_CARD_BYTES)


def _left_over(reference: HubReference, before: HubListing, shipment: Shipment) -> list[str]:
    """The files of the bundle that is there, of whatever format version, which the new one has not."""
    if MANIFEST_FILE not in before.sizes:
        return []
    try:
        content = json.loads(fetch_text(reference, before, MANIFEST_FILE, MAX_MANIFEST_BYTES))
    except (ValueError, RecursionError):
        content = None  # no bundle's manifest: nothing of it is known to be left over
    files = content.get("files") if isinstance(content, dict) else None
    earlier = {SIGNATURE_FILE, *(files if isinstance(files, dict) else ())}
    return sorted((earlier & before.sizes.keys()) - shipment.files.keys() - {CARD_FILE})


def _check_arrived(reference: HubReference, shipment: Shipment) -> None:
    """A rule of the repository may have left a file out without an error."""
    after = list_repository(reference)
    wrong = [name for name, size in shipment.files.items() if after.sizes.get(name) != size]
    if wrong:
        raise HubError(
            f"{reference} was sent and the hub does not hold {wrong[:5]} as they are ({len(wrong)} in all); expected every file. "
            "Remove the repository's .gitignore, or push to another one."
        )
