"""What ``import hero_sdk`` offers is what its ``__all__`` says, under one name."""

from __future__ import annotations

import pickle
import subprocess
import sys
import typing

import pytest

import hero_sdk
from hero_sdk import errors


def test_all_is_sorted_and_complete() -> None:
    assert hero_sdk.__all__ == sorted(hero_sdk.__all__)
    defined = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)}
    assert defined <= set(hero_sdk.__all__)
    lazy = {name for names in hero_sdk._LAZY.values() for name in names}
    assert set(hero_sdk.__all__) == defined | lazy | {"__version__"}


@pytest.mark.parametrize("name", hero_sdk.__all__)
def test_each_name_is_there(name: str) -> None:
    value = getattr(hero_sdk, name)
    assert name in dir(hero_sdk)
    if isinstance(value, type) and not name.endswith("Array"):
        assert value.__module__ == "hero_sdk"
        assert value.__doc__


@pytest.mark.parametrize(
    "name", ["AddResult", "EncodedVideo", "Moment", "Query", "Subtitle", "VideoFeatures", "VideoHit"]
)
def test_the_annotations_of_values_can_be_resolved(name: str) -> None:
    """Libraries that read annotations (pydantic, attrs, ...) look names up in the module that a class claims."""
    assert typing.get_type_hints(getattr(hero_sdk, name))


def test_values_can_be_pickled() -> None:
    moment = hero_sdk.Moment("a", 1.0, 2.5, 0.5, "hello")
    assert pickle.loads(pickle.dumps(moment)) == moment
    code = f"import pickle; print(pickle.loads({pickle.dumps(moment)!r}))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == repr(moment)


def test_a_traceback_names_the_public_class() -> None:
    code = "from hero_sdk.manifest import Manifest; Manifest.from_json('no')"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stderr
    assert "hero_sdk.BundleError: " in shown


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        hero_sdk.nothing  # noqa: B018


def test_errors_are_caught_as_their_builtin_kind() -> None:
    assert issubclass(hero_sdk.InputError, ValueError)
    assert issubclass(hero_sdk.MissingPackageError, ImportError)
    assert issubclass(hero_sdk.FingerprintError, hero_sdk.BundleError)
    assert issubclass(hero_sdk.ServerError, hero_sdk.EngineError)
