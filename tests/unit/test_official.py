"""Checkpoints of the authors: every name finds its place or a reason, and no file runs code.

The numbers that an imported model computes are compared with the authors' in tests/parity.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hero_train.errors import CheckpointError, ConfigError
from hero_train.model.hero import HeroModel
from hero_train.official import infer_config, load_official, model_from_official, read_official
from hero_train.official_names import our_name
from tests.parity.oracle import read_dump

HEADS = 4


@pytest.fixture(scope="module", params=["vcmr", "vr"])
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def state(task: str) -> dict[str, Tensor]:
    """An official state dict, of a tiny model of the authors' own code."""
    return dict(read_dump(f"{task}_state_dict")["state_dict"])


@pytest.fixture
def vcmr() -> dict[str, Tensor]:
    return dict(read_dump("vcmr_state_dict")["state_dict"])


@pytest.fixture
def checkpoint(vcmr: dict[str, Tensor], tmp_path: Path) -> Path:
    """The same as the authors' saver writes it, with its entry that is no tensor."""
    path = tmp_path / "model_step_100.pt"
    torch.save({**vcmr, "vocab_padded": False}, path)
    return path


def test_a_saved_checkpoint_gives_the_model_of_its_tensors(checkpoint: Path, vcmr: dict[str, Tensor]) -> None:
    model, report = model_from_official(read_official(checkpoint), num_heads=HEADS)
    weights = model.state_dict()
    assert not model.training
    assert report.fresh == []
    assert len(report.loaded) == len(set(report.loaded)) == len(weights)
    for official in report.loaded:
        name = our_name(official)
        assert name is not None
        assert torch.equal(weights[name], vcmr[official]), official


def test_names_are_translated_one_by_one(vcmr: dict[str, Tensor]) -> None:
    layer = "v_encoder.f_encoder.encoder.layer.1"
    expected = {
        f"{layer}.attention.self.query.weight": "cross_modal.layers.1.attention.query.weight",
        f"{layer}.attention.output.dense.bias": "cross_modal.layers.1.attention.output.bias",
        f"{layer}.attention.output.LayerNorm.weight": "cross_modal.layers.1.attention.norm.weight",
        f"{layer}.output.dense.weight": "cross_modal.layers.1.output.weight",
        "v_encoder.c_encoder.encoder.layer.0.output.LayerNorm.bias": "temporal.layers.0.norm.bias",
        "q_feat_attn.modular_vector_mapping.weight": "query.pooling.weight",
        "video_ed_predictor.weight": "moment.end.weight",
    }
    assert set(expected) <= set(vcmr)
    assert {official: our_name(official) for official in expected} == expected
    assert our_name(f"{layer}.output.LayerNorm.gamma") == "cross_modal.layers.1.norm.weight"
    assert our_name(f"{layer}.output.LayerNorm.beta") == "cross_modal.layers.1.norm.bias"
    assert our_name(f"{layer}.crossattention.self.query.weight") is None
    assert our_name("v_encoder.f_encoder.encoder.layer.x.output.dense.weight") is None


def test_what_is_left_out_has_a_known_reason(state: dict[str, Tensor]) -> None:
    _, report = model_from_official(state, num_heads=HEADS)
    assert set(report.loaded) | set(report.left_out) == set(state)
    assert not set(report.loaded) & set(report.left_out)
    assert "unknown to this model" not in report.left_out.values()
    assert report.left_out["v_encoder.f_encoder.pooler.dense.weight"] == "computed by the authors' code but never used"
    assert report.left_out["v_encoder.feat_regress.net.0.weight"] == "head of masked frame modelling"


def test_unknown_names_are_reported(vcmr: dict[str, Tensor]) -> None:
    unknown = [
        "qa_pool.norm.scale",
        "v_encoder.f_encoder.encoder.layer.0.output.adapter.weight",
        "video_query_linear.scale",
    ]
    _, report = model_from_official({**vcmr, **{name: torch.zeros(3) for name in unknown}}, num_heads=HEADS)
    assert {name: report.left_out[name] for name in unknown} == dict.fromkeys(unknown, "unknown to this model")


def test_a_layer_that_the_configuration_does_not_have_is_reported(vcmr: dict[str, Tensor]) -> None:
    config = dataclasses.replace(infer_config(vcmr, num_heads=HEADS), temporal_layers=1)
    model, report = model_from_official(vcmr, config)
    assert len(model.temporal.layers) == 1
    name = "v_encoder.c_encoder.encoder.layer.1.output.dense.weight"
    assert report.left_out[name] == "a layer more than the model has"


def test_sizes_are_read_off_the_tensors(vcmr: dict[str, Tensor]) -> None:
    made = read_dump("vcmr_state_dict")["meta"]
    config = infer_config(vcmr, num_heads=HEADS)
    assert (config.vocab_size, config.hidden_size, config.intermediate_size) == (128, 48, 96)
    assert (config.cross_modal_layers, config.temporal_layers) == (2, 2)
    assert (config.text_positions, config.temporal_positions, config.query_positions) == (130, 130, 130)
    assert config.conv_kernel == 5
    assert config.feature_dim == made["vfeat_dim"]
    assert config.frame_positions == made["max_frm_seq_len"]
    assert config.clip_limit == min(100, config.frame_positions)


