"""Checkpoint folders: what is loaded is bit for bit what was saved, or nothing is."""

from __future__ import annotations

import pickle
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from hero_train.checkpoint import WEIGHTS_FILE, load_weights, resolve_folder
from hero_train.config import CONFIG_FILE, HeroConfig
from hero_train.errors import CheckpointError, ConfigError
from hero_train.model.hero import HeroModel
from tests.tiny_training import tiny_config


@pytest.fixture
def model() -> HeroModel:
    torch.manual_seed(0)
    return HeroModel(tiny_config())


@pytest.fixture
def folder(model: HeroModel, tmp_path: Path) -> Path:
    model.save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_weights_survive_bit_for_bit(model: HeroModel, folder: Path) -> None:
    loaded = HeroModel.from_pretrained(folder)
    assert loaded.config == model.config
    assert not loaded.training
    expected = model.state_dict()
    assert expected.keys() == loaded.state_dict().keys()
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32
        assert tensor.numpy().tobytes() == expected[name].numpy().tobytes(), name


def test_a_folder_is_config_and_safetensors_and_nothing_else(model: HeroModel, folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {CONFIG_FILE, WEIGHTS_FILE}
    with safe_open(folder / WEIGHTS_FILE, framework="numpy") as file:
        assert set(file.keys()) == set(model.state_dict())
        assert (file.get_tensor("moment.query.weight") == model.moment.query.weight.detach().numpy()).all()


def test_saving_again_replaces_the_weights(model: HeroModel, folder: Path) -> None:
    with torch.no_grad():
        model.moment.query.bias.fill_(3.0)
    model.save_pretrained(folder)
    assert (HeroModel.from_pretrained(folder).moment.query.bias == 3.0).all()
    assert {path.name for path in folder.iterdir()} == {CONFIG_FILE, WEIGHTS_FILE}


def test_a_save_that_fails_leaves_the_old_weights(
    model: HeroModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (folder / WEIGHTS_FILE).read_bytes()

    def full_disk(tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr("hero_train.checkpoint.save_file", full_disk)
    with pytest.raises(OSError, match="No space left"):
        model.save_pretrained(folder)
    assert (folder / WEIGHTS_FILE).read_bytes() == before


def change_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    """Replace tensors of a checkpoint, or take them out."""
    state = load_file(folder / WEIGHTS_FILE)
    for name, tensor in changes.items():
        if tensor is None:
            del state[name]
        else:
            state[name] = tensor
    save_file(state, folder / WEIGHTS_FILE)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("moment.start.weight", None, r"missing \['moment\.start\.weight'\], unknown \[\], of another shape \[\]"),
        ("moment.middle.weight", torch.zeros(2), r"missing \[\], unknown \['moment\.middle\.weight'\]"),
        ("moment.start.weight", torch.zeros(1, 1, 7), r"moment\.start\.weight \(1, 1, 7\), expected \(1, 1, 5\)"),
    ],
)
def test_weights_that_do_not_fit_are_named(folder: Path, name: str, tensor: torch.Tensor | None, message: str) -> None:
    change_weights(folder, **{name: tensor})
    with pytest.raises(CheckpointError, match=message):
        HeroModel.from_pretrained(folder)


def test_weights_that_do_not_fit_change_nothing(model: HeroModel, folder: Path) -> None:
    change_weights(folder, **{"moment.query.bias": torch.ones(16), "moment.start.weight": torch.zeros(3)})
    with pytest.raises(CheckpointError):
        load_weights(model, folder)
    assert not (model.moment.query.bias == 1.0).all()


def test_weights_of_another_architecture(folder: Path) -> None:
    tiny_config(temporal_layers=2).save(folder)
    with pytest.raises(CheckpointError, match=r"does not fit its config\.json: missing \['temporal\.layers\.1"):
        HeroModel.from_pretrained(folder)


@pytest.mark.parametrize("content", [b"", b"not safetensors", pickle.dumps({"weight": 1})])
def test_a_file_that_is_not_safetensors(folder: Path, content: bytes) -> None:
    (folder / WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is not a whole safetensors file .*Copy it again"):
        HeroModel.from_pretrained(folder)


def test_a_file_that_was_cut_off(folder: Path) -> None:
    whole = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="is not a whole safetensors file"):
        HeroModel.from_pretrained(folder)


def test_pickled_weights_are_not_looked_at(model: HeroModel, folder: Path) -> None:
    (folder / WEIGHTS_FILE).unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=rf"has no {WEIGHTS_FILE}"):
        HeroModel.from_pretrained(folder)


def test_a_folder_without_configuration(folder: Path) -> None:
    (folder / CONFIG_FILE).unlink()
    with pytest.raises(ConfigError, match=f"has no {CONFIG_FILE}"):
        HeroModel.from_pretrained(folder)


@pytest.mark.parametrize(
    "source", ["{}/nowhere", "./runs/one", "../runs", "a/b/c", "{}/checkpoint/config.json", "name"]
)
def test_what_looks_like_a_path_is_not_looked_up_on_the_hub(
    folder: Path, source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(CheckpointError, match="is not a folder; expected a checkpoint folder, or a hub id"):
        resolve_folder(source.format(folder.parent))


def test_a_hub_id_is_fetched_with_its_revision(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []

    def fetch(source: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((source, revision))
        assert "*.bin" not in allow_patterns
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    loaded = HeroModel.from_pretrained("someone/hero-tv", revision="v2")
    assert asked == [("someone/hero-tv", "v2")]
    assert loaded.config == HeroConfig.load(folder)


@pytest.mark.parametrize("source", ["someone/hero-that-nobody-published", "some one/hero tv"])
def test_a_hub_id_that_cannot_be_had(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=f"{source} is neither a folder nor a hub repository"):
        HeroModel.from_pretrained(source)
