"""A checkpoint of every other task, exported by the command, answers, judges and captions as the model does in PyTorch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import hero_sdk
from hero_export import inspect_bundle
from hero_export.onnx.graphs import graphs_of
from hero_export.verification import paths as verify_paths_module
from hero_export.verification.cases import CaseMaker
from hero_export.verification.comparison import GraphRunner, verify_graph
from hero_export.verification.paths import RunnerGraphs, verify_paths
from hero_export.verification.verifying import Options, require_verified, verify_bundle
from hero_sdk import Hero, VideoFeatures
from hero_sdk.answering import question_text
from hero_sdk.captioning import moment_span
from hero_sdk.manifest import CAPTIONING, QUESTION_ANSWERING, STATEMENTS, TASK_GRAPHS, read_bundle
from hero_sdk.rows import pack_videos
from hero_sdk.sentence_search import BeamConfig
from hero_sdk.tokens import TextTokenizer, separated
from hero_sdk.video_inputs import video_inputs
from hero_train.model.answers import HeroForQuestionAnswering, HeroForStatements
from hero_train.model.captioning import HeroForCaptioning
from hero_train.model.hero import HeroEncoders
from tests.integration.export.exported import OPERATORS, Exported
from tests.integration.export.test_refusals import alter_weight
from tests.tiny_checkpoint import (
    ANSWERS,
    CAPTION_TOKENS,
    MAX_BATCH,
    SENTENCES,
    TEXT_GEOMETRY,
    make_task_model,
)
from tests.tiny_training import load_run, run_settings, write_annotations
from tests.tiny_videos_in_memory import odd_videos


@pytest.fixture
def model(task: str) -> HeroEncoders:
    return make_task_model(task)


@pytest.fixture
def hero(exported_task: Exported) -> Hero:
    return hero_sdk.load(exported_task.bundle, threads=1)


@pytest.fixture
def tokenizer(exported_task: Exported) -> TextTokenizer:
    return TextTokenizer((exported_task.bundle / "tokenizer.json").read_text(encoding="utf-8"))


def test_a_bundle_has_the_graphs_of_its_task_with_every_operator_that_is_implied(
    task: str, exported_task: Exported
) -> None:
    manifest = read_bundle(exported_task.bundle)
    assert manifest.task == task
    assert tuple(manifest.graphs) == TASK_GRAPHS[task]
    assert manifest.moment is None
    inspection = inspect_bundle(exported_task.bundle)
    inspection.require_fused()
    assert not any(graph.unfused for graph in inspection.graphs)
    for graph in inspection.graphs[1:]:
        form = {"": 23} if OPERATORS[task] == "standard" else {"": 23, "com.microsoft": 1}
        assert graph.opsets.items() <= form.items()
        onnx.checker.check_model(str(exported_task.bundle / graph.file), full_check=True)
    if OPERATORS[task] == "onnxruntime":
        (stage,) = (graph for graph in inspection.graphs if graph.name == "temporal")
        assert stage.fused["com.microsoft::MultiHeadAttention"] == 1
        assert "Attention" not in stage.others


@pytest.mark.parametrize("task", [CAPTIONING], indirect=True)
def test_what_was_measured_stands_in_the_report(exported_task: Exported) -> None:
    speed = exported_task.report["speed"]
    assert {(one["graph"], one["batch"]) for one in speed} == {
        (graph, batch) for graph in ("cross_modal", "temporal", "caption_step") for batch in (1, MAX_BATCH)
    }
    for one in speed:
        assert one["rounds"] >= 5
        assert min(one["standard_ms"], one["onnxruntime_ms"], one["ratio"]) > 0
    text = (exported_task.bundle / "reports" / "export.md").read_text(encoding="utf-8")
    assert text.count("| caption_step | 1 |") == 1


def test_the_whole_path_is_in_the_report(task: str, exported_task: Exported) -> None:
    compared = {(case["graph"], case["output"]) for case in exported_task.report["cases"]}
    encoders = "cross_modal + temporal"
    assert {
        QUESTION_ANSWERING: {(f"{encoders} + answer", output) for output in ("answer", "start", "end")},
        STATEMENTS: {(f"{encoders} + statement", "truth")},
        CAPTIONING: {
            (encoders, "clip_embeddings"),
            ("caption_prefill + caption_step", "captions"),
            ("caption_prefill + caption_step", "logits"),
        },
    }[task] <= compared


def windows_of(hero: Hero, video: VideoFeatures, tokenizer: TextTokenizer) -> list:
    return [window for _, window in video_inputs(video.features, video.subtitles, tokenizer, hero.manifest.model)]


def test_what_is_said_about_videos_is_what_the_model_says(
    hero: Hero, model: HeroEncoders, tokenizer: TextTokenizer
) -> None:
    said = {QUESTION_ANSWERING: check_answers, STATEMENTS: check_judgements, CAPTIONING: check_captions}
    with hero, torch.no_grad():
        for video in odd_videos():
            said[hero.manifest.task](hero, model, tokenizer, video)


def check_answers(hero: Hero, model: HeroForQuestionAnswering, tokenizer: TextTokenizer, video: VideoFeatures) -> None:
    question, answers = SENTENCES[1], SENTENCES[:ANSWERS]
    found = hero.answer(video, question, answers)
    texts = [
        question_text(separated(tokenizer, question), separated(tokenizer, answer), TEXT_GEOMETRY.query_tokens)
        for answer in answers
    ]
    logits = []
    for window in windows_of(hero, video, tokenizer):
        logits.append(model(pack_videos([window] * ANSWERS, TEXT_GEOMETRY, texts=texts), ANSWERS).answer[0])
    most = torch.stack(logits).amax(dim=0)
    assert found.index == int(most.argmax())
    assert found.text == answers[found.index]
    np.testing.assert_allclose(found.probabilities, most.softmax(dim=0).numpy(), rtol=0, atol=1e-5)
    assert 0 <= found.start < found.end <= video.seconds(1.5)


def check_judgements(hero: Hero, model: HeroForStatements, tokenizer: TextTokenizer, video: VideoFeatures) -> None:
    for statement, found in zip(SENTENCES, hero.judge_many(video, SENTENCES), strict=True):
        text = separated(tokenizer, statement)[: TEXT_GEOMETRY.query_tokens]
        windows = windows_of(hero, video, tokenizer)
        logit = model(pack_videos(windows, TEXT_GEOMETRY, texts=[text] * len(windows))).max()
        assert found.probability == pytest.approx(float(logit.sigmoid()), abs=1e-5)
        assert found.true == bool(logit > 0)


def check_captions(hero: Hero, model: HeroForCaptioning, tokenizer: TextTokenizer, video: VideoFeatures) -> None:
    windows = windows_of(hero, video, tokenizer)
    if len(windows) > 1:
        return  # PyTorch's captioning has no windows
    length = video.seconds(1.5)
    moments = [(0.0, length), (length / 3, length / 3 + 1.6)]
    spans = [moment_span(*moment, 1.5, len(video.features)) for moment in moments]
    packed = pack_videos(windows, TEXT_GEOMETRY)
    for beams in (1, 3):
        beam = None if beams == 1 else BeamConfig(beams)
        expected = model.caption(
            packed, np.array([(0, *span) for span in spans], np.int32), limit=CAPTION_TOKENS, beam=beam
        )
        found = hero.caption_many(video, moments, beams=beams)
        assert [caption.text for caption in found] == [tokenizer.decode(tokens) for tokens in expected]


def test_an_altered_weight_fails_the_comparison_in_every_graph(
    exported_task: Exported, model: HeroEncoders, tmp_path: Path
) -> None:
    specs = read_bundle(exported_task.bundle).graphs
    maker = CaseMaker(model.config, TEXT_GEOMETRY, MAX_BATCH)
    graphs = graphs_of(model, TEXT_GEOMETRY, answers=ANSWERS, caption_tokens=CAPTION_TOKENS)
    for graph in graphs.values():
        path = Path(shutil.copyfile(exported_task.bundle / graph.file, tmp_path / f"{graph.name}.onnx"))
        for passes in (True, False):
            runner = GraphRunner(graph.name, path, specs[graph.name])
            results = verify_graph(runner, graph.module, maker.cases_of(graph))
            assert all(result.passed for result in results) is passes
            alter_weight(path)


@pytest.mark.parametrize("task", [CAPTIONING], indirect=True)
def test_captions_that_differ_fail_the_comparison(
    exported_task: Exported, model: HeroEncoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where every logit is right: the search itself is compared."""
    manifest = read_bundle(exported_task.bundle)
    runners = {
        name: GraphRunner(name, exported_task.bundle / spec.file, spec) for name, spec in manifest.graphs.items()
    }
    maker = CaseMaker(model.config, TEXT_GEOMETRY, MAX_BATCH)
    assert all(result.passed for result in verify_paths(RunnerGraphs(manifest, runners), model, maker))
    monkeypatch.setattr(
        verify_paths_module, "write_captions", lambda engine, clips, beam: [np.zeros(1, np.int32)] * len(clips)
    )
    results = verify_paths(RunnerGraphs(manifest, runners), model, maker)
    assert {result.output for result in results if not result.passed} == {"captions"}


