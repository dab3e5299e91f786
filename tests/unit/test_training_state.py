"""Checkpoints of a run: whole or absent, without pickle, and enough to go on bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.optim import AdamW

from hero_train.checkpoint import WEIGHTS_FILE
from hero_train.errors import CheckpointError
from hero_train.model.hero import HeroModel
from hero_train.optimisation import build_optimiser
from hero_train.run_config import OptimisationSection
from hero_train.training_state import (
    MOMENTS_FILE,
    STATE_FILE,
    latest_state,
    load_state,
    prune_states,
    save_state,
)
from tests.tiny_training import tiny_config


def make(seed: int, **changes: int) -> tuple[HeroModel, AdamW]:
    torch.manual_seed(seed)
    model = HeroModel(tiny_config(**changes))
    return model, build_optimiser(model, OptimisationSection(learning_rate=0.01))


def train(model: HeroModel, optimiser: AdamW, steps: range) -> None:
    """Steps towards something that depends on the step, over all parameters but those of the temporal encoder."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        loss = sum(
            ((parameter - torch.randn(parameter.shape, generator=generator)) ** 2).sum()
            for name, parameter in model.named_parameters()
            if not name.startswith("temporal.")
        )
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()


def same_bits(one: HeroModel, other: HeroModel) -> bool:
    return all(
        tensor.numpy().tobytes() == other.state_dict()[name].numpy().tobytes()
        for name, tensor in one.state_dict().items()
    )


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    whole, optimiser = make(0)
    train(whole, optimiser, range(6))

    first, optimiser = make(0)
    train(first, optimiser, range(4))
    checkpoint = save_state(tmp_path, first, optimiser, 4, {"best": 0.5})
    second, optimiser = make(1)
    assert not same_bits(first, second)
    assert load_state(checkpoint, second, optimiser) == (4, {"best": 0.5})
    assert same_bits(first, second)
    train(second, optimiser, range(4, 6))
    assert same_bits(whole, second)


def test_without_the_optimisers_moments_it_would_end_elsewhere(tmp_path: Path) -> None:
    """What the test above shows about the moments."""
    whole, optimiser = make(0)
    train(whole, optimiser, range(6))
    second, optimiser = make(0)
    train(second, optimiser, range(4))
    second_optimiser = build_optimiser(second, OptimisationSection(learning_rate=0.01))
    train(second, second_optimiser, range(4, 6))
    assert not same_bits(whole, second)


def test_a_checkpoint_holds_no_pickle(tmp_path: Path) -> None:
    model, optimiser = make(0)
    train(model, optimiser, range(1))
    checkpoint = save_state(tmp_path, model, optimiser, 1, {})
    assert {path.name for path in checkpoint.iterdir()} == {"config.json", WEIGHTS_FILE, MOMENTS_FILE, STATE_FILE}
    assert json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8")) == {"step": 1, "numbers": {}, "scaler": {}}


def test_a_checkpoint_before_the_first_step_can_be_resumed(tmp_path: Path) -> None:
    model, optimiser = make(0)
    checkpoint = save_state(tmp_path, model, optimiser, 0, {})
    other, other_optimiser = make(1)
    assert load_state(checkpoint, other, other_optimiser) == (0, {})
    assert same_bits(model, other)


@pytest.mark.parametrize("writer", ["hero_train.training_state.save_file", "hero_train.checkpoint.save_file"])
def test_a_save_that_fails_leaves_the_earlier_checkpoint_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    model, optimiser = make(0)
    train(model, optimiser, range(1))
    earlier = save_state(tmp_path, model, optimiser, 1, {})

    def full_disk(tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writer, full_disk)
        with pytest.raises(OSError, match="No space left"):
            save_state(tmp_path, model, optimiser, 2, {})
    assert latest_state(tmp_path) == earlier
    load_state(earlier, model, optimiser)
    later = save_state(tmp_path, model, optimiser, 2, {})
    assert latest_state(tmp_path) == later
    assert sorted(tmp_path.iterdir()) == [earlier, later]


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    model, optimiser = make(0)
    save_state(tmp_path, model, optimiser, 3, {"best": 0.1})
    checkpoint = save_state(tmp_path, model, optimiser, 3, {"best": 0.2})
    assert load_state(checkpoint, model, optimiser) == (3, {"best": 0.2})
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_the_newest_is_the_one_of_the_highest_step(tmp_path: Path) -> None:
    model, optimiser = make(0)
    assert latest_state(tmp_path / "nowhere") is None
    assert latest_state(tmp_path) is None
    for step in (20, 1_000_000, 999_999, 3):
        save_state(tmp_path, model, optimiser, step, {})
    newest = latest_state(tmp_path)
    assert newest is not None
    assert load_state(newest, model, optimiser)[0] == 1_000_000


def test_a_folder_that_somebody_made_is_no_checkpoint(tmp_path: Path) -> None:
    model, optimiser = make(0)
    checkpoint = save_state(tmp_path, model, optimiser, 1, {})
    (tmp_path / "step-000002-copy").mkdir()
    assert latest_state(tmp_path) == checkpoint
    prune_states(tmp_path, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000001", "step-000002-copy"]


def test_pruning_keeps_the_newest(tmp_path: Path) -> None:
    model, optimiser = make(0)
    kept = [save_state(tmp_path, model, optimiser, step, {}) for step in (2, 10, 999_999, 1_000_000)][2:]
    prune_states(tmp_path, 2)
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    prune_states(tmp_path, 5)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (STATE_FILE, None),
        (STATE_FILE, b"{"),
        (STATE_FILE, b"[]"),
        (STATE_FILE, b'{"step": 1}'),
        (STATE_FILE, b'{"step": null, "numbers": {}, "scaler": {}}'),
        (MOMENTS_FILE, None),
        (MOMENTS_FILE, b"not safetensors"),
        (WEIGHTS_FILE, None),
        (WEIGHTS_FILE, b""),
    ],
)
def test_a_checkpoint_that_is_not_whole_is_refused(tmp_path: Path, file: str, content: bytes | None) -> None:
    model, optimiser = make(0)
    train(model, optimiser, range(1))
    checkpoint = save_state(tmp_path, model, optimiser, 1, {})
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    (checkpoint / file).unlink()
    if content is not None:
        (checkpoint / file).write_bytes(content)
    with pytest.raises(CheckpointError, match="step-000001"):
        load_state(checkpoint, model, optimiser)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path) -> None:
    model, optimiser = make(0)
    checkpoint = save_state(tmp_path, model, optimiser, 1, {})
    other, other_optimiser = make(0, temporal_layers=2)
    with pytest.raises(
        CheckpointError, match=r"another architecture .*temporal_layers=1.* instead of .*temporal_layers=2"
    ):
        load_state(checkpoint, other, other_optimiser)


def test_the_scale_of_half_precision_is_part_of_the_state(tmp_path: Path) -> None:
    """A resumed run that began with another scale would skip other steps."""
    model, optimiser = make(0)
    train(model, optimiser, range(1))
    scaler = torch.amp.GradScaler("cpu", init_scale=512.0, growth_interval=3)
    scaler.scale(torch.ones(1))
    checkpoint = save_state(tmp_path, model, optimiser, 1, {}, scaler)
    other = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
    load_state(checkpoint, model, optimiser, other)
    assert other.state_dict() == scaler.state_dict()
    assert other.get_scale() == 512.0
