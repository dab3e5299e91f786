"""What the benchmarks run on: made from a seed, of the promised sizes, and fitting the rows of any bundle."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from hero_bench.cases import GROUPS, Variant, make_cases
from hero_bench.workloads import TYPICAL_CLIPS, TYPICAL_SUBTITLES, WORDS, Workloads, write_corpus
from hero_sdk import Hero
from hero_sdk.hero import VideoFeatures
from hero_sdk.manifest import Manifest
from hero_sdk.rows import RowGeometry, pack_videos
from hero_sdk.tokens import TextTokenizer
from hero_sdk.video_inputs import video_inputs
from hero_train.tokenizer import train_tokenizer_json
from tests.unit.numpy_engine import IMAGE, NumpyEngine, make_manifest, tokenizer_json

WIDE = RowGeometry(slots=128, frames=64, temporal_slots=128, query_tokens=64)


def large_manifest() -> Manifest:
    manifest = make_manifest()
    model = dataclasses.replace(manifest.model, clip_limit=100, hidden_size=64)
    return dataclasses.replace(manifest, model=model, geometry=WIDE)


@pytest.fixture(scope="module")
def word_tokenizer() -> str:
    """Each of the words is one token, or two."""
    return train_tokenizer_json([" ".join(WORDS)] * 3, 900)


@pytest.fixture
def large(word_tokenizer: str) -> Workloads:
    return Workloads(large_manifest(), word_tokenizer)


def same_video(one: VideoFeatures, other: VideoFeatures) -> bool:
    return np.array_equal(one.features, other.features) and one.subtitles == other.subtitles


def test_the_same_arguments_give_the_same_input_in_any_order(large: Workloads) -> None:
    again = Workloads(large.manifest, large.tokenizer_json)
    assert again.images(2).tobytes() == large.images(2).tobytes()
    assert same_video(large.typical_video(3), again.typical_video(3))
    assert large.queries(8) == again.queries(8)
    assert np.array_equal(again.corpus_query().vector, large.corpus_query().vector)
    assert np.array_equal(again.encoded_videos(3)[2].clip_embeddings, large.encoded_videos(1, 2)[0].clip_embeddings)


def test_another_seed_or_number_gives_another_input(large: Workloads) -> None:
    other = dataclasses.replace(large, seed=1)
    assert not same_video(large.typical_video(), other.typical_video())
    assert not same_video(large.typical_video(), large.typical_video(1))
    assert large.queries(8) != other.queries(8)
    assert len(set(large.queries(64))) == 64


def test_queries_have_the_promised_tokens(large: Workloads) -> None:
    tokenizer = TextTokenizer(large.tokenizer_json)
    lengths = [len(tokenizer.encode_query(text)) for text in large.queries(100)]
    assert max(lengths) == 15
    assert np.mean(lengths) > 13


@pytest.mark.parametrize("query_tokens", [10, 12, 32])
def test_queries_fit_narrow_rows(query_tokens: int) -> None:
    """With a tokenizer that has a token per letter, where a word alone has up to nine."""
    manifest = make_manifest()
    geometry = dataclasses.replace(manifest.geometry, query_tokens=query_tokens)
    workloads = Workloads(dataclasses.replace(manifest, geometry=geometry), tokenizer_json())
    tokenizer = TextTokenizer(tokenizer_json())
    assert all(1 < len(tokenizer.encode_query(text)) <= query_tokens for text in workloads.queries(200))


def test_a_typical_video_is_like_television(large: Workloads) -> None:
    video = large.typical_video()
    assert video.features.shape == (TYPICAL_CLIPS, large.manifest.model.feature_dim)
    assert video.features.dtype == np.float32
    assert video.duration == TYPICAL_CLIPS * 1.5
    assert len(video.subtitles) == TYPICAL_SUBTITLES
    assert all(line.start < line.end <= 75 for line in video.subtitles)
    assert all(line.end < following.start for line, following in pairwise(video.subtitles))
    tokenizer = TextTokenizer(large.tokenizer_json)
    lengths = [
        len(tokenizer.encode_subtitle(line.text)) for n in range(20) for line in large.typical_video(n).subtitles
    ]
    assert 9 < np.mean(lengths) < 13
    assert np.std(lengths) > 5
    assert max(lengths) <= 40


def test_a_long_video_goes_through_several_windows(large: Workloads) -> None:
    video = large.long_video()
    assert len(video.features) == 400
    tokenizer = TextTokenizer(large.tokenizer_json)
    assert len(video_inputs(video.features, video.subtitles, tokenizer, large.manifest.model)) > 4


@pytest.mark.parametrize("context", [0, 2])
@pytest.mark.parametrize(("slots", "frames"), [(16, 8), (32, 16), (48, 24), (128, 64)])
def test_no_text_of_a_video_is_cut(slots: int, frames: int, context: int, word_tokenizer: str) -> None:
    manifest = make_manifest()
    model = dataclasses.replace(manifest.model, subtitle_context=context)
    geometry = dataclasses.replace(manifest.geometry, slots=slots, frames=frames)
    workloads = Workloads(dataclasses.replace(manifest, model=model, geometry=geometry), word_tokenizer)
    tokenizer = TextTokenizer(word_tokenizer)
    for video in (workloads.typical_video(), workloads.video(1, 1), workloads.long_video()):
        windows = video_inputs(video.features, video.subtitles, tokenizer, model)
        packed = pack_videos([window for _, window in windows], geometry)
        assert packed.cut_tokens == 0
        # Every subtitle is spoken over some clip, so that there is something to match with it.
        assert sum(len(segment.frames) > 0 for _, window in windows for segment in window.segments) >= len(
            video.subtitles
        )


def test_images_are_what_the_frame_encoder_takes(large: Workloads) -> None:
    images = large.images(3)
    assert (images.shape, images.dtype) == ((3, IMAGE, IMAGE, 3), np.uint8)
    assert len(np.unique(images)) > 100


def test_embeddings_of_a_corpus_are_clustered(large: Workloads) -> None:
    videos = [video.clip_embeddings for video in large.encoded_videos(40)]
    assert all(20 <= len(clips) <= 80 for clips in videos)
    assert len({len(clips) for clips in videos}) > 10
    unit = [clips / np.linalg.norm(clips, axis=1, keepdims=True) for clips in videos]
    within = np.mean([(clips @ clips.T).mean() for clips in unit])
    between = np.mean([(a @ b.T).mean() for a, b in pairwise(unit)])
    assert within > 0.7
    assert between < 0.3


def test_a_corpus_has_the_videos_and_answers(tmp_path: Path) -> None:
    hero = Hero(NumpyEngine())
    workloads = Workloads(hero.manifest, tokenizer_json())
    corpus = write_corpus(workloads, hero, tmp_path / "corpus", 253)
    assert len(corpus) == len(set(corpus.video_ids())) == 253
    stored = corpus.search(workloads.corpus_query(), top_k=5, exact=True)
    assert len(stored) == 5
    assert {moment.video_id for moment in stored} <= set(corpus.video_ids())
    found = {hit.video_id: hit.score for hit in corpus.search_videos(workloads.corpus_query(), top_k=3, exact=True)}
    query = workloads.corpus_query().vector
    cosines = {}
    for number, video in enumerate(workloads.encoded_videos(253)):
        clips = video.clip_embeddings
        products = clips @ query / np.linalg.norm(clips, axis=1) / np.linalg.norm(query)
        cosines[f"video {number}"] = float(products.max())
    best = sorted(cosines, key=lambda name: -cosines[name])[:3]
    assert found == pytest.approx({name: cosines[name] for name in best}, abs=2e-3)


def test_each_group_of_cases_covers_every_variant_that_can(tmp_path: Path) -> None:
    hero = Hero(NumpyEngine())
    variants = [Variant("bare model", hero, None), Variant("engine", hero, NumpyEngine())]
    workloads = Workloads(hero.manifest, tokenizer_json())

    def names(*groups: str) -> dict[str, list[str]]:
        cases = make_cases(variants, workloads, groups=groups, hero=hero, folder=tmp_path, corpus_sizes=(3, 5))
        return {case.name: list(case.calls) for case in cases}

    both = ["bare model", "engine"]
    assert names("query") == {"encode a query": both, "encode 8 queries": both}
    assert list(names("video").values()) == [both] * 3
    assert names("frames") == {"encode a frame": ["engine"], "encode 32 frames": ["engine"]}
    assert not any(tmp_path.iterdir())
    everything = names(*GROUPS)
    assert len(everything) == 9
    assert everything["search 5 videos"] == ["default", "exact"]


def test_a_case_calls_what_it_says(tmp_path: Path) -> None:
    engine = NumpyEngine()
    hero = Hero(engine)
    workloads = Workloads(hero.manifest, tokenizer_json())
    cases = make_cases(
        [Variant("engine", hero, engine)], workloads, groups=GROUPS, hero=hero, folder=tmp_path, corpus_sizes=(3,)
    )
    graphs = {}
    for case in cases:
        engine.calls.clear()
        result = case.calls["engine" if "engine" in case.calls else "default"]()
        graphs[case.name] = list(engine.calls)
        if case.output is not None:
            rows = case.items * 2 if case.unit == "query" else case.items
            assert len(case.output(result)) == rows, case.name
    video = ["cross_modal", "temporal"]
    assert list(graphs.values()) == [["query"], ["query"], ["frames"], ["frames"], [], video, video, video]
