"""Cached plans: found by what they were built from and nothing else, and refused when they are not what they were."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from onnx import load, save_model

from hero_export.errors import ExportError
from hero_export.tensorrt.build import Plan
from hero_export.tensorrt.cache import ENTRY_FILE, PLAN_FILE, PlanCache, PlanKey, graph_digest
from hero_export.tensorrt.module import PlanOptions
from hero_sdk.errors import BundleError, FingerprintError
from tests.tiny_bundle import write_tiny_bundle

KEY = PlanKey("0" * 64, "tensorrt_rtx 1.7", "fp16", PlanOptions("sm86", max_batch=4, opt_batch=4))
PLAN = Plan(b"plan", {"fp16": 3}, "fp16", ("decoder.attention",), ("slow",), 1.5)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    PlanCache(folder).put(KEY, PLAN)
    return folder


def test_a_plan_is_found_again_with_all_that_is_known_of_it(cache: Path) -> None:
    assert PlanCache(cache).get(KEY) == dataclasses.replace(PLAN, seconds=0.0)
    assert [path.name for path in cache.iterdir()] == [KEY.digest]


@pytest.mark.parametrize(
    "other",
    [
        dataclasses.replace(KEY, graph="1" * 64),
        dataclasses.replace(KEY, builder="tensorrt_rtx 1.8"),
        dataclasses.replace(KEY, precision="bf16"),
        dataclasses.replace(KEY, excused=("layers.0",)),
        *(
            dataclasses.replace(KEY, options=dataclasses.replace(KEY.options, **change))
            for change in ({"target": "sm80"}, {"max_batch": 8}, {"opt_batch": 1}, {"version_compatible": True})
        ),
    ],
)
def test_everything_that_a_plan_was_built_from_is_in_its_key(cache: Path, other: PlanKey) -> None:
    assert PlanCache(cache).get(other) is None


def test_the_same_plan_again_stays_the_first(cache: Path) -> None:
    PlanCache(cache).put(KEY, dataclasses.replace(PLAN, data=b"another"))
    found = PlanCache(cache).get(KEY)
    assert found is not None
    assert found.data == b"plan"
    assert [path.name for path in cache.iterdir()] == [KEY.digest]


def test_an_altered_plan_is_refused(cache: Path) -> None:
    (cache / KEY.digest / PLAN_FILE).write_bytes(b"plam")
    with pytest.raises(BundleError, match=r"is not the plan that was cached: found sha256 .*Remove .*and build again"):
        PlanCache(cache).get(KEY)


def test_a_plan_under_another_name_is_refused(cache: Path) -> None:
    other = dataclasses.replace(KEY, options=PlanOptions("sm80", max_batch=4, opt_batch=4))
    (cache / KEY.digest).rename(cache / other.digest)
    with pytest.raises(FingerprintError, match="built from something else than its name says: its options differs"):
        PlanCache(cache).get(other)


def test_a_stale_entry_is_refused(cache: Path) -> None:
    entry = cache / KEY.digest / ENTRY_FILE
    content = json.loads(entry.read_text())
    content["key"]["builder"] = "tensorrt_rtx 1.6"
    entry.write_text(json.dumps(content))
    with pytest.raises(FingerprintError, match="its builder differs"):
        PlanCache(cache).get(KEY)


def test_a_plan_without_its_entry_is_refused(cache: Path) -> None:
    (cache / KEY.digest / ENTRY_FILE).unlink()
    with pytest.raises(BundleError, match=r"entry\.json cannot be read .*used only together with what describes it"):
        PlanCache(cache).get(KEY)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"key": {}, "sha256": "0"}'])
def test_an_entry_that_describes_nothing_is_refused(cache: Path, content: str) -> None:
    (cache / KEY.digest / ENTRY_FILE).write_text(content)
    with pytest.raises(BundleError, match="does not describe a plan"):
        PlanCache(cache).get(KEY)


def test_an_entry_without_its_plan_is_refused(cache: Path) -> None:
    (cache / KEY.digest / PLAN_FILE).unlink()
    with pytest.raises(BundleError, match=r"engine\.plan cannot be read"):
        PlanCache(cache).get(KEY)


def test_a_cache_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ExportError, match="leave --cache out"):
        PlanCache(tmp_path / "file").put(KEY, PLAN)


def test_the_digest_of_a_graph_covers_weights_that_lie_beside_it(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "bundle", external_weights=True)
    path, weights = (tmp_path / "bundle" / "graphs" / name for name in ("query.onnx", "query.weights"))
    before = graph_digest(path)
    assert graph_digest(path) == before
    content = bytearray(weights.read_bytes())
    content[0] ^= 1
    weights.write_bytes(content)
    after = graph_digest(path)
    assert after != before
    model = load(path)
    model.graph.node[0].name = "renamed"
    save_model(model, path, save_as_external_data=True, location="query.weights", size_threshold=100)
    assert graph_digest(path) not in (before, after)