def test_sizes_of_the_released_models_are_the_papers() -> None:
    """Shapes of the released checkpoint for TVR, without its numbers."""
    shapes = {
        "v_encoder.f_encoder.embeddings.word_embeddings.weight": (50272, 768),
        "v_encoder.f_encoder.embeddings.position_embeddings.weight": (514, 768),
        "v_encoder.f_encoder.img_embeddings.img_linear.weight": (768, 4352),
        "v_encoder.f_encoder.img_embeddings.position_embeddings.weight": (100, 768),
        "v_encoder.c_encoder.embeddings.position_embeddings.weight": (514, 768),
        **{f"v_encoder.f_encoder.encoder.layer.{n}.intermediate.dense.weight": (3072, 768) for n in range(6)},
        **{f"v_encoder.c_encoder.encoder.layer.{n}.intermediate.dense.weight": (3072, 768) for n in range(3)},
        "q_feat_attn.query_pos_embed.position_embeddings.weight": (514, 768),
        "video_st_predictor.weight": (1, 1, 5),
    }
    config = infer_config({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
    assert config == type(config)()


def test_a_head_width_that_must_be_told(vcmr: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match="48 is not a multiple of the authors' head width 64; pass num_heads"):
        infer_config(vcmr)
    with pytest.raises(ConfigError, match="hidden_size 48 is not a multiple of num_heads 5"):
        infer_config(vcmr, num_heads=5)


def test_a_model_without_moment_head_keeps_its_own(vcmr: dict[str, Tensor]) -> None:
    """The authors' pre-trained model for question answering has no query encoder."""
    part = {name: tensor for name, tensor in vcmr.items() if name.startswith("v_encoder.")}
    model, report = model_from_official(part, num_heads=HEADS)
    assert set(report.fresh) == {name for name in model.state_dict() if name.startswith(("query.", "moment."))}


@pytest.mark.parametrize(
    "name",
    [
        "v_encoder.f_encoder.encoder.layer.0.output.dense.bias",
        "v_encoder.f_encoder.img_embeddings.LayerNorm.weight",
        "v_encoder.frame_transform.net.1.weight",
        "q_feat_attn.modular_vector_mapping.weight",
    ],
)
def test_a_checkpoint_that_lacks_a_weight_is_refused(vcmr: dict[str, Tensor], name: str) -> None:
    del vcmr[name]
    model = HeroModel(infer_config(vcmr, num_heads=HEADS))
    before = {ours: tensor.clone() for ours, tensor in model.state_dict().items()}
    with pytest.raises(
        CheckpointError, match=rf"only some of the weights of .*{our_name(name)}.*take a whole checkpoint"
    ):
        load_official(model, vcmr)
    assert all(torch.equal(tensor, before[ours]) for ours, tensor in model.state_dict().items())


def test_a_single_type_row_serves_both_types(vcmr: dict[str, Tensor]) -> None:
    name = "v_encoder.f_encoder.embeddings.token_type_embeddings.weight"
    model, _ = model_from_official({**vcmr, name: vcmr[name][:1]}, num_heads=HEADS)
    table = model.cross_modal.text.token_type.weight
    assert torch.equal(table, vcmr[name][:1].expand(2, -1))


def test_half_precision_is_widened(vcmr: dict[str, Tensor]) -> None:
    model, _ = model_from_official({name: tensor.half() for name, tensor in vcmr.items()}, num_heads=HEADS)
    assert torch.equal(model.moment.query.weight, vcmr["video_query_linear.weight"].half().float())


def test_a_checkpoint_of_data_parallel_training(vcmr: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({f"module.{name}": tensor for name, tensor in vcmr.items()}, tmp_path / "model.pt")
    assert read_official(tmp_path / "model.pt").keys() == vcmr.keys()


def test_another_shape_than_the_configuration_has(vcmr: dict[str, Tensor]) -> None:
    config = dataclasses.replace(infer_config(vcmr, num_heads=HEADS), conv_kernel=7)
    with pytest.raises(
        CheckpointError, match=r"video_st_predictor\.weight is \(1, 1, 5\) and moment\.start\.weight .* 7\)"
    ):
        model_from_official(vcmr, config)


def test_tensors_of_another_model() -> None:
    with pytest.raises(CheckpointError, match=r"has no 'v_encoder\.f_encoder\.embeddings\.word_embeddings\.weight'"):
        infer_config({"bert.embeddings.word_embeddings.weight": torch.zeros(3, 2)})


class Hostile:
    """Pickled, this is an instruction to make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_with_code_is_refused_and_its_code_not_run(tmp_path: Path, zipped: bool) -> None:
    proof = tmp_path / "ran"
    path = tmp_path / "model.pt"
    content = {"v_encoder.pad": torch.zeros(2), "extra": Hostile(proof)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"model\.pt cannot be read as a checkpoint of plain tensors"):
        read_official(path)
    assert not proof.exists()
    torch.load(path, weights_only=False)
    assert proof.exists(), "the file carries no code, so the test above shows nothing"


def test_a_plain_pickle_with_code_is_refused_and_its_code_not_run(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(pickle.dumps(Hostile(tmp_path / "ran")))
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint of plain tensors"):
        read_official(tmp_path / "model.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"text"])
def test_a_file_that_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint of plain tensors"):
        read_official(tmp_path / "model.pt")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no file"):
        read_official(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(2)], "holds a list; expected a dictionary"),
        ({"vocab_padded": True}, r"no tensors; .*vocab_padded"),
    ],
)
def test_a_file_without_named_tensors(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=message):
        read_official(tmp_path / "model.pt")
