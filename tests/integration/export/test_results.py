"""The graphs of a bundle compute what the model computes, and the comparison would have shown it otherwise."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch

import hero_sdk
from hero_export.onnx.graphs import graphs_of
from hero_export.report import CaseResult
from hero_export.verification.cases import CaseMaker
from hero_export.verification.comparison import MAX_RELATIVE_ERROR, MIN_COSINE, GraphRunner, verify_graph
from hero_sdk.hero import VideoFeatures
from hero_sdk.manifest import ModelSpec, read_bundle
from hero_sdk.tokens import TextTokenizer
from hero_sdk.types import FloatArray
from hero_sdk.video_inputs import video_inputs
from hero_sdk.windows import merge_windows
from hero_train.model import encoders
from hero_train.model.hero import HeroModel
from tests.integration.export.exported import Exported
from tests.tiny_checkpoint import CONFIG, GEOMETRY, MAX_BATCH, SENTENCES
from tests.tiny_videos_in_memory import odd_videos


def encode_alone(model: HeroModel, video: VideoFeatures, tokenizer: TextTokenizer, spec: ModelSpec) -> FloatArray:
    """Clip embeddings by the model in PyTorch, each subtitle in a row of its own length and each window by itself: no packing."""
    parts = []
    for clips, window in video_inputs(video.features, video.subtitles, tokenizer, spec):
        features = torch.from_numpy(np.ascontiguousarray(window.features))
        matched = torch.zeros(len(features), CONFIG.hidden_size)
        for segment in window.segments:
            frames, tokens = torch.from_numpy(segment.frames).long(), torch.from_numpy(segment.tokens).long()
            if len(frames):
                count = len(frames)
                index = torch.cat([torch.arange(count), torch.full_like(tokens, -1)])
                ids = torch.cat([torch.ones(count, dtype=torch.long), tokens])
                positions = torch.cat([torch.arange(count), torch.arange(len(tokens))])
                inputs = (features[frames], index, ids, positions, torch.ones_like(index))
                hidden = model.cross_modal(*(tensor[None] for tensor in inputs))[0]
                for slot, frame in enumerate(frames.tolist()):
                    matched[frame] += hidden[slot]
        places = torch.arange(len(features))
        clip = model.temporal(features[None], matched[None], places[None], torch.ones_like(places)[None])[0]
        parts.append((clips, clip.numpy()))
    return merge_windows(parts)


@pytest.mark.parametrize("videos", [[video] for video in odd_videos()] + [odd_videos() * 3])
def test_videos_of_odd_shapes_give_what_the_model_gives(
    exported: Exported, model: HeroModel, videos: list[VideoFeatures]
) -> None:
    with hero_sdk.load(exported.bundle, threads=1) as hero:
        found = hero.encode_many(videos)
        tokenizer = TextTokenizer((exported.bundle / "tokenizer.json").read_text(encoding="utf-8"))
        with torch.no_grad():
            expected = [encode_alone(model, video, tokenizer, hero.manifest.model) for video in videos]
    for video, result, reference in zip(videos, found, expected, strict=True):
        assert result.clip_embeddings.shape == (len(video.features), CONFIG.hidden_size)
        np.testing.assert_allclose(result.clip_embeddings, reference, rtol=0, atol=2e-5)


def test_queries_give_what_the_model_gives_without_padding(exported: Exported, model: HeroModel) -> None:
    texts = [*SENTENCES, "a", "THE ROBOT", "the robot takes a red gem " * 5]
    with hero_sdk.load(exported.bundle, threads=1) as hero:
        found = hero.encode_queries(texts)
    tokenizer = TextTokenizer((exported.bundle / "tokenizer.json").read_text(encoding="utf-8"))
    for text, query in zip(texts, found, strict=True):
        tokens = torch.from_numpy(tokenizer.encode_query(text.strip())[: GEOMETRY.query_tokens])[None]
        with torch.no_grad():
            expected = model.encode_queries(tokens, torch.ones_like(tokens))
        np.testing.assert_allclose(query.vector, expected.vector[0].numpy(), rtol=0, atol=2e-5)
        np.testing.assert_allclose(query.span_vector, expected.span_vector[0].numpy(), rtol=0, atol=2e-5)


def test_the_manifests_moment_head_is_the_models(exported: Exported, model: HeroModel) -> None:
    moment = read_bundle(exported.bundle).moment
    rng = np.random.default_rng(0)
    clips = rng.standard_normal((9, CONFIG.hidden_size), dtype=np.float32)
    span = rng.standard_normal(CONFIG.hidden_size, dtype=np.float32)
    mask = torch.ones(1, 9, dtype=torch.bool)
    with torch.no_grad():
        expected = model.moment.span_logits(torch.from_numpy(span[None]), torch.from_numpy(clips[None]), mask)
    for taps, logits in zip((moment.start_taps, moment.end_taps), expected, strict=True):
        found = np.correlate(clips @ span, taps, mode="same")
        np.testing.assert_allclose(found, logits[0, 0].numpy(), rtol=0, atol=1e-4)
    assert (moment.min_clips, moment.max_clips) == (CONFIG.min_span_clips, CONFIG.max_span_clips)


def half_precision(model: HeroModel) -> None:
    for weight in model.parameters():
        weight.copy_(weight.half().float())


def positions_off_by_one(model: HeroModel) -> None:
    for part in ("cross_modal.text", "cross_modal.frames", "temporal", "query"):
        table = model.get_parameter(f"{part}.position.weight")
        table.copy_(table.roll(1, 0))


def one_weight(model: HeroModel) -> None:
    for stage in ("cross_modal", "temporal"):
        model.get_parameter(f"{stage}.layers.0.output.weight")[0, 0] += 0.1


def compared(exported: Exported, model: HeroModel) -> dict[str, list[CaseResult]]:
    """The exported graphs against a model in PyTorch, on the grid."""
    specs = read_bundle(exported.bundle).graphs
    maker = CaseMaker(CONFIG, GEOMETRY, MAX_BATCH)
    return {
        graph.name: verify_graph(
            GraphRunner(graph.name, exported.bundle / graph.file, specs[graph.name]),
            graph.module,
            maker.cases_of(graph),
        )
        for graph in graphs_of(model, GEOMETRY).values()
    }


def test_rounding_is_far_below_the_tolerance(exported: Exported, model: HeroModel) -> None:
    for results in compared(exported, model).values():
        assert all(result.passed for result in results)
        assert max(result.relative_error for result in results) < MAX_RELATIVE_ERROR / 20
        assert min(result.cosine for result in results) > 1 - (1 - MIN_COSINE) / 1000


@pytest.mark.parametrize("alter", [half_precision, positions_off_by_one, one_weight])
def test_a_model_with_other_weights_fails_in_every_graph(
    exported: Exported, model: HeroModel, alter: Callable[[HeroModel], None]
) -> None:
    altered = deepcopy(model)
    with torch.no_grad():
        alter(altered)
    for graph, results in compared(exported, altered).items():
        assert not all(result.passed for result in results) or (graph == "moment" and alter is not half_precision)


@pytest.mark.parametrize("mask", [torch.ones_like, torch.tril], ids=["none", "causal"])
def test_another_attention_mask_fails_in_every_graph(
    exported: Exported, model: HeroModel, monkeypatch: pytest.MonkeyPatch, mask: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    right = encoders.segment_mask
    monkeypatch.setattr(encoders, "segment_mask", lambda segment_ids: mask(right(segment_ids)))
    for graph, results in compared(exported, model).items():
        assert not all(result.passed for result in results) or graph == "moment"
