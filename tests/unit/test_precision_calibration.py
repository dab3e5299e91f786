"""The calibration set: what is in it, that it is what the graphs really read, and that a stale or damaged one is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from hero_export.errors import CalibrationError
from hero_export.precision.calibrating import calibrate_bundle, plan_calibration
from hero_export.precision.calibration import CALIBRATION_FILE, read_calibration
from hero_export.precision.recording import RecordingEngine
from hero_sdk.engines.local import LocalEngine
from hero_sdk.manifest import read_bundle
from hero_sdk.rows import pack_queries
from hero_sdk.tokens import TextTokenizer
from tests.precision_data import LINES, VIDEOS, write_run
from tests.tiny_bundle import FEATURES, GEOMETRY, example_inputs, write_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("data"), "retrieval", FEATURES)


@pytest.fixture(scope="module")
def made(bundle: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "calibration"
    calibrate_bundle(bundle, run, out, rows=6, threads=1)
    return out


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "calibration"))


def test_a_set_has_real_inputs_of_every_graph(bundle: Path, made: Path) -> None:
    manifest = read_bundle(bundle)
    found = read_calibration(made, manifest)
    assert set(found.record.graphs) == {"cross_modal", "temporal", "query", "moment"}
    assert sorted(path.name for path in made.iterdir()) == sorted(
        [CALIBRATION_FILE, "reproduce.sh", *(f"{graph}.safetensors" for graph in found.record.graphs)]
    )
    tokenizer = TextTokenizer((bundle / manifest.tokenizer).read_text(encoding="utf-8"))
    packed = {pack_queries([tokenizer.encode_query(line)], GEOMETRY.query_tokens)[0].tobytes() for line in LINES}
    queries = list(found.rows("query"))
    assert 6 <= len(queries) <= VIDEOS
    assert {row["token_ids"].tobytes() for row in queries} <= packed
    with LocalEngine(bundle, threads=1) as engine:
        for graph in found.record.graphs:  # the engine checks names, types and shapes
            for row in found.rows(graph):
                assert all(np.isfinite(output).all() for output in engine.run(graph, row).values())
        # What the moment head reads is what the query encoder and the temporal encoder gave.
        spans = engine.run("query", found.arrays("query"))["span_vector"]
        for row in found.rows("moment"):
            assert np.isclose(row["span_vector"], spans, atol=1e-5).all(axis=1).any()
            assert not row["clips"][~row["clip_mask"]].any()


def test_rows_are_chosen_by_the_seed(bundle: Path, run: Path, made: Path, tmp_path: Path) -> None:
    for name, seed in (("same", 0), ("other", 1)):
        calibrate_bundle(bundle, run, tmp_path / name, rows=6, seed=seed, threads=1)
    sets = [(folder / "query.safetensors").read_bytes() for folder in (made, tmp_path / "same", tmp_path / "other")]
    assert sets[0] == sets[1] != sets[2]


def test_every_row_that_comes_by_is_kept_with_the_same_probability(bundle: Path) -> None:
    counts = np.zeros(40)
    with LocalEngine(bundle, threads=1) as engine:
        inputs = example_inputs(engine.manifest, "query", 40)
        inputs["token_ids"][:, 0] = np.arange(40)
        for seed in range(400):
            recorder = RecordingEngine(engine, 10, seed)
            for start in range(0, 40, 4):
                recorder.keep("query", {name: array[start : start + 4] for name, array in inputs.items()})
            kept = recorder.rows("query")["token_ids"][:, 0]
            assert len(set(kept.tolist())) == 10
            counts[kept] += 1
    # 100 are expected of each, with a deviation of 8.7; five of them are a chance of one in 40,000.
    assert counts.min() > 56
    assert counts.max() < 144


def test_a_dry_run_says_how_large_it_would_be(bundle: Path, run: Path, tmp_path: Path) -> None:
    plan = plan_calibration(bundle, run, tmp_path / "out", rows=6)
    sizes = {file.path: file.bytes for file in plan.files}
    assert sizes["query.safetensors"] == 6 * 2 * 4 * GEOMETRY.query_tokens
    assert not (tmp_path / "out").exists()


def test_a_stale_set_is_refused(made: Path, bundle: Path, tmp_path: Path) -> None:
    other = read_bundle(write_tiny_bundle(tmp_path / "other", seed=1))
    with pytest.raises(CalibrationError, match=r"Stale calibration: .* was made with the fingerprint tiny-0.*tiny-1"):
        read_calibration(made, other)


def test_a_set_of_a_graph_that_was_exported_anew_is_refused(copy: Path, bundle: Path) -> None:
    content = json.loads((copy / CALIBRATION_FILE).read_text(encoding="utf-8"))
    content["graphs"]["temporal"]["graph"] = "0" * 64
    (copy / CALIBRATION_FILE).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(
        CalibrationError,
        match=r"Stale calibration: .*graph 'temporal' with the sha256 0{12}.*make it again",
    ):
        read_calibration(copy, read_bundle(bundle))


def test_a_set_with_other_rows_is_refused(copy: Path, bundle: Path) -> None:
    content = json.loads((copy / CALIBRATION_FILE).read_text(encoding="utf-8"))
    content["geometry"]["slots"] += 1
    (copy / CALIBRATION_FILE).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CalibrationError, match=r"Stale calibration: .*slots=17.*slots=16"):
        read_calibration(copy, read_bundle(bundle))


def test_swapped_files_are_refused(copy: Path, bundle: Path) -> None:
    shutil.copyfile(copy / "temporal.safetensors", copy / "query.safetensors")
    with pytest.raises(CalibrationError, match=r"query\.safetensors is not the file"):
        read_calibration(copy, read_bundle(bundle))


@pytest.mark.parametrize("name", ["../query.safetensors", "nothing.safetensors"])
def test_a_set_reads_its_own_files_only(copy: Path, bundle: Path, name: str) -> None:
    shutil.copyfile(copy / "query.safetensors", copy.parent / "query.safetensors")
    content = json.loads((copy / CALIBRATION_FILE).read_text(encoding="utf-8"))
    content["graphs"]["query"]["file"] = name
    (copy / CALIBRATION_FILE).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(CalibrationError, match="is not the file"):
        read_calibration(copy, read_bundle(bundle))


@pytest.mark.parametrize("text", ["{", "[]", '{"fingerprint": 1}'])
def test_a_damaged_record_is_refused(copy: Path, bundle: Path, text: str) -> None:
    (copy / CALIBRATION_FILE).write_text(text, encoding="utf-8")
    with pytest.raises(CalibrationError, match="cannot be read"):
        read_calibration(copy, read_bundle(bundle))
    (copy / CALIBRATION_FILE).unlink()
    with pytest.raises(CalibrationError, match="hero-export calibrate"):
        read_calibration(copy, read_bundle(bundle))


def test_a_run_of_another_task_is_refused(bundle: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "data", "captioning", FEATURES)
    with pytest.raises(CalibrationError, match="run is for captioning and the bundle for retrieval"):
        calibrate_bundle(bundle, other, tmp_path / "out", rows=2)
    assert not (tmp_path / "out").exists()


def test_what_is_there_is_not_lost(bundle: Path, run: Path, copy: Path, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"already a calibration set.*--force"):
        calibrate_bundle(bundle, run, copy, rows=2)
    calibrate_bundle(bundle, run, copy, rows=2, threads=1, force=True)
    assert read_calibration(copy, read_bundle(bundle)).record.graphs["query"].rows == 2
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "note.txt").write_text("keep me")
    with pytest.raises(CalibrationError, match="is no calibration set"):
        calibrate_bundle(bundle, run, tmp_path / "notes", rows=2, force=True)
    with pytest.raises(CalibrationError, match=r"no videos.*--pictures"):
        calibrate_bundle(bundle, run, tmp_path / "out", rows=2, pictures=True)
