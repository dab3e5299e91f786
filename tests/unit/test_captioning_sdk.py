"""Captions through the SDK, on the graphs' modules: token for token the model's own, greedy and with beams."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hero_sdk import BundleError, EncodedVideo, InputError, VideoFeatures
from hero_sdk.captioning import WRITTEN_TOGETHER, GraphStep, write_captions
from hero_sdk.manifest import CAPTIONING
from hero_sdk.rows import Segment, VideoInput, pack_videos
from hero_sdk.sentence_search import BeamConfig
from hero_sdk.tokens import TextTokenizer
from hero_train.model.captioning import HeroForCaptioning
from tests.tiny_checkpoint import CAPTION_TOKENS, CONFIG, TEXT_GEOMETRY, make_task_model
from tests.tiny_videos_in_memory import odd_videos
from tests.torch_engine import torch_hero


@pytest.fixture(scope="module")
def model() -> HeroForCaptioning:
    model = make_task_model(CAPTIONING, seed=3)
    assert isinstance(model, HeroForCaptioning)
    with torch.no_grad():  # so that some captions end before their limit
        model.language.bias[2] += 0.6
    return model


def moments() -> tuple[list[VideoInput], np.ndarray]:
    """Videos, and in each the whole, its first clip and its last."""
    rng = np.random.default_rng(0)
    lengths = [1, 5, CONFIG.clip_limit, 8, 13, 3]
    spoken = (Segment(np.zeros(1, np.int32), np.full(2, 2, np.int32)),)
    videos = [
        VideoInput(rng.exponential(0.5, (length, CONFIG.feature_dim)).astype(np.float32), spoken) for length in lengths
    ]
    spans = [
        (number, *span) for number, length in enumerate(lengths) for span in ((0, length), (0, 1), (length - 1, length))
    ]
    return videos, np.array(spans, np.int32)


@pytest.mark.parametrize("beam", [None, BeamConfig(1), BeamConfig(4), BeamConfig(3, length_penalty=0.0)])
def test_captions_are_the_models_token_for_token(model: HeroForCaptioning, beam: BeamConfig | None) -> None:
    _, engine = torch_hero(model)
    videos, spans = moments()
    packed = pack_videos(videos, TEXT_GEOMETRY)
    with torch.no_grad():
        clips = packed.unpack(model.encode_videos(packed).numpy())
    parts = [clips[video][first:stop] for video, first, stop in spans]
    assert len(parts) > WRITTEN_TOGETHER
    found = write_captions(engine, parts, beam)
    expected = model.caption(packed, spans, limit=CAPTION_TOKENS, beam=beam)
    assert [one.tolist() for one in found] == [one.tolist() for one in expected]
    assert len({len(one) for one in found}) > 1, "no caption ended early, so the end was never met"


def test_captions_that_have_ended_take_no_place_in_a_step(model: HeroForCaptioning) -> None:
    _, engine = torch_hero(model)
    rng = np.random.default_rng(1)
    parts = [rng.standard_normal((clips, CONFIG.hidden_size), dtype=np.float32) for clips in (2, 9, 4, 7)]
    engine.calls.clear()
    lengths = [len(one) for one in write_captions(engine, parts)]
    batches = [batch for graph, batch in engine.calls if graph == "caption_step"]
    steps = range(min(max(lengths) + 1, CAPTION_TOKENS))
    assert batches == [sum(length >= step for length in lengths) for step in steps]


def test_a_moment_longer_than_the_decoder_reads_is_refused_in_seconds(model: HeroForCaptioning) -> None:
    _, engine = torch_hero(model)
    limit = CONFIG.clip_limit
    with pytest.raises(
        InputError, match=rf"has {limit + 1} clips and the bundle captions moments of up to {limit} \(30 s\)"
    ):
        GraphStep(engine, [np.zeros((limit + 1, CONFIG.hidden_size), np.float32)])


def test_a_caption_of_a_moment(model: HeroForCaptioning) -> None:
    hero, engine = torch_hero(model)
    tokenizer = TextTokenizer(engine.tokenizer_json)
    for video in odd_videos():
        length = video.seconds(CONFIG.clip_interval)
        encoded = hero.encode_many([video])[0]
        for start, end in ((0.0, min(length, 30.0)), (length / 2, length / 2 + 0.1), (0.2, 100.0)):
            if end == 100.0 and length > 30:
                continue
            captions = {beams: hero.caption(video, start, end, beams=beams) for beams in (1, 3)}
            for caption in captions.values():
                assert caption.start <= start < caption.end <= length
            assert hero.caption(encoded, start, end) == captions[1]
        (first, second) = hero.caption_many(encoded, [(0, 1.5), (length - 0.1, length)])
        assert (first.start, first.end) == (0, min(1.5, length))
        assert second.end == length
        (ids,) = write_captions(engine, [encoded.clip_embeddings[:1]])
        assert first.text == tokenizer.decode(ids)
    assert hero.caption_many(odd_videos()[0], []) == []


@pytest.mark.parametrize(
    ("start", "end"), [(-1, 2), (2, 2), (3, 2), (30, 31), (0, float("nan")), (0, float("inf")), (float("nan"), 1)]
)
def test_what_is_no_moment_of_the_video(model: HeroForCaptioning, start: float, end: float) -> None:
    hero, _ = torch_hero(model)
    with pytest.raises(InputError, match=r"is .* s of a video of 30\.0 s; expected 0 <= start < end"):
        hero.caption(odd_videos()[3], start, end)


def test_what_cannot_be_captioned(model: HeroForCaptioning) -> None:
    hero, _ = torch_hero(model)
    with pytest.raises(InputError, match="beam width is 0"):
        hero.caption(odd_videos()[0], 0, 1, beams=0)
    with pytest.raises(InputError, match="features of shape"):
        hero.caption(VideoFeatures(np.zeros((3, 5), np.float32)), 0, 1)
    with pytest.raises(InputError, match="clip embeddings of shape"):
        hero.caption(EncodedVideo(np.zeros((3, 5), np.float32), 1.5, 4.5, ()), 0, 1)
    with pytest.raises(
        BundleError, match=r"bundle is for captioning, and Hero\.answer needs one for question answering"
    ):
        hero.answer(odd_videos()[0], "who", ["a", "b"])
