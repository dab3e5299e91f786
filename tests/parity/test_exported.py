"""Exported graphs, run by the SDK in onnxruntime, say what the authors' implementation says: every task, both forms of operators.

The tolerances are those of the oracle's README: 1e-5 on activations, 1e-4 on logits.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from hero_export.onnx.export import export_graph, rewrite_graph
from hero_export.onnx.graphs import graphs_of
from hero_export.onnx.onnxruntime_form import fuse_for_onnxruntime
from hero_export.verification.comparison import GraphRunner
from hero_export.verification.paths import RunnerGraphs
from hero_sdk.answering import QuestionInput, score_answers, score_statements
from hero_sdk.captioning import GraphStep, write_captions
from hero_sdk.encoding import encode_packed, pad_clips
from hero_sdk.manifest import MOMENT_GRAPH, QUERY_GRAPH
from hero_sdk.rows import RowGeometry, pack_queries
from hero_sdk.sentence_search import BeamConfig, beam_search
from hero_sdk.spans import span_logits
from hero_train.model.answers import HeroForQuestionAnswering, HeroForStatements
from hero_train.model.captioning import CachedStep
from hero_train.model.hero import HeroEncoders
from tests.parity.oracle import OracleBatch, assert_close, read_dump, read_model
from tests.parity.test_answers import Case, read_case
from tests.parity.test_captioning import moments_of, read_captioner
from tests.torch_engine import manifest_of

ACTIVATION, LOGIT = 1e-5, 1e-4
GEOMETRY = RowGeometry(slots=64, frames=24, temporal_slots=64, query_tokens=32)
FORMS = ("standard", "onnxruntime")


def export(model: HeroEncoders, folder: Path) -> dict[str, RunnerGraphs]:
    """The graphs of a model in both forms, the second made of the first as the command does."""
    graphs = graphs_of(model, GEOMETRY, caption_tokens=read_dump("tvc_io")["greedy"]["max_step"])
    manifest = manifest_of(model, GEOMETRY, graphs)
    runners: dict[str, dict[str, GraphRunner]] = {form: {} for form in FORMS}
    for name, graph in graphs.items():
        paths = [folder / f"{name}.{form}.onnx" for form in FORMS]
        export_graph(graph, paths[0])
        rewrite_graph(graph, *paths, fuse_for_onnxruntime)
        for form, path in zip(FORMS, paths, strict=True):
            runners[form][name] = GraphRunner(name, path, manifest.graphs[name])
    return {form: RunnerGraphs(manifest, made) for form, made in runners.items()}


class Exported(NamedTuple):
    """What a test compares: the model, its graphs in one form, the authors' numbers, and where they come from."""

    model: Any
    engine: RunnerGraphs
    dump: dict[str, Any]
    batch: OracleBatch


def exported(model: HeroEncoders, dump: dict[str, Any], batch: OracleBatch) -> Any:
    """A fixture's value: by form."""
    with tempfile.TemporaryDirectory() as folder:
        engines = export(model, Path(folder))
    return {form: Exported(model, engine, dump, batch) for form, engine in engines.items()}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def retrieval_forms() -> dict[str, Exported]:
    dump = read_dump("vcmr_io")
    return exported(read_model("vcmr")[0], dump, OracleBatch(dump["batch"]))


@pytest.fixture(scope="module")
def question_case() -> Case:
    return read_case("videoQA", HeroForQuestionAnswering, "qa")


@pytest.fixture(scope="module")
def question_forms(question_case: Case) -> dict[str, Exported]:
    return exported(question_case.model, question_case.dump, question_case.batch)


@pytest.fixture(scope="module")
def statement_case() -> Case:
    return read_case("violin", HeroForStatements, "q")


@pytest.fixture(scope="module")
def statement_forms(statement_case: Case) -> dict[str, Exported]:
    return exported(statement_case.model, statement_case.dump, statement_case.batch)


@pytest.fixture(scope="module")
def caption_forms() -> dict[str, Exported]:
    dump = read_dump("tvc_io")["greedy"]
    return exported(read_captioner(), dump, OracleBatch(dump["batch"]))


