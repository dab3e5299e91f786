"""The cross-modal encoder starts with the weights that the authors' loading of a RoBERTa gives it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from hero_train.config import HeroConfig
from hero_train.initial import start_model
from hero_train.model.hero import HeroModel
from hero_train.model.pretraining import HeroForPretraining
from hero_train.official_names import our_name
from hero_train.roberta import load_roberta
from tests.parity.oracle import oracle_folder, read_dump

FRAMES = ("cross_modal.frames.",)
FRESH = (*FRAMES, "cross_modal_mask.")


@pytest.fixture(scope="module")
def dump() -> dict[str, Any]:
    return dict(read_dump("partial_load"))


@pytest.fixture(scope="module")
def config(dump: dict[str, Any]) -> HeroConfig:
    """The sizes of the authors' encoder, from its configuration and from what is no part of RoBERTa."""
    sizes = json.loads((oracle_folder() / "config" / "hero_finetune.json").read_text())["f_config"]
    after = dump["f_encoder_after"]
    return HeroConfig(
        vocab_size=sizes["vocab_size"],
        feature_dim=after["img_embeddings.img_linear.weight"].shape[1],
        hidden_size=sizes["hidden_size"],
        num_heads=sizes["num_attention_heads"],
        intermediate_size=sizes["intermediate_size"],
        cross_modal_layers=sizes["num_hidden_layers"],
        text_positions=sizes["max_position_embeddings"],
    )


def test_every_weight_is_theirs(dump: dict[str, Any], config: HeroConfig) -> None:
    model = HeroModel(config)
    load_roberta(model, dump["roberta"])
    weights = {name: weight for name, weight in model.state_dict().items() if name.startswith("cross_modal.")}
    compared = set()
    for name, expected in dump["f_encoder_after"].items():
        ours = our_name(f"v_encoder.f_encoder.{name}")
        if ours in weights and not ours.startswith(FRAMES):
            assert torch.equal(weights[ours], expected), ours
            compared.add(ours)
    assert compared == {name for name in weights if not name.startswith(FRAMES)}


def test_a_file_of_theirs_starts_pretraining_with_their_word_head(
    dump: dict[str, Any], config: HeroConfig, tmp_path: Path
) -> None:
    """Their ``pretrain-tv-init.bin`` has the head of masked language modelling too."""
    torch.save(dump["roberta"], tmp_path / "pretrain-tv-init.bin")
    decided = ("vocab_size", "feature_dim", "hidden_size", "intermediate_size", "text_positions")
    entries = {name: value for name, value in dataclasses.asdict(config).items() if name not in decided}
    vocabulary = config.vocab_size - dump["vocab_pad"]
    model, report = start_model(
        HeroForPretraining,
        f"roberta:{tmp_path / 'pretrain-tv-init.bin'}",
        entries,
        feature_dim=config.feature_dim,
        vocabulary=vocabulary,
    )
    weights, compared = model.state_dict(), set()
    for name, expected in dump["f_encoder_after"].items():
        ours = our_name(f"v_encoder.f_encoder.{name}")
        if ours in weights and not ours.startswith(FRESH):
            assert torch.equal(weights[ours], expected), ours
            compared.add(ours)
    assert compared == {
        name for name in weights if name.startswith(("cross_modal.", "language.")) and name not in report.fresh
    }
    assert any(name.startswith("language.") for name in compared)
    assert model.config.vocabulary == vocabulary


def test_what_theirs_pads_is_padded(dump: dict[str, Any], config: HeroConfig) -> None:
    words = dump["roberta"]["roberta.embeddings.word_embeddings.weight"]
    assert len(words) + dump["vocab_pad"] == config.vocab_size != len(words), (
        "this oracle's vocabulary needs no padding"
    )
    assert len(dump["roberta"]["roberta.embeddings.token_type_embeddings.weight"]) == 1


def test_nothing_else_changes(dump: dict[str, Any], config: HeroConfig) -> None:
    torch.manual_seed(3)
    untouched = HeroModel(config).state_dict()
    torch.manual_seed(3)
    model = HeroModel(config)
    load_roberta(model, dump["roberta"])
    for name, weight in model.state_dict().items():
        if not name.startswith("cross_modal.") or name.startswith(FRAMES):
            assert torch.equal(weight, untouched[name]), name
