"""The file with the times of kernels: read, added to in one step, never lost; with a stand-in, for only a GPU can time one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from hero_export.errors import BuildError
from hero_export.tensorrt import build
from hero_export.tensorrt.build import build_plan
from hero_export.tensorrt.module import PlanOptions, find_tensorrt
from hero_sdk.manifest import read_bundle
from tests.tiny_bundle import write_tiny_bundle

OPTIONS = PlanOptions("sm86", max_batch=4, opt_batch=4)


class Times:
    """A timing cache; every build adds a kernel to it."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> bytes:
        return self.content + b"kernel;"


class Config:
    """A builder's, for one kind of GPU; it takes what it cannot read for empty, and warns, as TensorRT does."""

    def __init__(self, config: Any, log: Any, gpu: bytes) -> None:
        self._config, self._log, self._gpu = config, log, gpu

    def __getattr__(self, name: str) -> Any:
        return getattr(self._config, name)

    def create_timing_cache(self, content: bytes) -> Times:
        if content and not content.startswith(b"times of "):
            self._log.lines.append(("WARNING", "Failed to deserialize timing cache. Returning an empty timing cache."))
            return Times(b"")
        return Times(content or b"times of " + self._gpu + b";")

    def set_timing_cache(self, times: Times, ignore_mismatch: bool) -> bool:
        return ignore_mismatch or self._gpu in times.content


@pytest.fixture
def moment(tmp_path: Path) -> Path:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    return bundle / read_bundle(bundle).graphs["moment"].file


def build_with(moment: Path, times: Path, monkeypatch: pytest.MonkeyPatch, gpu: bytes = b"sm86") -> None:
    """Build for real, but for the times."""

    def use(config: Any, path: Path, log: Any) -> Times:
        return original(Config(config, log, gpu), path, log)

    original = build._use_times
    with monkeypatch.context() as patch:
        patch.setattr(build, "_use_times", use)
        assert build_plan(find_tensorrt("tensorrt_rtx"), moment, "moment", "fp32", OPTIONS, timing_cache=times).data


def test_times_are_kept_from_one_build_to_the_next(
    moment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = tmp_path / "folder" / "times"
    build_with(moment, times, monkeypatch)
    assert times.read_bytes() == b"times of sm86;kernel;"
    build_with(moment, times, monkeypatch)
    assert times.read_bytes() == b"times of sm86;kernel;kernel;"
    assert [path.name for path in times.parent.iterdir()] == ["times"]


@pytest.mark.parametrize("content", [b"a letter to keep", b"times of sm80;kernel;"])
def test_a_file_of_something_else_is_refused_and_stays(
    moment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    times = tmp_path / "times"
    times.write_bytes(content)
    with pytest.raises(BuildError, match=r"times is not a timing cache of this GPU and this release.*--timing-cache"):
        build_with(moment, times, monkeypatch)
    assert times.read_bytes() == content


def test_a_node_without_an_implementation_is_named(moment: Path, tmp_path: Path) -> None:
    model = onnx.load(moment)
    model.graph.node[-1].op_type = "BitwiseNot"
    model.graph.node[-1].name = "strange"
    onnx.save(model, tmp_path / "strange.onnx")
    with pytest.raises(BuildError, match=r"cannot read graph 'moment': BitwiseNot 'strange'"):
        build_plan(find_tensorrt("tensorrt_rtx"), tmp_path / "strange.onnx", "moment", "fp32", OPTIONS)


def test_what_the_parser_does_not_explain_is_still_an_error(moment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensorrt = find_tensorrt("tensorrt_rtx")
    silent = SimpleNamespace(parse_from_file=lambda path: False, num_errors=0)
    monkeypatch.setattr(tensorrt.api, "OnnxParser", lambda network, log: silent)
    with pytest.raises(BuildError, match="cannot read graph 'moment': it does not say why"):
        build_plan(tensorrt, moment, "moment", "fp32", OPTIONS)
