"""The architecture: the paper's by default, stored as JSON, and refused when it cannot work."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from hero_sdk.errors import InputError
from hero_train.config import CONFIG_FILE, HeroConfig
from hero_train.errors import ConfigError
from hero_train.model.hero import HeroModel
from tests.tiny_training import tiny_config


def test_defaults_are_the_papers() -> None:
    config = HeroConfig()
    assert (config.cross_modal_layers, config.temporal_layers) == (6, 3)
    assert (config.hidden_size, config.num_heads, config.intermediate_size) == (768, 12, 3072)
    assert (config.feature_dim, config.vocab_size) == (2048 + 2304, 50272)
    assert (config.clip_interval, config.clip_limit) == (1.5, 100)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    config = tiny_config(clip_interval=0.7, subtitle_context=2, hidden_dropout=0.25)
    config.save(tmp_path)
    stored = json.loads((tmp_path / CONFIG_FILE).read_text(encoding="utf-8"))
    assert stored["clip_interval"] == 0.7
    assert set(stored) == {field.name for field in dataclasses.fields(HeroConfig)}
    assert HeroConfig.load(tmp_path) == config


def test_entries_that_are_left_out_have_their_default() -> None:
    assert HeroConfig.from_dict({"clip_limit": 60}) == dataclasses.replace(HeroConfig(), clip_limit=60)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 30, "num_heads": 4}, "hidden_size 30 is not a multiple of num_heads 4"),
        ({"num_heads": 0}, "num_heads is 0; it must be positive"),
        ({"conv_kernel": 4}, "conv_kernel is 4; it must be odd"),
        ({"clip_limit": 65, "temporal_positions": 64}, "clip_limit 65 exceeds temporal_positions 64"),
        ({"min_span_clips": 5, "max_span_clips": 4}, "min_span_clips 5 exceeds max_span_clips 4"),
        ({"temporal_layers": 0}, "temporal_layers is 0; it must be positive"),
        ({"clip_interval": -1.5}, "clip_interval is -1.5; it must be positive"),
        ({"clip_interval": float("nan")}, "clip_interval is nan; it must be positive"),
        ({"initializer_range": float("inf")}, "initializer_range is inf; it must be positive"),
        ({"hidden_dropout": 1.0}, "hidden_dropout is 1.0; it must be at least 0 and less than 1"),
        ({"attention_dropout": -0.1}, "attention_dropout is -0.1"),
        ({"nms_iou": 0.0}, "nms_iou is 0.0; it must be above 0 and at most 1"),
        ({"nms_iou": 1.5}, "nms_iou is 1.5; it must be above 0 and at most 1"),
        ({"subtitle_context": -1}, "subtitle_context is -1; it must be 0 or more"),
        ({"hidden_size": "768"}, "hidden_size is '768'; expected a number of type int"),
        ({"vocab_size": 3.5}, "vocab_size is 3.5; expected a number of type int"),
        ({"vocab_size": None}, "vocab_size is None"),
        ({"cross_modal_layers": True}, "cross_modal_layers is True"),
    ],
)
def test_a_value_that_does_not_fit_is_named(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_config(**changes)


def test_the_smallest_values_that_fit_make_a_model() -> None:
    config = tiny_config(hidden_dropout=0, subtitle_context=0, conv_kernel=1, min_span_clips=4, num_heads=1)
    assert HeroModel(config).moment.start.weight.numel() == 1


def test_the_search_protocol_is_the_configurations() -> None:
    spec = HeroModel(tiny_config(min_span_clips=2, max_span_clips=3, nms_iou=1)).moment_spec()
    assert (spec.min_clips, spec.max_clips, spec.nms_iou) == (2, 3, 1)


def test_an_unknown_entry_is_named_with_those_that_exist() -> None:
    with pytest.raises(ConfigError, match=r"model has unknown entries \['hiden_size'\]; a HERO has .*'hidden_size'"):
        HeroConfig.from_dict({"hiden_size": 16}, "model")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[]", "holds a list; expected an object"),
        (b'"hidden_size"', "holds a str; expected an object"),
        (b'{"layers": 3}', r"unknown entries \['layers'\]"),
    ],
)
def test_a_file_that_holds_no_configuration(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / CONFIG_FILE).write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        HeroConfig.load(tmp_path)


def test_a_folder_without_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a checkpoint that save_pretrained wrote"):
        HeroConfig.load(tmp_path)


def test_configuration_errors_are_input_errors() -> None:
    assert issubclass(ConfigError, InputError)
