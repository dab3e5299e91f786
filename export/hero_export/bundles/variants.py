"""The one way in which a variant gets into a bundle: a copy is amended, checked as a whole, and takes the bundle's place."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hero_export.bundles.destination import check_destination, staged
from hero_sdk.bundle_files import MANIFEST_FILE, SIGNATURE_FILE
from hero_sdk.manifest import FileSpec, Manifest, read_bundle, sha256_of
from hero_sdk.signature import PublicKeys
from hero_sdk.variants import VARIANTS_FOLDER, Variant

REPORTS_FOLDER = "reports"


class Amendment:
    """A copy of a bundle that variants are added to.

    Its files are hard links to the bundle's where the file system has them: never write into one that is there, replace it.

    Attributes:
        folder: of the copy.
        manifest: as it will be, but for the files that are new.
        signed: whether the bundle had a signature. The amended one has none, for nobody signed what it holds now.
    """

    def __init__(self, folder: Path, manifest: Manifest, signed: bool) -> None:
        self.folder = folder
        self.manifest = manifest
        self.signed = signed
        self._order = {name: number for number, name in enumerate(manifest.variants)}

    def place(self, name: str) -> Path:
        """A new folder for the files of a variant; one that the bundle has under this name is replaced."""
        for folder in (self._files(name), self._reports(name)):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        kept = {key: variant for key, variant in self.manifest.variants.items() if key != name}
        self.manifest = dataclasses.replace(self.manifest, variants=kept)
        return self._files(name)

    def reports(self, name: str) -> Path:
        """The folder for what is told about a variant that has its place, such as ``reproduce.sh``."""
        return self._reports(name)

    def add(self, variant: Variant) -> None:
        """Enter a variant whose files lie in their place: where one of its name was, or at the end."""
        variants = {**self.manifest.variants, variant.name: variant}
        order = sorted(variants, key=lambda name: self._order.get(name, len(self._order)))
        self.manifest = dataclasses.replace(self.manifest, variants={name: variants[name] for name in order})

    def _files(self, name: str) -> Path:
        return self.folder / VARIANTS_FOLDER / name

    def _reports(self, name: str) -> Path:
        return self.folder / REPORTS_FOLDER / VARIANTS_FOLDER / name


@contextmanager
def amend(
    bundle: Path, out: Path | None = None, *, force: bool = False, require_signature: PublicKeys | None = None
) -> Iterator[Amendment]:
    """Add variants to a bundle: all that the block enters, or, when it ends with an error, none.

    Args:
        bundle: the folder.
        out: where the amended bundle goes; None replaces the bundle itself.
        force: replace another bundle that is at ``out``.
        require_signature: public keys of which one must have signed the bundle; None asks for no signature.

    Raises:
        BundleError: the bundle is incomplete or altered, or the amended one would not be one.
        SignatureError: none of the required keys signed it.
        ExportError: ``out`` is taken or cannot be written.
    """
    manifest = read_bundle(bundle, require_signature=require_signature)
    target = bundle if out is None else out
    in_place = target.absolute() == bundle.absolute()
    check_destination(target, force=force or in_place)
    with staged(target, force=force or in_place) as folder:
        for name in manifest.files:
            _link(bundle / name, folder / name)
        amendment = Amendment(folder, manifest, signed=(bundle / SIGNATURE_FILE).exists())
        yield amendment
        (folder / MANIFEST_FILE).write_text(_sealed(folder, amendment.manifest).to_json(), encoding="utf-8")
        read_bundle(folder)


def _link(source: Path, target: Path) -> None:
    """Copy a file without its bytes where that can be done."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def _sealed(folder: Path, manifest: Manifest) -> Manifest:
    """The manifest with the files that lie in the folder."""
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            # What amend linked was checked when the bundle was read; what may have been replaced is looked at again.
            known = None if name.split("/")[0] in (VARIANTS_FOLDER, REPORTS_FOLDER) else manifest.files.get(name)
            files[name] = known or FileSpec(sha256_of(path), path.stat().st_size)
    return dataclasses.replace(manifest, files=files)
