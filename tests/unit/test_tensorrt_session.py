"""Plans on a GPU: against stand-ins for TensorRT and CUDA that keep to their rules, and, for real, the machine without a GPU."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest

from hero_sdk.engines.session import GraphSession, OpenTensor, open_graph
from hero_sdk.engines.tensorrt import HOST_CODE_VARIABLE
from hero_sdk.errors import BundleError, EngineError, MissingPackageError

SUCCESS, FULL = 0, 2
MOST = 4
"""The largest batch of the plan."""


class FakeCuda:
    """CUDA's runtime with the memory of this process; everything waits in a stream until it is synchronised."""

    cudaError_t = SimpleNamespace(cudaSuccess=SUCCESS)
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice="up", cudaMemcpyDeviceToHost="down")
    cudaDeviceAttr = SimpleNamespace(cudaDevAttrComputeCapabilityMajor=8, cudaDevAttrComputeCapabilityMinor=6)

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.streams: dict[int, list[Any]] = {}
        self.room = 10_000

    def cudaGetDeviceCount(self) -> tuple[int, int]:
        return SUCCESS, 1

    def cudaGetDevice(self) -> tuple[int, int]:
        return SUCCESS, 0

    def cudaDeviceGetAttribute(self, attribute: int, device: int) -> tuple[int, int]:
        return SUCCESS, attribute

    def cudaGetErrorString(self, code: int) -> tuple[int, bytes]:
        return SUCCESS, {FULL: b"out of memory"}[code]

    def cudaStreamCreate(self) -> tuple[int, int]:
        self.streams[7] = []
        return SUCCESS, 7

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:
        del self.streams[stream]
        return (SUCCESS,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:
        for work in self.streams[stream]:
            work()
        self.streams[stream].clear()
        return (SUCCESS,)

    def cudaMalloc(self, size: int) -> tuple[int, int | None]:
        if size > self.room:
            return FULL, None
        self.room -= size
        buffer = ctypes.create_string_buffer(size)
        self.memory[ctypes.addressof(buffer)] = buffer
        return SUCCESS, ctypes.addressof(buffer)

    def cudaFree(self, address: int) -> tuple[int]:
        del self.memory[address]
        return (SUCCESS,)

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: str, stream: int) -> tuple[int]:
        assert size <= len(self.memory[target if kind == "up" else source])
        self.streams[stream].append(lambda: ctypes.memmove(target, source, size))
        return (SUCCESS,)


class FakeContext:
    """A plan of two inputs, ``clips`` (batch, 3) and ``mask`` (batch,): doubled clips where the mask is, and their sums."""

    shapes: ClassVar = {"clips": (-1, 3), "mask": (-1,), "doubled": (-1, 3), "sum": (-1,)}
    dtypes: ClassVar = {"clips": "float32", "mask": "bool", "doubled": "float32", "sum": "float32"}

    def __init__(self, cuda: FakeCuda, log: Any) -> None:
        self.cuda, self.log = cuda, log
        self.addresses: dict[str, int] = {}
        self.batches: dict[str, int] = {}

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        if not 1 <= shape[0] <= MOST:
            self.log.log(Severity.ERROR, f"shape of {name}\n  is out of the profile's range")
            return False
        self.batches[name] = shape[0]
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self.batches["clips"], *self.shapes[name][1:])

    def execute_async_v3(self, stream: int) -> bool:
        batch = self.batches["clips"]
        arrays = {name: self.array(name, batch) for name in self.shapes}

        def compute() -> None:
            arrays["doubled"][:] = 2 * arrays["clips"] * arrays["mask"][:, None]
            arrays["sum"][:] = arrays["doubled"].sum(axis=1)

        self.cuda.streams[stream].append(compute)
        return self.batches["mask"] == batch

    def array(self, name: str, batch: int) -> np.ndarray:
        shape = (batch, *self.shapes[name][1:])
        dtype = np.dtype(self.dtypes[name])
        memory = self.cuda.memory[self.addresses[name]]
        return np.frombuffer(memory, dtype, count=int(np.prod(shape))).reshape(shape)


class Severity:
    """Severities of TensorRT, smaller for worse."""

    class _Level(int):
        name = ""

    ERROR, WARNING, INFO = _Level(1), _Level(2), _Level(3)
    ERROR.name, WARNING.name, INFO.name = "ERROR", "WARNING", "INFO"


class FakeLogger:
    Severity = Severity


class FakeEngine:
    num_io_tensors = 4

    def __init__(self, context: FakeContext | None) -> None:
        self.context = context

    def create_execution_context(self) -> FakeContext | None:
        return self.context

    def get_tensor_name(self, number: int) -> str:
        return list(FakeContext.shapes)[number]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return FakeContext.shapes[name]

    def get_tensor_dtype(self, name: str) -> str:
        return FakeContext.dtypes[name]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name in ("clips", "mask") else "out"

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [(batch, *FakeContext.shapes[name][1:]) for batch in (1, 2, MOST)]


