"""A bundle of every task, with variants for OpenVINO that the command made: they answer as onnxruntime does."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import hero_sdk
from hero_export import export_bundle
from hero_export.cli import app
from hero_export.openvino import quantise
from hero_export.openvino.convert import convert_graph
from hero_export.openvino.export import Request, add_openvino
from hero_export.verification.bundle_cases import BundleCases
from hero_export.verification.mixing import attentions_of
from hero_sdk import Hero, VideoFeatures
from hero_sdk.engines.local import LocalEngine
from hero_sdk.engines.openvino import capabilities
from hero_sdk.manifest import CAPTIONING, QUESTION_ANSWERING, RETRIEVAL, STATEMENTS, TASK_GRAPHS, read_bundle
from tests.tiny_checkpoint import (
    ANSWERS,
    CAPTION_TOKENS,
    GEOMETRY,
    MAX_BATCH,
    SENTENCES,
    TEXT_GEOMETRY,
    make_task_model,
    write_model,
)
from tests.tiny_videos_in_memory import odd_videos
from tests.unit.openvino_graphs import write_rows

PRECISIONS = ("fp32", "bf16", "int8")
EXACT = {RETRIEVAL: "query", QUESTION_ANSWERING: "answer", STATEMENTS: "statement", CAPTIONING: "caption_step"}

pytestmark = [
    pytest.mark.slow,  # each task is exported once, and quantised
    pytest.mark.filterwarnings("ignore:.*is made for bf16:RuntimeWarning"),
]


@pytest.fixture(scope="module", params=list(EXACT))
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def bundle(task: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("openvino")
    checkpoint = write_model(folder / "checkpoint", make_task_model(task))
    export_bundle(
        checkpoint,
        folder / "bundle",
        geometry=GEOMETRY if task == RETRIEVAL else TEXT_GEOMETRY,
        max_batch=MAX_BATCH,
        answers=ANSWERS,
        caption_tokens=CAPTION_TOKENS,
    )
    write_rows(folder / "bundle", folder / "calibration")
    asked = [word for precision in PRECISIONS for word in ("--precision", precision)]
    result = CliRunner().invoke(
        app, ["openvino", str(folder / "bundle"), *asked, "--calibration", str(folder / "calibration"), "--json"]
    )
    assert result.exit_code == 0, result.output
    assert [report["variant"] for report in json.loads(result.stdout)] == [f"openvino-{one}" for one in PRECISIONS]
    return folder / "bundle"


def test_every_graph_is_read_back_in_its_precision(task: str, bundle: Path) -> None:
    manifest = read_bundle(bundle)
    for precision in PRECISIONS:
        variant = manifest.variant(f"openvino-{precision}")
        assert tuple(variant.graphs) == TASK_GRAPHS[task]
        assert set(variant.graphs["frames"].products) == {"fp32"}
        for name in ("cross_modal", "temporal"):
            graph = variant.graphs[name]
            assert graph.precision == precision
            assert graph.fused == manifest.graphs[name].fused
            # The second product of an attention has no integers to multiply.
            others = {"fp32": graph.fused["Attention"]} if precision == "int8" else {}
            assert {kind: count for kind, count in graph.products.items() if kind != precision} == others
    for precision, capability in {"fp32": "FP32", "bf16": "BF16", "int8": "INT8"}.items():
        path = bundle / "reports" / "variants" / f"openvino-{precision}" / "openvino.json"
        for graph in json.loads(path.read_text(encoding="utf-8"))["graphs"]:
            if capability in capabilities() or graph["precision"] == "fp32":
                assert graph["executed"] == graph["products"]
                assert graph["not_executed"] is None


@pytest.mark.parametrize("task", [CAPTIONING], indirect=True)
def test_an_attention_over_a_cache_is_not_quantised(bundle: Path) -> None:
    manifest = read_bundle(bundle)
    step = manifest.variant("openvino-int8").graphs["caption_step"]
    assert step.products["int8"] > 0
    assert step.products["fp32"] == 2 * step.fused["Attention"]
    # So a search for what to keep need not try it.
    assert {name.partition(":")[0] for name in attentions_of(bundle, manifest)} == {"cross_modal", "temporal"}


@pytest.mark.parametrize("task", [CAPTIONING], indirect=True)
def test_products_share_their_names_with_nothing(bundle: Path) -> None:
    """NNCF goes by names; an attention with a mask becomes several operators, which the converter names alike."""
    for name, spec in read_bundle(bundle).graphs.items():
        converted = convert_graph(bundle / spec.file, name)
        count = Counter(operator.get_friendly_name() for operator in converted.model.get_ops())
        assert [count[product] for product in converted.products.values()] == [1] * len(converted.products)


def test_fp32_answers_as_onnxruntime_does(task: str, bundle: Path) -> None:
    with (
        hero_sdk.load(bundle, threads=1) as expected,
        hero_sdk.load(bundle, variant="openvino-fp32", threads=1) as found,
    ):
        for video in odd_videos():
            for one, other in zip(said(expected, task, video), said(found, task, video), strict=True):
                if isinstance(one, np.ndarray):
                    np.testing.assert_allclose(other, one, rtol=0, atol=1e-4)
                else:
                    assert other == one


def said(hero: Hero, task: str, video: VideoFeatures) -> list[object]:
    """What a bundle says of a video: vectors and probabilities as arrays, choices and texts as they are."""
    if task == RETRIEVAL:
        query = hero.encode_query(SENTENCES[0])
        (encoded,) = hero.encode_many([video])
        return [encoded.clip_embeddings, query.vector, query.span_vector]
    if task == QUESTION_ANSWERING:
        answer = hero.answer(video, SENTENCES[1], SENTENCES[:ANSWERS])
        return [answer.index, (answer.start, answer.end), np.array(answer.probabilities)]
    if task == STATEMENTS:
        judged = hero.judge_many(video, SENTENCES)
        return [[one.true for one in judged], np.array([one.probability for one in judged])]
    model = hero.manifest.model
    length = min(video.seconds(model.clip_interval), model.clip_limit * model.clip_interval)
    return [caption.text for caption in hero.caption_many(video, [(0.0, length)], beams=2)]


def test_lower_precisions_stay_near(task: str, bundle: Path) -> None:
    """On what the task asks first; how much of a metric they cost is for `hero-export verify` to say."""
    with LocalEngine(bundle, threads=1) as engine:
        case = BundleCases(bundle, engine.manifest).cases_of("cross_modal")[0]
        expected = engine.run("cross_modal", case.inputs)["hidden"][case.used["hidden"]]
    errors = {}
    for precision in PRECISIONS:
        with LocalEngine(bundle, variant=f"openvino-{precision}", threads=1) as engine:
            found = engine.run("cross_modal", case.inputs)["hidden"][case.used["hidden"]]
        errors[precision] = np.abs(found - expected).max() / np.abs(expected).max()
    assert errors["fp32"] < 1e-5
    assert 1e-3 < errors["int8"] < 0.1
    assert errors["bf16"] < 0.02


@pytest.mark.parametrize("task", [STATEMENTS], indirect=True)
def test_of_the_ways_to_quantise_the_nearest_is_kept(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = Request(bundle, ("int8",), bundle.parent / "calibration")

    def made(name: str, smoothings: tuple[float | None, ...]) -> tuple[dict[str, float | None], dict[str, float]]:
        monkeypatch.setattr(quantise, "SMOOTHINGS", smoothings)
        (report,) = add_openvino(request, out=tmp_path / name)
        errors: dict[str, float] = {}
        for case in report.cases:
            errors[case.graph] = max(errors.get(case.graph, 0.0), case.relative_error)
        return {graph.graph: graph.smoothing for graph in report.graphs if graph.precision == "int8"}, errors

    _, with_smoothing = made("with", (0.25,))
    _, without = made("without", (None,))
    chosen, nearest = made("both", (0.25, None))
    assert set(chosen) == {"cross_modal", "temporal"}
    for graph, smoothing in chosen.items():
        assert with_smoothing[graph] != without[graph]
        assert nearest[graph] == min(with_smoothing[graph], without[graph])
        assert smoothing == (0.25 if with_smoothing[graph] < without[graph] else None)


@pytest.mark.parametrize("task", [STATEMENTS], indirect=True)
def test_in_int8_a_whole_graph_is_kept_too(bundle: Path, tmp_path: Path) -> None:
    request = Request(bundle, ("int8",), bundle.parent / "calibration", ("temporal",))
    add_openvino(request, out=tmp_path / "kept")
    graphs = read_bundle(tmp_path / "kept").variants["openvino-int8"].graphs
    assert set(graphs["temporal"].products) == {"fp32"}
    assert graphs["cross_modal"].precision == "int8"
