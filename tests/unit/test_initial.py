"""What a run begins with: of any source the weights that have a place in the model, and a word about all others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from torch import Tensor

from hero_train.config import HeroConfig
from hero_train.errors import CheckpointError, ConfigError
from hero_train.initial import start_model
from hero_train.loading import ImportReport
from hero_train.model.answers import HeroForQuestionAnswering, HeroForStatements
from hero_train.model.captioning import HeroForCaptioning
from hero_train.model.hero import HeroEncoders, HeroModel
from hero_train.model.pretraining import HeroForPretraining
from hero_train.model.tasks import MODEL_CLASSES
from hero_train.official_names import our_name
from tests.parity.oracle import read_dump
from tests.tiny_training import TINY, tiny_config

WIDTH, WORDS = 6, 40
CLASSES = list(MODEL_CLASSES.values())
SHARED = ("cross_modal", "temporal")
OFFICIAL_TASKS = ["pretrain", "vcmr", "vr", "videoQA", "violin", "tvc"]


def part_of(name: str) -> str:
    return name.split(".")[0]


def save(model_class: type[HeroEncoders], folder: Path, **changes: Any) -> dict[str, Tensor]:
    """Write a checkpoint of random weights, of which none has an initial value, and return them."""
    torch.manual_seed(3)
    config = tiny_config(vocab_size=WORDS, feature_dim=WIDTH, subtitle_context=1, **changes)
    model = model_class(model_class.config_class.of(config) if model_class is HeroForCaptioning else config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)
    model.save_pretrained(folder)
    return model.state_dict()


def start(
    model_class: type[HeroEncoders], source: str | Path | None, entries: dict[str, Any] | None = None, **changes: Any
) -> tuple[HeroEncoders, ImportReport]:
    options = {"feature_dim": WIDTH, "vocabulary": WORDS, **changes}
    return start_model(model_class, source and str(source), entries or {}, **options)


@pytest.mark.parametrize("target", CLASSES)
@pytest.mark.parametrize("source", CLASSES)
def test_any_task_starts_from_any_other(source: type[HeroEncoders], target: type[HeroEncoders], tmp_path: Path) -> None:
    there = save(source, tmp_path)
    model, report = start(target, tmp_path)
    weights = model.state_dict()
    assert type(model) is target
    assert model.training
    assert model.config.subtitle_context == 1
    for name in report.loaded:
        assert torch.equal(weights[name], there[name]), name
    assert set(report.loaded) == there.keys() & weights.keys()
    assert set(report.left_out) == there.keys() - weights.keys()
    assert set(report.fresh) == weights.keys() - there.keys()
    assert {name for name in there if part_of(name) in SHARED} <= set(report.loaded)
    assert "unknown to this model" not in report.left_out.values()
    assert not report.fresh_frames


def test_questions_from_pretraining_leave_its_heads_out_with_the_reason(tmp_path: Path) -> None:
    save(HeroForPretraining, tmp_path)
    _, report = start(HeroForQuestionAnswering, tmp_path)
    assert {part_of(name): why for name, why in report.left_out.items()} == {
        "language": "head of masked language modelling and captioning",
        "regression": "head of masked frame modelling",
        "order": "head of frame order modelling",
        "cross_modal_mask": "used in masked frame modelling only",
        "temporal_mask": "used in masked frame modelling only",
        "query": "query encoder of retrieval",
        "moment": "head of moment retrieval",
    }
    assert {part_of(name) for name in report.fresh} == {"answer_pool", "answer", "span_pool", "span"}
    said = report.describe()
    assert f"{len(report.loaded)} weights loaded." in said
    assert f"Left out: {len(report.left_out)}" in said
    assert "  regression (6): head of masked frame modelling" in said
    assert f"Fresh, not in the source: {len(report.fresh)}" in said
    assert "  answer, answer_pool.weight, span, span_pool.weight (14)" in said


def test_pretraining_goes_on_with_its_heads(tmp_path: Path) -> None:
    there = save(HeroForPretraining, tmp_path)
    model, report = start(HeroForPretraining, tmp_path, vocabulary=WORDS - 3)
    assert report.fresh == []
    assert report.left_out == {}
    assert all(torch.equal(tensor, there[name]) for name, tensor in model.state_dict().items())
    assert isinstance(model, HeroForPretraining)
    assert model.config.vocabulary == WORDS - 3


@pytest.mark.parametrize("target", CLASSES)
@pytest.mark.parametrize("task", OFFICIAL_TASKS)
def test_any_task_starts_from_any_file_of_the_authors(task: str, target: type[HeroEncoders], tmp_path: Path) -> None:
    state = read_dump(f"{task}_state_dict")["state_dict"]
    torch.save({**state, "vocab_padded": True}, tmp_path / "model.pt")
    rows = len(state["v_encoder.f_encoder.embeddings.word_embeddings.weight"])
    width = state["v_encoder.f_encoder.img_embeddings.img_linear.weight"].shape[1]
    model, report = start(target, tmp_path / "model.pt", {"num_heads": 4}, feature_dim=width, vocabulary=rows - 3)
    weights = model.state_dict()
    assert set(report.loaded) | set(report.left_out) == set(state)
    assert {our_name(name) for name in report.loaded} | set(report.fresh) == set(weights)
    assert "unknown to this model" not in report.left_out.values()
    assert {part_of(name) for name in report.fresh}.isdisjoint(SHARED)
    for official in report.loaded:
        name = our_name(official)
        assert name is not None
        assert torch.equal(weights[name], state[official]), official
    if target is HeroForPretraining:
        # All of theirs carry these heads.
        assert {part_of(name) for name in report.fresh} <= {"query", "moment"}
        assert model.config.clip_limit == len(state["v_encoder.fom_output.linear_2.bias"])


@pytest.mark.parametrize("target", CLASSES)
def test_random_weights_follow_the_seed(target: type[HeroEncoders]) -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        model, report = start(target, None, TINY, vocabulary=37)
        states.append(model.state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert not torch.equal(states[0]["temporal.position.weight"], states[2]["temporal.position.weight"])
    assert (model.config.vocab_size, model.config.feature_dim) == (40, WIDTH)
    assert report.loaded == []
    assert set(report.fresh) == set(states[0])
    assert report.fresh_frames


def test_entries_replace_the_sources_settings(tmp_path: Path) -> None:
    save(HeroModel, tmp_path)
    entries = {"hidden_dropout": 0.3, "max_span_clips": 2, "subtitle_context": 0, "clip_limit": 4}
    model, _ = start(HeroForCaptioning, tmp_path, {**entries, "decoder_layers": 1, "decoder_positions": 20})
    assert {name: getattr(model.config, name) for name in entries} == entries
    assert (model.config.min_span_clips, model.config.hidden_size) == (1, TINY["hidden_size"])
    assert isinstance(model, HeroForCaptioning)
    assert len(model.decoder.layers) == 1
    assert len(model.decoder.position.weight) == 20


def test_an_entry_that_no_model_has_is_refused(tmp_path: Path) -> None:
    save(HeroForCaptioning, tmp_path)
    with pytest.raises(ConfigError, match=r"model has unknown entries \['decoder_layers'\]"):
        start(HeroModel, tmp_path, {"decoder_layers": 2})


@pytest.mark.parametrize(
    "entries",
    [
        {"hidden_size": 32},
        {"intermediate_size": 64},
        {"conv_kernel": 7},
        {"text_positions": 70},
        {"frame_positions": 20},
        {"temporal_positions": 64},
        {"query_positions": 16},
        {"cross_modal_layers": 2},
        {"temporal_layers": 2},
        {"num_heads": 4},
    ],
)
def test_what_the_weights_decide_cannot_be_set(tmp_path: Path, entries: dict[str, int]) -> None:
    save(HeroModel, tmp_path)
    with pytest.raises(ConfigError, match=rf"{next(iter(entries))}.*(Leave these entries out|Leave out those)"):
        start(HeroModel, tmp_path, entries)


def test_a_decoders_depth_cannot_be_set(tmp_path: Path) -> None:
    save(HeroForCaptioning, tmp_path)
    with pytest.raises(ConfigError, match=r"model sets \{'decoder_layers': 1\}; .* has \{'decoder_layers': 2\}"):
        start(HeroForCaptioning, tmp_path, {"decoder_layers": 1})


@pytest.mark.parametrize(
    ("name", "size"),
    [("text_positions", 70), ("frame_positions", 20), ("temporal_positions", 64), ("query_positions", 16)],
)
def test_tables_of_positions_are_cut_or_lengthened_when_that_is_asked_for(tmp_path: Path, name: str, size: int) -> None:
    table = {
        "text_positions": "cross_modal.text.position.weight",
        "frame_positions": "cross_modal.frames.position.weight",
        "temporal_positions": "temporal.position.weight",
        "query_positions": "query.position.weight",
    }[name]
    there = save(HeroModel, tmp_path)
    model, report = start(HeroModel, tmp_path, {name: size}, resize_positions=True)
    found, both = model.state_dict()[table], min(size, len(there[table]))
    assert len(found) == size
    assert torch.equal(found[:both], there[table][:both])
    assert report.adapted == {table: f"{len(there[table])} rows, of which the first {both} were taken for {size}"}
    assert found[both:].any() == (size > both)
    assert f"Changed: 1\n  {table} (1): " in report.describe()


def test_frame_order_has_a_class_for_each_position(tmp_path: Path) -> None:
    there = save(HeroForPretraining, tmp_path)
    with pytest.raises(ConfigError, match=r"order\.output\.bias is \(16,\) .*\(8,\).*resize_positions"):
        start(HeroForPretraining, tmp_path, {"clip_limit": 8})
    model, report = start(HeroForPretraining, tmp_path, {"clip_limit": 8}, resize_positions=True)
    assert isinstance(model, HeroForPretraining)
    assert torch.equal(model.order.output.weight, there["order.output.weight"][:8])
    assert set(report.adapted) == {"order.output.weight", "order.output.bias"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature_dim": 7}, r"reads features of width 6 and 40 token ids; the frame encoder gives 7"),
        ({"vocabulary": 41}, r"40 token ids; .* the tokenizer has 41\. Use those that belong to it"),
    ],
)
def test_features_and_tokenizer_must_be_the_sources(tmp_path: Path, changes: dict[str, int], message: str) -> None:
    save(HeroModel, tmp_path)
    with pytest.raises(ConfigError, match=message):
        start(HeroForStatements, tmp_path, **changes)


def test_a_hub_id_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = save(HeroForPretraining, tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(tmp_path))
    model, _ = start(HeroForQuestionAnswering, "someone/hero-tv")
    assert torch.equal(model.temporal.position.weight, there["temporal.position.weight"])


def test_sources_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no file"):
        start(HeroModel, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="is not a folder; expected a checkpoint folder"):
        start(HeroModel, tmp_path / "checkpoint")
    (tmp_path / "notes.txt").write_text("words")
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint of plain tensors"):
        start(HeroModel, tmp_path / "notes.txt")
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        start(HeroModel, tmp_path)
    HeroConfig().save(tmp_path)
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        start(HeroModel, tmp_path, feature_dim=4352)


def test_a_folder_whose_weights_are_of_another_model(tmp_path: Path) -> None:
    save(HeroModel, tmp_path)
    tiny_config(vocab_size=WORDS, feature_dim=WIDTH, temporal_layers=2).save(tmp_path)
    with pytest.raises(CheckpointError, match=r"does not fit its config\.json: missing \['temporal\.layers\.1"):
        start(HeroModel, tmp_path)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = HeroModel(tiny_config(vocab_size=WORDS, feature_dim=WIDTH))
    with torch.no_grad():
        model.cross_modal.layers[0].output.bias[2] = float("nan")
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"cross_modal\.layers\.0\.output\.bias has values that are not finite"):
        start(HeroModel, tmp_path)