class FakeRuntime:
    """Loads the plan whose bytes are "plan"; one that carries code only where that is allowed."""

    def __init__(self, log: Any) -> None:
        self.log = log
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, plan: bytes) -> FakeEngine | None:
        if plan == b"plan" or (plan == b"plan with code" and self.engine_host_code_allowed):
            return FakeEngine(FakeContext(sys.modules["cuda.bindings.runtime"], self.log))  # type: ignore[arg-type]
        if plan == b"large":
            self.log.log(Severity.ERROR, "no memory for the context")
            return FakeEngine(None)
        self.log.log(Severity.INFO, "reading")
        self.log.log(Severity.ERROR, "the version tag does not match")
        return None


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    module = SimpleNamespace(
        __name__="tensorrt_rtx",
        __version__="1.7",
        ILogger=FakeLogger,
        Runtime=FakeRuntime,
        TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"),
        nptype=np.dtype,
    )
    fake = FakeCuda()
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", module)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", fake)  # type: ignore[arg-type]
    return fake


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    (tmp_path / "query.plan").write_bytes(b"plan")
    return tmp_path / "query.plan"


def open_plan(path: Path) -> GraphSession:
    return open_graph(path, "tensorrt_rtx", "fp16")


def inputs(batch: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(batch)
    return {"clips": rng.standard_normal((batch, 3), dtype=np.float32), "mask": rng.random(batch) < 0.5}


def test_a_plan_gives_what_it_computes_for_every_batch(cuda: FakeCuda, plan: Path) -> None:
    session = open_plan(plan)
    assert session.inputs == {"clips": OpenTensor("float32", (None, 3)), "mask": OpenTensor("bool", (None,))}
    assert session.outputs == {"doubled": OpenTensor("float32", (None, 3)), "sum": OpenTensor("float32", (None,))}
    given = [inputs(batch) for batch in (3, MOST, 1, 2)]
    found = [session.run(["sum", "doubled"], one) for one in given]
    for one, (total, doubled) in zip(given, found, strict=True):  # no call wrote into what an earlier one returned
        expected = 2 * one["clips"] * one["mask"][:, None]
        np.testing.assert_array_equal(doubled, expected)
        np.testing.assert_array_equal(total, expected.sum(axis=1))
    assert len(cuda.memory) == 4  # one buffer for each tensor, however many calls


def test_inputs_need_not_lie_in_order(cuda: FakeCuda, plan: Path) -> None:
    one = inputs(MOST)
    turned = {"clips": np.asfortranarray(one["clips"]), "mask": one["mask"]}
    session = open_plan(plan)
    np.testing.assert_array_equal(session.run(["sum"], turned)[0], session.run(["sum"], one)[0])


def test_the_memory_of_the_gpu_is_given_back(cuda: FakeCuda, plan: Path) -> None:
    session = open_plan(plan)
    assert cuda.memory
    del session
    gc.collect()
    assert not cuda.memory
    assert not cuda.streams


def test_a_batch_beyond_the_profile_is_refused(cuda: FakeCuda, plan: Path) -> None:
    with pytest.raises(
        EngineError, match=r"'clips' of shape \(5, 3\) \(shape of clips is out of the profile's range\).*at most 4"
    ):
        open_plan(plan).run(["sum"], inputs(MOST + 1))


def test_a_run_that_fails_is_an_error(cuda: FakeCuda, plan: Path) -> None:
    with pytest.raises(EngineError, match="failed on the GPU"):
        open_plan(plan).run(["sum"], {"clips": inputs(2)["clips"], "mask": inputs(3)["mask"]})


def test_a_plan_of_another_version_is_refused_with_what_tensorrt_says(cuda: FakeCuda, plan: Path) -> None:
    plan.write_bytes(b"of another version")
    with pytest.raises(
        EngineError, match=r"tensorrt_rtx 1\.7 on a GPU of compute capability sm86 \(the version tag does not match\)"
    ):
        open_plan(plan)


def test_a_plan_with_code_needs_to_be_allowed(cuda: FakeCuda, plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan.write_bytes(b"plan with code")
    monkeypatch.delenv(HOST_CODE_VARIABLE, raising=False)
    with pytest.raises(EngineError, match=f"{HOST_CODE_VARIABLE}=allow"):
        open_plan(plan)
    monkeypatch.setenv(HOST_CODE_VARIABLE, "allow")
    assert open_plan(plan).run(["sum"], inputs(1))[0].shape == (1,)


def test_too_little_memory_is_an_error_and_keeps_none(cuda: FakeCuda, plan: Path) -> None:
    cuda.room = 60  # for the first two buffers
    with pytest.raises(EngineError, match=r"cudaMalloc failed on the GPU \(out of memory\)"):
        open_plan(plan)
    gc.collect()
    assert not cuda.memory
    plan.write_bytes(b"large")
    with pytest.raises(EngineError, match=r"cannot be prepared to run .*no memory for the context"):
        open_plan(plan)


def test_a_plan_that_is_not_there_is_refused(cuda: FakeCuda, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"none\.plan cannot be read"):
        open_plan(tmp_path / "none.plan")


def test_without_a_gpu_the_message_says_what_to_do(plan: Path) -> None:
    with pytest.raises(EngineError) as caught:
        open_plan(plan)
    assert all(part in str(caught.value) for part in ("finds no GPU", "nvidia-smi", "another variant"))


def test_without_the_module_or_the_bindings_the_message_names_the_extra(
    cuda: FakeCuda, plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MissingPackageError, match=r"hero-video-sdk\[tensorrt\]"):
        open_graph(plan, "tensorrt", "fp16")
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)  # type: ignore[arg-type]
    with pytest.raises(
        MissingPackageError, match=r"'cuda' is needed to use an NVIDIA GPU.*hero-video-sdk\[tensorrt-rtx\]"
    ):
        open_plan(plan)