JUDGED = {
    QUESTION_ANSWERING: ("questions", "accuracy"),
    STATEMENTS: ("statements", "accuracy"),
    CAPTIONING: ("captions", "CIDEr"),
}
"""The run and the metric of each task."""


def test_the_task_is_judged_through_torch_and_through_the_graphs(
    task: str, exported_task: Exported, training_set: Path, tmp_path: Path
) -> None:
    run, metric = JUDGED[task]
    changes: dict[str, object] = {}
    if task == QUESTION_ANSWERING:  # of five answers, of which the bundle takes fewer
        lines = [json.loads(line) for line in (training_set / "questions.jsonl").read_text().splitlines()]
        few = [{key: value for key, value in line.items() if key not in ("a3", "a4")} for line in lines]
        few = [line | {"answer_idx": line["answer_idx"] % ANSWERS} for line in few]
        write_annotations(training_set / "few.jsonl", few)
        changes = {"data": {**run_settings(run)["data"], "train": "few.jsonl", "validation": "few.jsonl"}}
    config = load_run(training_set, run, **changes)
    options = Options(sample=5, latency=False)
    report = verify_bundle(exported_task.bundle, exported_task.checkpoint, tmp_path, config, options)
    require_verified(report, tmp_path)
    (judged,) = (one for one in report.metrics if one.metric == metric)
    assert (judged.items, judged.loss, judged.low, judged.high) == (5, 0.0, 0.0, 0.0)
    assert judged.found == judged.torch
    assert {one.graph for one in report.worst} == {*TASK_GRAPHS[task][1:]}
    assert {one.graph for one in report.layers} >= {"cross_modal", "temporal"}
    assert ("METEOR" in report.absent) == (task == CAPTIONING)
