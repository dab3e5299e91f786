"""Importing the SDK imports no engine, whatever is installed, and takes no optional package."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import hero_sdk

HEAVY = (
    "torch",
    "onnxruntime",
    "openvino",
    "tensorrt",
    "tensorrt_rtx",
    "lancedb",
    "pyarrow",
    "av",
    "transformers",
    "onnx",
)
OTHERS = ("hero_train", "hero_export", "hero_bench")

MODULES = [
    "hero_sdk",
    *(
        module.name
        for module in pkgutil.walk_packages(hero_sdk.__path__, "hero_sdk.")
        if not module.name.endswith("__main__")
    ),
]

FORBID = """
import importlib.abc, sys
class Forbid(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Forbid())
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_hero_sdk_imports_nothing_but_the_standard_library() -> None:
    loaded = run("import sys, hero_sdk; print(*{name.split('.')[0] for name in sys.modules})").split()
    assert not set(loaded) & {*HEAVY, *OTHERS, "numpy", "tokenizers", "tritonclient", "grpc", "typer", "rich"}


def test_all_modules_import_without_any_optional_package() -> None:
    """In one process, for speed; a module that needs one of them at import time fails by name."""
    code = FORBID.format(names=(*HEAVY, *OTHERS)) + "\n".join(f"import {name}" for name in MODULES)
    run(code)


def test_importing_all_modules_loads_no_engine() -> None:
    code = "\n".join(f"import {name}" for name in MODULES)
    loaded = run(f"{code}\nimport sys; print(*sys.modules)").split()
    assert not {name.split(".")[0] for name in loaded} & {*HEAVY, *OTHERS}


def test_a_missing_package_is_named_with_its_extra() -> None:
    code = FORBID.format(names=("lancedb", "av", "onnxruntime")) + (
        "import hero_sdk\n"
        "from hero_sdk.corpus.table import VideoTable\n"
        "from hero_sdk.media import video_duration\n"
        "for call in (lambda: VideoTable.open('x'), lambda: video_duration('x')):\n"
        "    try: call()\n"
        "    except hero_sdk.MissingPackageError as error: print(error)\n"
    )
    corpus, video = run(code).splitlines()
    assert "hero-video-sdk[corpus]" in corpus
    assert "hero-video-sdk[video]" in video


@pytest.mark.parametrize("package", ["hero_sdk.corpus", "hero_sdk.hero", "hero_sdk.cli"])
def test_modules_of_this_part_are_covered(package: str) -> None:
    assert package in MODULES


@pytest.mark.parametrize("package", ["hero_train", "hero_export"])
def test_the_help_of_a_command_waits_for_no_engine(package: str) -> None:
    code = f"import sys, {package}.cli; print(*sys.modules)"
    assert not {name.split(".")[0] for name in run(code).split()} & {*HEAVY, "accelerate", "numpy"}


@pytest.mark.parametrize("package", ["hero_train", "hero_export"])
def test_every_public_name_is_there(package: str) -> None:
    code = f"import {package}; print(*(name for name in {package}.__all__ if getattr({package}, name) is None))"
    assert run(code).split() == []
