"""The whole way of every task against the model: packing, graphs and searches as the SDK runs them, against PyTorch's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from hero_export.report import CaseResult
from hero_export.verification.cases import CaseMaker
from hero_export.verification.comparison import CAPTIONS, GraphRunner, compare
from hero_export.verification.head_cases import Case
from hero_sdk.answering import QuestionInput, score_answers, score_statements
from hero_sdk.captioning import GraphStep, write_captions
from hero_sdk.encoding import encode_packed
from hero_sdk.engines import Graphs
from hero_sdk.engines.batching import Arrays
from hero_sdk.manifest import (
    ANSWER_GRAPH,
    CROSS_MODAL_GRAPH,
    MOMENT_GRAPH,
    PREFILL_GRAPH,
    STATEMENT_GRAPH,
    STEP_GRAPH,
    TEMPORAL_GRAPH,
    Manifest,
)
from hero_sdk.rows import VideoInput, pack_videos
from hero_sdk.sentence_search import BeamConfig
from hero_sdk.spans import span_logits
from hero_sdk.tokens import BEGIN_ID
from hero_sdk.types import FloatArray, IntArray
from hero_train.model.answers import HeroForQuestionAnswering, HeroForStatements
from hero_train.model.captioning import HeroForCaptioning
from hero_train.model.hero import HeroEncoders, HeroModel

ENCODERS = f"{CROSS_MODAL_GRAPH} + {TEMPORAL_GRAPH}"
BEAMS = 3


class RunnerGraphs:
    """The graphs of an export, before there is a bundle, as the SDK asks for them.

    Args:
        manifest: of the bundle that they will be in; its files are not looked at.
        runners: by the graphs' names.
    """

    def __init__(self, manifest: Manifest, runners: Mapping[str, GraphRunner]) -> None:
        self.manifest = manifest
        self._runners = runners

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Run one graph; see ``hero_sdk.engines.Graphs.run``."""
        return self._runners[graph].run(inputs)


def verify_paths(engine: Graphs, model: HeroEncoders, maker: CaseMaker) -> list[CaseResult]:
    """Compare what the SDK makes of videos with what the model makes of them.

    Args:
        engine: runs the exported graphs.
        model: of any task, in evaluation mode.
        maker: of its cases.
    """
    match model:
        case HeroModel():
            return _verify_embeddings(engine, model, maker)
        case HeroForQuestionAnswering():
            return _verify_answers(engine, model, maker)
        case HeroForStatements():
            return _verify_statements(engine, model, maker)
        case HeroForCaptioning():
            return [*_verify_embeddings(engine, model, maker), *_verify_captions(engine, model, maker)]
        case _:
            raise TypeError(f"A {type(model).__name__} is of no task that is exported.")


@torch.no_grad()
def _verify_embeddings(engine: Graphs, model: HeroEncoders, maker: CaseMaker) -> list[CaseResult]:
    results = []
    for name, videos in maker.whole_path_cases().items():
        packed = pack_videos(videos, maker.geometry)
        found = np.concatenate(encode_packed(engine, packed))
        expected = np.concatenate(packed.unpack(model.encode_videos(packed).numpy()))
        rows = len(packed.cross_modal.segment_ids)
        results.append(_whole(ENCODERS, "clip_embeddings", name, rows, found, expected))
    return results


@torch.no_grad()
def _verify_answers(engine: Graphs, model: HeroForQuestionAnswering, maker: CaseMaker) -> list[CaseResult]:
    most = next(tensor for tensor in engine.manifest.graphs[ANSWER_GRAPH].inputs if tensor.name == "answer_mask").shape[
        1
    ]
    results = []
    for name, videos in maker.whole_path_cases(copies=most).items():
        for answers in sorted({most, min(2, most)}):
            questions = [QuestionInput(video, tuple(maker.texts(answers))) for video in videos]
            logits = score_answers(engine, questions)
            copies = [video for video in videos for _ in range(answers)]
            texts = [text for question in questions for text in question.texts]
            expected = model(pack_videos(copies, maker.geometry, texts=texts), answers)
            case = f"{name}, {answers} answers"
            for output in ("answer", "start", "end"):
                reference = getattr(expected, output).numpy()
                found = getattr(logits, output)[:, : reference.shape[1]]
                used = np.arange(reference.shape[1]) < np.array([[len(video.features)] for video in videos])
                if output == "answer":
                    used = np.ones_like(reference, dtype=bool)
                graph = f"{ENCODERS} + {ANSWER_GRAPH}"
                results.append(compare(graph, output, case, len(videos), found, reference, used))
    return results


