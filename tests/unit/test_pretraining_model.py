"""The model of pre-training: what it keeps for fine-tuning, and that every task teaches it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from hero_sdk.rows import RowGeometry, Segment, VideoInput, pack_videos
from hero_sdk.tokens import SEPARATOR_ID
from hero_train.data.masking import WordIds
from hero_train.data.pretraining import TASKS, PretrainingSampler, PretrainingSampling, TaskMix, frame_batch
from hero_train.errors import CheckpointError
from hero_train.losses import RetrievalLossConfig
from hero_train.model.hero import HeroModel
from hero_train.model.pretraining import HeroForPretraining
from hero_train.official_models import PRETRAINING, task_model_from_official
from hero_train.tasks.pretraining import PretrainingTask
from tests.parity.oracle import read_dump
from tests.tiny_training import tiny_config

IDS = WordIds(39, np.arange(4, 39, dtype=np.int32))
GEOMETRY = RowGeometry(slots=24, frames=12, temporal_slots=16, query_tokens=8)


def make_videos(count: int = 4) -> list[VideoInput]:
    """Videos of random features with three subtitles of random words."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(count):
        segments = tuple(
            Segment(
                np.arange(start, start + 3, dtype=np.int32),
                np.concatenate([[SEPARATOR_ID], rng.choice(IDS.words, 4)]).astype(np.int32),
            )
            for start in (0, 3, 6)
        )
        made.append(VideoInput(rng.standard_normal((10, 6), dtype=np.float32), segments))
    return made


def rngs() -> list[np.random.Generator]:
    return [np.random.default_rng([1, number]) for number in range(4)]


def make_model(seed: int = 0) -> HeroForPretraining:
    torch.manual_seed(seed)
    return HeroForPretraining(tiny_config(initializer_range=0.2), vocabulary=40)


def test_only_masked_frames_begin_with_an_embedding_and_only_it_learns() -> None:
    model = make_model()
    batch = frame_batch(make_videos(), rngs(), GEOMETRY)
    PretrainingTask(model, RetrievalLossConfig())(batch).backward()
    for table in (model.cross_modal_mask, model.temporal_mask):
        assert not table.weight[0].any()
        assert table.weight[1].any()
        assert table.weight.grad is not None
        assert not table.weight.grad[0].any()
        assert table.weight.grad[1].any()


def test_without_masked_frames_the_encoder_is_that_of_retrieval() -> None:
    model = make_model().eval()
    packed = pack_videos(make_videos(), GEOMETRY)
    none = {
        "cross_modal": np.zeros(packed.cross_modal.frame_features.shape[:2], dtype=bool),
        "temporal": np.zeros(packed.temporal.segment_ids.shape, dtype=bool),
    }
    torch.testing.assert_close(model.encode_masked_videos(packed, none), model.encode_videos(packed), rtol=0, atol=0)


def test_padding_of_the_rows_is_no_frame_to_tell_from_a_masked_one() -> None:
    """The authors count the padding of a batch among the other frames."""
    task = PretrainingTask(make_model().eval(), RetrievalLossConfig())
    tight, loose = (
        task(frame_batch(make_videos(), rngs(), dataclasses.replace(GEOMETRY, temporal_slots=slots)))
        for slots in (10, 16)
    )
    torch.testing.assert_close(loose, tight, rtol=1e-6, atol=1e-6)


def test_words_beyond_the_vocabulary_are_predicted_by_nobody() -> None:
    model = HeroForPretraining(tiny_config(vocab_size=40), vocabulary=37)
    assert model.word_logits(torch.zeros(3, 16)).shape == (3, 37)
    assert HeroForPretraining(tiny_config(vocab_size=40)).word_logits(torch.zeros(3, 16)).shape == (3, 40)


def test_the_word_head_is_tied_to_the_word_embeddings() -> None:
    model = make_model()
    hidden = torch.randn(2, 16)
    before = model.word_logits(hidden)
    with torch.no_grad():
        model.cross_modal.text.word.weight[7] += 1
    changed = (model.word_logits(hidden) != before).any(dim=0)
    assert changed.nonzero().flatten().tolist() == [7]


def test_the_retrieval_model_is_what_fine_tuning_loads(tmp_path: Path) -> None:
    model = make_model().eval()
    packed = pack_videos(make_videos(), GEOMETRY)
    model.retrieval_model().save_pretrained(tmp_path)
    loaded = HeroModel.from_pretrained(tmp_path)
    assert torch.equal(loaded.encode_videos(packed), model.encode_videos(packed))
    token_ids, segment_ids = torch.tensor([[0, 5, 6]]), torch.ones(1, 3, dtype=torch.int32)
    ours, theirs = (one.encode_queries(token_ids, segment_ids).span_vector for one in (loaded, model))
    assert torch.equal(ours, theirs)


def test_a_saved_model_is_loaded_whole(tmp_path: Path) -> None:
    model = make_model()
    model.save_pretrained(tmp_path)
    loaded = HeroForPretraining.from_pretrained(tmp_path)
    state = model.state_dict()
    assert loaded.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())


def test_a_checkpoint_that_pretraining_did_not_write_is_refused() -> None:
    state = dict(read_dump("pretrain_state_dict")["state_dict"])
    del state["v_encoder.fom_output.linear_2.bias"]
    with pytest.raises(CheckpointError, match=r"no v_encoder\.fom_output\.linear_2\.bias.*Leave the task out"):
        task_model_from_official(state, PRETRAINING)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_learnt(task: str) -> None:
    """A model that knows four videos by heart does much better on them than one that does not."""
    mix = TaskMix(**{name: float(name == task) for name in TASKS})
    drawn = PretrainingSampler(
        make_videos(), IDS, PretrainingSampling(videos=4, mix=mix, share=0.3, span_dropout=0.0), GEOMETRY, seed=3
    )
    learner = PretrainingTask(make_model(), RetrievalLossConfig(span_weight=1.0))
    optimiser = torch.optim.Adam(learner.parameters(), lr=5e-3)

    def mean_loss() -> float:
        with torch.no_grad():
            return float(torch.stack([learner(drawn.batch(step)) for step in range(1000, 1010)]).mean())

    before = mean_loss()
    for step in range(120):
        optimiser.zero_grad()
        learner(drawn.batch(step)).backward()
        optimiser.step()
    assert mean_loss() < 0.7 * before
