"""Every error of the SDK.

    HeroError
    ├── InputError             what the caller passed in
    │   ├── SubtitleError      a subtitle file that cannot be read
    │   └── MediaError         a video that cannot be decoded or has no frames
    ├── BundleError            a bundle that is incomplete, altered or of another format
    │   ├── FingerprintError   two parts that were not made for one another
    │   └── SignatureError     a bundle that the required key did not sign
    ├── CorpusError            a corpus folder that cannot be opened, read or written
    ├── EngineError            a graph that failed to run, in process or on a server
    │   └── ServerError        a server that cannot be reached, is not ready or refuses
    ├── HubError               a hub that cannot be reached, refuses or has no such bundle
    └── MissingPackageError    an optional package that is not installed

A message says what was found, what was expected and what to do.
"""

from __future__ import annotations

import importlib
from types import ModuleType


class HeroError(Exception):
    """Base class of every error that this SDK raises on purpose."""


class InputError(HeroError, ValueError):
    """The caller passed something that cannot be used."""


class SubtitleError(InputError):
    """A subtitle file is missing, empty, not text or not in a known format."""


class MediaError(InputError):
    """A video is missing, cannot be decoded or has no frames."""


class BundleError(HeroError):
    """A bundle is incomplete, altered or of a format that this version does not read."""


class FingerprintError(BundleError):
    """Two parts were not made for one another, such as a corpus and the bundle that searches it."""


class SignatureError(BundleError):
    """A bundle is unsigned, was signed with another key, or was altered after it was signed."""


class CorpusError(HeroError):
    """A corpus folder cannot be opened, read or written."""


class EngineError(HeroError):
    """A graph failed to run."""


class ServerError(EngineError):
    """The server cannot be reached, is not ready or refused a request."""


class HubError(HeroError):
    """The hub cannot be reached, refuses, or has no such repository, revision or bundle."""


class MissingPackageError(HeroError, ImportError):
    """An optional package is not installed."""


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional package, or say which extra of this distribution installs it.

    Args:
        module: dotted name of the module to import.
        extra: the extra of ``hero-video-sdk`` that installs it.
        purpose: what it is needed for, as the object of "needed to ...".

    Raises:
        MissingPackageError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or module.split(".")[0] != error.name.split(".")[0]:
            raise
        raise MissingPackageError(
            f"The package '{module.split('.')[0]}' is needed to {purpose}, and it is not installed. "
            f'Install it with: pip install "hero-video-sdk[{extra}]"'
        ) from error
