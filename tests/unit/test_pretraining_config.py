"""The configuration of pre-training: that of the documentation holds, and what only fine-tuning has is refused."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from hero_train.data.pretraining import PretrainingSampling
from hero_train.errors import ConfigError
from hero_train.run_config import PretrainingRunConfig, load_config

DOCUMENT = Path(__file__).parents[2] / "docs" / "pretraining.md"


def load(folder: Path, text: str, *overrides: str) -> PretrainingRunConfig:
    path = folder / "pretrain.yaml"
    path.write_text(text, encoding="utf-8")
    config = load_config(path, overrides)
    assert isinstance(config, PretrainingRunConfig)
    return config


def documented() -> str:
    (block,) = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    return str(block)


def test_the_documented_configuration_is_the_papers(tmp_path: Path) -> None:
    config = load(tmp_path, documented())
    assert config.sampling == PretrainingSampling(), "the document names defaults that are none"
    assert dataclasses.asdict(config.sampling.mix) == {"mlm": 2, "mfm_nce": 2, "mffr": 0, "fom": 1, "vsm": 2}
    assert (config.loss.video_weight, config.loss.query_weight, config.loss.span_weight) == (8, 8, 0.01)
    assert config.data.subtitles == tmp_path / "subtitles"
    assert config.output == tmp_path / "runs" / "pretrained"


def test_a_dumped_configuration_is_loaded_as_it_was(tmp_path: Path) -> None:
    config = load(tmp_path, documented(), "sampling.mix.mffr=1", "seed=5")
    assert config.sampling.mix.mffr == 1
    again = tmp_path / "again.yaml"
    again.write_text(config.dump(), encoding="utf-8")
    assert load_config(again) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.train=train.jsonl", r"data\.train: Extra inputs"),
        ("best_metric=VR/R@1", "best_metric: Extra inputs"),
        ("sampling.both=1", r"sampling\.both: Unexpected keyword"),
        ("sampling.mix.mlm=-1", "expected at least 0"),
        ("model.feature_dim=4", "follow from the tokenizer and the features"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tmp_path, documented(), override)