@torch.no_grad()
def _verify_statements(engine: Graphs, model: HeroForStatements, maker: CaseMaker) -> list[CaseResult]:
    results = []
    for name, videos in maker.whole_path_cases().items():
        texts = maker.texts(len(videos))
        found = score_statements(engine, list(zip(videos, texts, strict=True)))
        expected = model(pack_videos(videos, maker.geometry, texts=texts)).numpy()
        results.append(_whole(f"{ENCODERS} + {STATEMENT_GRAPH}", "truth", name, len(videos), found, expected))
    return results


@torch.no_grad()
def _verify_captions(engine: Graphs, model: HeroForCaptioning, maker: CaseMaker) -> list[CaseResult]:
    graph = f"{PREFILL_GRAPH} + {STEP_GRAPH}"
    results = []
    for name, videos in maker.whole_path_cases().items():
        packed = pack_videos(videos, maker.geometry)
        moments = _moments(videos)
        encoded = encode_packed(engine, packed)
        parts = [encoded[video][first:stop] for video, first, stop in moments.tolist()]
        step = GraphStep(engine, parts)
        for beam in (None, BeamConfig(BEAMS)):
            found = write_captions(engine, parts, beam)
            expected = model.caption(packed, moments, limit=step.limit, beam=beam)
            differ = [not np.array_equal(*pair) for pair in zip(found, expected, strict=True)]
            case = f"{name}, {'greedy' if beam is None else f'{BEAMS} beams'}"
            count = len(parts)
            results.append(
                _whole(graph, CAPTIONS, case, count, np.array(differ, np.float32), np.zeros(count, np.float32))
            )
        token_ids, used = _written(model.caption(packed, moments, limit=step.limit), step.limit)
        rows = np.arange(len(parts), dtype=np.int32)
        logits = [step(token_ids[:, place], place, rows) for place in range(token_ids.shape[1])]
        scores = model.scores(torch.from_numpy(token_ids), *model.encode_moments(packed, moments)).numpy()
        results.append(
            compare(graph, "logits", f"{name}, word by word", len(parts), np.stack(logits, axis=1), scores, used)
        )
    return results


def _moments(videos: Sequence[VideoInput]) -> IntArray:
    """Of each video the whole and its second half: (N, 3) video, first clip, clip after the last."""
    lengths = [len(video.features) for video in videos]
    spans = [(number, first, length) for number, length in enumerate(lengths) for first in sorted({0, length // 2})]
    return np.array(spans, dtype=np.int32)


def _written(captions: Sequence[IntArray], limit: int) -> tuple[IntArray, np.ndarray]:
    """What the decoder read for each caption, ``<s>`` in front, and where a word was asked for."""
    token_ids = np.full((len(captions), limit), BEGIN_ID, dtype=np.int32)
    used = np.zeros(token_ids.shape, dtype=bool)
    for row, caption in enumerate(captions):
        read = caption[: limit - 1]
        token_ids[row, 1 : 1 + len(read)] = read
        used[row, : 1 + len(read)] = True
    return token_ids, used


def verify_moment_head(runner: GraphRunner, manifest: Manifest, cases: Sequence[Case]) -> list[CaseResult]:
    """Compare the moment head's graph with the search of the SDK, which computes the same in numpy.

    Args:
        runner: of the graph.
        manifest: with the moment head's taps.
        cases: of the graph.
    """
    results = []
    for case in cases:
        found = runner.run(case.inputs)
        lengths = case.inputs["clip_mask"].sum(axis=1)
        expected = {name: np.zeros_like(found[name]) for name in ("start", "end")}
        for row in np.flatnonzero(lengths):
            clips = case.inputs["clips"][row, : lengths[row]]
            edges = span_logits(case.inputs["span_vector"][row], clips, manifest.require_moment())
            for name, logits in zip(expected, edges, strict=True):
                expected[name][row, : lengths[row]] = logits[0]
        results += [
            compare(
                f"{MOMENT_GRAPH} and numpy", name, case.name, len(lengths), found[name], expected[name], case.used[name]
            )
            for name in expected
        ]
    return results


def _whole(graph: str, output: str, case: str, batch: int, found: FloatArray, expected: FloatArray) -> CaseResult:
    """``compare`` where every vector, or every logit, means something."""
    vectors = expected.shape[:-1] if output == "clip_embeddings" else expected.shape
    return compare(graph, output, case, batch, found, expected, np.ones(vectors, dtype=bool))
