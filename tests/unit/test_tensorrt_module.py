"""Which TensorRT is taken, and what its modules and releases are asked for, with stand-ins for those that are not here."""

from __future__ import annotations

import dataclasses
import enum
import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hero_export.tensorrt import module as module_of_tensorrt
from hero_export.tensorrt.module import PORTABLE, PlanOptions, TensorRT, find_tensorrt
from hero_export.tensorrt.plans import PlanRequest, chosen_targets
from hero_sdk.engines.tensorrt import EXTRAS
from hero_sdk.errors import EngineError, InputError, MissingPackageError
from hero_sdk.manifest import read_bundle
from tests.tiny_bundle import MAX_BATCH, write_tiny_bundle

OPTIONS = PlanOptions("sm86", max_batch=8, opt_batch=4)


class Config:
    """Remembers what a builder was told."""

    def __init__(self) -> None:
        self.flags: list[str] = []
        self.capabilities: dict[int, str] = {}

    def set_compute_capability(self, capability: Any, number: int) -> None:
        self.capabilities[number] = capability.name

    def set_flag(self, flag: Any) -> None:
        self.flags.append(flag.name)


class Builder:
    """Makes empty networks, which are the flags that they were asked for with."""

    def create_network(self, flags: int) -> int:
        return flags

    def create_builder_config(self) -> Config:
        return Config()


def make_tensorrt(version: str, creation: list[str], *, ahead_of_time: bool = False) -> TensorRT:
    """A stand-in; ``creation`` are the flags of its networks, from bit 0 on."""

    def names(kind: str, *members: str) -> Any:
        return enum.IntEnum(kind, [(member, number) for number, member in enumerate(members)])

    api = SimpleNamespace(
        __version__=version,
        Builder=Builder,
        NetworkDefinitionCreationFlag=names("NetworkDefinitionCreationFlag", *creation),
        ProfilingVerbosity=names("ProfilingVerbosity", "DETAILED"),
        HardwareCompatibilityLevel=names("HardwareCompatibilityLevel", "NONE", "AMPERE_PLUS"),
        BuilderFlag=names("BuilderFlag", "VERSION_COMPATIBLE"),
    )
    if ahead_of_time:
        api.ComputeCapability = names("ComputeCapability", "NONE", "CURRENT", "SM80", "SM86")
    return TensorRT("tensorrt_rtx" if ahead_of_time else "tensorrt", api)  # type: ignore[arg-type]


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU of compute capability 8.6."""
    monkeypatch.setattr(module_of_tensorrt, "Cuda", lambda extra: SimpleNamespace(compute_capability=lambda: "sm86"))


def test_the_installed_module_is_taken() -> None:
    found = find_tensorrt()
    assert found == find_tensorrt("tensorrt_rtx")
    assert found.builder == f"tensorrt_rtx {found.version}"
    assert found.ahead_of_time
    assert {"sm75", "sm80", "sm86", "sm89", "sm120"} <= set(found.targets())


def test_without_any_the_message_names_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError) as caught:
        find_tensorrt()
    assert all(f'"hero-video-sdk[{extra}]"' in str(caught.value) for extra in EXTRAS.values())


def test_the_other_module_is_missed_by_name() -> None:
    with pytest.raises(MissingPackageError, match=r'pip install "hero-video-sdk\[tensorrt\]"'):
        find_tensorrt("tensorrt")
    with pytest.raises(InputError, match="no TensorRT module 'tensorflow'; expected one of tensorrt_rtx, tensorrt"):
        find_tensorrt("tensorflow")


def test_a_package_without_its_bindings_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="11.4"))  # type: ignore[arg-type]
    with pytest.raises(EngineError, match=r"has no Builder.*--force-reinstall"):
        find_tensorrt("tensorrt")


@pytest.mark.parametrize(
    ("version", "creation", "flags"),
    [("10.13.0", ["EXPLICIT_BATCH", "STRONGLY_TYPED"], 2), ("11.4.0", ["STRONGLY_TYPED"], 1), ("12.0", ["OTHER"], 0)],
)
def test_networks_are_strongly_typed_in_every_release(version: str, creation: list[str], flags: int) -> None:
    assert make_tensorrt(version, creation).create_network(Builder()) == flags


def test_a_named_target_is_one_compute_capability_and_the_portable_one_none() -> None:
    tensorrt = make_tensorrt("1.7", ["STRONGLY_TYPED"], ahead_of_time=True)
    config = tensorrt.create_config(Builder(), OPTIONS)
    assert (config.num_compute_capabilities, config.capabilities) == (1, {0: "SM86"})
    portable = tensorrt.create_config(Builder(), dataclasses.replace(OPTIONS, target=PORTABLE))
    assert portable.capabilities == {}
    assert not hasattr(portable, "hardware_compatibility_level")


def test_a_module_that_needs_a_gpu_is_told_of_compatibility(with_gpu: None) -> None:
    tensorrt = make_tensorrt("11.4", ["STRONGLY_TYPED"])
    assert tensorrt.targets() == ("sm86",)
    plain = tensorrt.create_config(Builder(), OPTIONS)
    assert not hasattr(plain, "hardware_compatibility_level")
    assert (plain.capabilities, plain.flags) == ({}, [])
    options = dataclasses.replace(OPTIONS, target=PORTABLE, version_compatible=True)
    tensorrt.check(options, Path("times"))
    config = tensorrt.create_config(Builder(), options)
    assert config.hardware_compatibility_level.name == "AMPERE_PLUS"
    assert config.flags == ["VERSION_COMPATIBLE"]
    with pytest.raises(InputError, match="cannot build for 'sm80'; expected sm86, the GPU of this machine"):
        tensorrt.check(dataclasses.replace(OPTIONS, target="sm80"), None)


def test_a_module_that_needs_a_gpu_says_so_without_one() -> None:
    with pytest.raises(EngineError, match=r"CUDA finds no GPU.*nvidia-smi"):
        make_tensorrt("11.4", ["STRONGLY_TYPED"]).targets()


@pytest.mark.parametrize(
    ("changes", "timing_cache", "message"),
    [
        ({"target": "sm77"}, None, "cannot build for 'sm77'; expected .*sm86.*Change --target"),
        ({"opt_batch": 9}, None, "a batch of 9; expected 1 to 8.*--opt-batch"),
        ({"opt_batch": 0}, None, "a batch of 0; expected 1 to 8"),
        ({"version_compatible": True}, None, "without the lean runtime.*--module tensorrt"),
        ({}, Path("times"), "times no kernels.*Leave --timing-cache out"),
    ],
)
def test_what_a_module_cannot_do_is_refused(changes: dict[str, Any], timing_cache: Path | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_tensorrt().check(dataclasses.replace(OPTIONS, **changes), timing_cache)


def test_targets_are_those_that_were_named(tmp_path: Path, with_gpu: None) -> None:
    manifest = read_bundle(write_tiny_bundle(tmp_path / "bundle"))
    rtx, other = find_tensorrt(), make_tensorrt("11.4", ["STRONGLY_TYPED"])
    request = PlanRequest(targets=("sm86", "sm80", "sm86"), hardware_compatible=True, opt_batch=MAX_BATCH)
    assert chosen_targets(rtx, request, manifest) == ("sm86", "sm80", PORTABLE)
    assert chosen_targets(other, PlanRequest(), manifest) == ("sm86",)
    assert chosen_targets(other, PlanRequest(hardware_compatible=True), manifest) == (PORTABLE,)
    with pytest.raises(InputError, match="builds for GPUs that are named; expected at least one of sm75"):
        chosen_targets(rtx, PlanRequest(), manifest)
