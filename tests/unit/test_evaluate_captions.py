"""The captions of a split: every moment gets one, scored against what people wrote, beside captions that nobody looked for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from hero_sdk.rows import RowGeometry, Segment, VideoInput, pack_videos
from hero_sdk.sentence_search import BeamConfig
from hero_sdk.tokens import TextTokenizer
from hero_train.caption_metrics import CAPTION_METRICS, METEOR, caption_scores
from hero_train.config import CaptioningConfig
from hero_train.data.captions import CaptionedMoment, CaptionVideo, EncodedMoment
from hero_train.errors import DataError
from hero_train.evaluate_captions import BATCH, BEAM, evaluate_captions, write_captions
from hero_train.model.captioning import HeroForCaptioning
from hero_train.model.layers import initialise
from hero_train.tokenizer import embedding_rows, train_tokenizer_json
from tests.tiny_training import tiny_config

GEOMETRY = RowGeometry(32, 16, 32)
LIMIT = 6
COUNT = BATCH + 3
TEXTS = ("the robot takes the gem", "they all go home", "a bird sings")
TRAINING = [*TEXTS, "they all go home"]
FASTER = {"limit": LIMIT, "meteor": False}


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer(train_tokenizer_json(TEXTS, 300))


@pytest.fixture(scope="module")
def model(tokenizer: TextTokenizer) -> HeroForCaptioning:
    base = tiny_config(vocab_size=embedding_rows(tokenizer.vocabulary_size), hidden_dropout=0.5)
    torch.manual_seed(3)
    model = HeroForCaptioning(dataclasses.replace(CaptioningConfig.of(base), decoder_positions=12))
    initialise(model, 0.5)
    return model.train()


def make_video(number: int, *, captioned: bool = True) -> CaptionVideo:
    """A video with one moment if its number is odd, with two if it is even, and with none if it is 3."""
    features = np.random.default_rng(number).standard_normal((4 + number % 3, 6), dtype=np.float32)
    segment = Segment(np.array([0, 1], np.int32), np.array([2, 5 + number], np.int32))
    moments = [
        EncodedMoment(
            CaptionedMoment(f"{number}-{place}", f"v{number}", 0.0, 1.0, TEXTS[: place + 1] if captioned else ()),
            place,
            place + 2,
            (),
        )
        for place in range(0 if number == 3 else 2 - number % 2)
    ]
    return CaptionVideo(f"v{number}", VideoInput(features, (segment,)), moments)


VIDEOS = [make_video(number) for number in range(COUNT)]
REFERENCES = {moment.annotation.moment_id: moment.annotation.captions for video in VIDEOS for moment in video.moments}


def alone(model: HeroForCaptioning, tokenizer: TextTokenizer, beam: BeamConfig | None = None) -> dict[str, str]:
    """The caption of each moment, one at a time."""
    written = {}
    training = model.training
    model.eval()
    for video in VIDEOS:
        for moment in video.moments:
            rows = np.array([[0, moment.first, moment.stop]])
            (tokens,) = model.caption(pack_videos([video.input], GEOMETRY), rows, limit=LIMIT, beam=beam)
            written[moment.annotation.moment_id] = tokenizer.decode(tokens)
    model.train(training)
    return written


@pytest.mark.parametrize("beam", [None, BeamConfig(3)])
def test_every_moment_gets_the_caption_that_it_gets_alone(
    model: HeroForCaptioning, tokenizer: TextTokenizer, beam: BeamConfig | None
) -> None:
    written = write_captions(model, VIDEOS, GEOMETRY, tokenizer, beam=beam, limit=LIMIT)
    assert list(written) == list(REFERENCES)
    assert written == alone(model, tokenizer, beam)
    assert len(set(written.values())) > 3, "the model always says the same"
    assert model.training


def test_the_scores_are_those_of_the_captions(model: HeroForCaptioning, tokenizer: TextTokenizer) -> None:
    beam = BeamConfig(3)
    found = evaluate_captions(model, VIDEOS, GEOMETRY, tokenizer, TRAINING, beam=beam, **FASTER)
    expected = {"all": alone(model, tokenizer), BEAM: alone(model, tokenizer, beam)}
    assert found.metrics == {
        name: caption_scores(written, REFERENCES, meteor=False).metrics for name, written in expected.items()
    }
    assert found.metrics["all"] != found.metrics[BEAM]
    assert found.counts == {
        "moments": len(REFERENCES),
        "captions": sum(map(len, REFERENCES.values())),
        "videos": COUNT,
    }
    assert set(found.absent) == set(CAPTION_METRICS) - set(found.metrics["all"]) == {METEOR}


def test_the_baselines_say_what_training_says(model: HeroForCaptioning, tokenizer: TextTokenizer) -> None:
    """The most frequent caption of training, and any of them, the same each time."""
    first, second = (evaluate_captions(model, VIDEOS, GEOMETRY, tokenizer, TRAINING, **FASTER) for _ in range(2))
    assert first == second
    frequent = caption_scores(dict.fromkeys(REFERENCES, "they all go home"), REFERENCES, meteor=False)
    assert first.baselines["frequent"] == frequent.metrics
    least = min(
        caption_scores(dict.fromkeys(REFERENCES, text), REFERENCES, meteor=False).metrics["BLEU-1"] for text in TEXTS
    )
    assert least < first.baselines["random"]["BLEU-1"] < 1.0
    assert set(first.baselines) == {"frequent", "random"}
    assert not evaluate_captions(model, VIDEOS, GEOMETRY, tokenizer, [], **FASTER).baselines


def test_moments_that_nobody_captioned_are_not_scored(model: HeroForCaptioning, tokenizer: TextTokenizer) -> None:
    mixed = [*VIDEOS, make_video(20, captioned=False)]
    assert len(write_captions(model, mixed, GEOMETRY, tokenizer, limit=LIMIT)) == len(REFERENCES) + 2
    found = evaluate_captions(model, mixed, GEOMETRY, tokenizer, [], **FASTER)
    assert found.counts["moments"] == len(REFERENCES)
    with pytest.raises(DataError, match="The split has no moment with a caption to evaluate"):
        evaluate_captions(model, mixed[-1:], GEOMETRY, tokenizer, [], **FASTER)


def test_a_split_without_moments_gets_no_caption(model: HeroForCaptioning, tokenizer: TextTokenizer) -> None:
    assert write_captions(model, [make_video(3)], GEOMETRY, tokenizer, limit=LIMIT) == {}