def test_clip_embeddings_and_queries(retrieval_forms: dict[str, Exported], form: str) -> None:
    _, engine, dump, batch = retrieval_forms[form]
    clips = np.concatenate(encode_packed(engine, batch.pack(GEOMETRY)))
    assert_close(torch.from_numpy(clips), dump["encoder"]["frame_embeddings"][batch.frame_mask], ACTIVATION)
    token_ids, segment_ids = (tensor.numpy() for tensor in batch.queries())
    queries = [ids[mask > 0] for ids, mask in zip(token_ids, segment_ids, strict=True)]
    inputs = dict(zip(("token_ids", "segment_ids"), pack_queries(queries, GEOMETRY.query_tokens), strict=True))
    encoded = engine.run(QUERY_GRAPH, inputs)
    assert_close(torch.from_numpy(encoded["query_vector"]), dump["query_stages"]["q_feat_attn"], ACTIVATION)
    assert_close(torch.from_numpy(encoded["span_vector"]), dump["query_stages"]["video_query_linear"], ACTIVATION)


def test_the_moment_head_in_the_graph_and_in_numpy(retrieval_forms: dict[str, Exported], form: str) -> None:
    """Each video by itself: the authors' logits depend on what it is batched with."""
    _, engine, dump, batch = retrieval_forms[form]
    videos = encode_packed(engine, batch.pack(GEOMETRY))
    vectors = dump["query_stages"]["video_query_linear"].numpy()
    query_of = {int(video): query for query, video in enumerate(batch.raw["q_vidx"])}
    for entry in dump["batch_dependence"]:
        number = batch.raw["vids"].index(entry["vid"])
        vector, clips = vectors[query_of[number]], videos[number]
        padded, mask = pad_clips([clips], GEOMETRY.temporal_slots)
        found = engine.run(MOMENT_GRAPH, {"span_vector": vector[None], "clips": padded, "clip_mask": mask})
        in_numpy = span_logits(vector, clips, engine.manifest.require_moment())
        for name, theirs, searched in zip(("start", "end"), ("st", "ed"), in_numpy, strict=True):
            expected = entry["alone"][theirs].flatten()[: len(clips)]
            assert_close(torch.from_numpy(found[name][0, : len(clips)]), expected, LOGIT)
            assert_close(torch.from_numpy(searched[0]), expected, LOGIT)


def test_answers(question_case: Case, question_forms: dict[str, Exported], form: str) -> None:
    _, engine, dump, batch = question_forms[form]
    answers = dump["logits"].shape[1]
    starts = range(0, len(question_case.videos), answers)
    questions = [
        QuestionInput(question_case.videos[start], tuple(question_case.texts[start : start + answers]))
        for start in starts
    ]
    found = score_answers(engine, questions)
    assert_close(torch.from_numpy(found.answer), dump["logits"], LOGIT)
    real = batch.frame_mask[::answers]
    edges = dump["stages"]["st_ed_pred_head"].unbind(dim=-1)
    for logits, expected in zip((found.start, found.end), edges, strict=True):
        assert_close(torch.from_numpy(logits[:, : real.shape[1]])[real], expected[real], LOGIT)


def test_statements(statement_case: Case, statement_forms: dict[str, Exported], form: str) -> None:
    _, engine, dump, _ = statement_forms[form]
    found = score_statements(engine, list(zip(statement_case.videos, statement_case.texts, strict=True)))
    assert_close(torch.from_numpy(found)[:, None], dump["logits"], LOGIT)


def moments_in(captions: Exported) -> list[np.ndarray]:
    """The clips of the moments, encoded by the graphs."""
    videos = encode_packed(captions.engine, captions.batch.pack(GEOMETRY))
    return [videos[video][first:stop] for video, first, stop in moments_of(captions.batch.raw)]


def test_greedy_captions_token_for_token(caption_forms: dict[str, Exported], form: str) -> None:
    captions = caption_forms[form]
    found = write_captions(captions.engine, moments_in(captions))
    assert [caption.tolist() for caption in found] == captions.dump["outputs"]


def test_a_beam_finds_what_it_finds_with_torch(caption_forms: dict[str, Exported], form: str) -> None:
    model, engine, dump, batch = captions = caption_forms[form]
    parts, config, limit = moments_in(captions), BeamConfig(width=4), dump["max_step"]
    found = beam_search(GraphStep(engine, parts), len(parts), limit, config)
    with torch.no_grad():
        shown = model.encode_moments(batch.pack(GEOMETRY), moments_of(batch.raw))
    expected = beam_search(CachedStep(model, *shown, limit), len(parts), limit, config)
    for ours, theirs in zip(found, expected, strict=True):
        assert [one.tokens.tolist() for one in ours] == [one.tokens.tolist() for one in theirs]
        np.testing.assert_allclose(
            [one.log_probability for one in ours], [one.log_probability for one in theirs], rtol=0, atol=LOGIT
        )
