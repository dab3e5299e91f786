"""``hero-train convert`` refuses what would give a wrong checkpoint or lose something, and leaves nothing half written."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from hero_train.cli import app
from hero_train.convert import convert
from hero_train.errors import CheckpointError, ConfigError
from hero_train.model.answers import HeroForQuestionAnswering
from hero_train.model.hero import HeroEncoders, HeroModel
from hero_train.model.pretraining import HeroForPretraining
from hero_train.model.tasks import MODEL_CLASSES, RETRIEVAL
from hero_train.official import read_official
from tests.parity.oracle import read_dump
from tests.tiny_training import tiny_config

HEADS = 4


def state_of(task: str) -> dict[str, Tensor]:
    return dict(read_dump(f"{task}_state_dict")["state_dict"])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A checkpoint of the authors for TVR."""
    torch.save({**state_of("vcmr"), "vocab_padded": True}, tmp_path / "vcmr.pt")
    return tmp_path / "vcmr.pt"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint folder of ours for questions."""
    torch.manual_seed(0)
    HeroForQuestionAnswering(tiny_config()).save_pretrained(tmp_path / "ours")
    return tmp_path / "ours"


def run(*arguments: Any) -> str:
    result = CliRunner().invoke(app, ["convert", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_command_says_the_direction_and_what_became_of_each_weight(file: Path, tmp_path: Path) -> None:
    there = run(file, tmp_path / "ours", "--heads", HEADS)
    assert f"{file}, a checkpoint of the authors (retrieval), became {tmp_path / 'ours'}, a checkpoint folder." in there
    assert "105 weights loaded." in there
    assert "v_encoder.fom_output (6): head of frame order modelling" in there
    assert "v_encoder.f_encoder.lm_head.decoder.weight (1): the word embeddings once more" in there
    assert "the task 'pre-training' keeps the heads of pre-training" in there
    assert isinstance(HeroModel.from_pretrained(tmp_path / "ours"), HeroModel)
    back = run(tmp_path / "ours", tmp_path / "back.pt")
    assert "a checkpoint folder (retrieval), became" in back
    assert "105 weights written." in back
    assert "pooler.dense.weight" not in back
    assert "v_encoder.f_encoder.pooler, v_encoder.c_encoder.pooler (4): zeros" in back
    assert "(19): initial values, since the checkpoint has no heads of pre-training" in back
    assert "configuration must have this model's sizes: vocab_size 128, feature_dim 56, hidden_size 48" in back


def test_names_in_a_file_do_not_steer_the_terminal(tmp_path: Path) -> None:
    torch.save({**state_of("vcmr"), "\x1b[2Jnothing": torch.zeros(1)}, tmp_path / "vcmr.pt")
    said = run(tmp_path / "vcmr.pt", tmp_path / "ours", "--heads", HEADS)
    assert "nothing (1): unknown to this model" in said
    assert "\x1b" not in said


def test_pretraining_keeps_its_heads_when_it_is_named(tmp_path: Path) -> None:
    torch.save({**state_of("pretrain"), "vocab_padded": True}, tmp_path / "pretrain.pt")
    run(tmp_path / "pretrain.pt", tmp_path / "ours", "--heads", HEADS, "--task", "pre-training")
    model = HeroForPretraining.from_pretrained(tmp_path / "ours")
    assert torch.equal(model.order.inner.weight, state_of("pretrain")["v_encoder.fom_output.linear_1.weight"])
    with pytest.raises(ConfigError, match="is of a model for pre-training; expected one for retrieval"):
        HeroModel.from_pretrained(tmp_path / "ours")


def test_what_a_folder_has_beside_the_weights_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    (folder / "frame_encoder").mkdir()
    conversion = convert(folder, tmp_path / "back.pt")
    assert f"left behind in {folder}: frame_encoder, tokenizer.json." in conversion.describe()


def test_heads_of_other_sizes_are_noted(tmp_path: Path) -> None:
    HeroForPretraining(tiny_config(), vocabulary=40).save_pretrained(tmp_path / "ours")
    conversion = convert(tmp_path / "ours", tmp_path / "back.pt")
    assert "fom_output has 16 classes, and the authors' code builds 100." in conversion.describe()


def test_added_heads_do_not_depend_on_chance(folder: Path, tmp_path: Path) -> None:
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        convert(folder, tmp_path / f"{name}.pt")
    one, two = (read_official(tmp_path / f"{name}.pt") for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert one["v_encoder.fom_output.linear_1.weight"].any()


def test_a_hub_id_is_fetched(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    assert convert("someone/hero", tmp_path / "back.pt").task == "question answering"
    assert (tmp_path / "back.pt").is_file()


@contextmanager
def unchanged(folder: Path) -> Iterator[None]:
    """Check that a folder holds afterwards what it held before, and nothing else."""

    def content() -> dict[str, bytes]:
        return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}

    before = content()
    yield
    assert content() == before


@pytest.mark.parametrize("kind", ["a file", "a folder with a file", "a link to nowhere"])
def test_nothing_is_overwritten(file: Path, tmp_path: Path, kind: str) -> None:
    taken = tmp_path / "taken"
    if kind == "a file":
        taken.write_text("mine")
    elif kind == "a folder with a file":
        taken.mkdir()
        (taken / "mine.txt").write_text("mine")
    else:
        taken.symlink_to(tmp_path / "nowhere")
    with unchanged(tmp_path), pytest.raises(CheckpointError, match=r"taken exists and nothing is overwritten"):
        convert(file, taken, num_heads=HEADS)


def test_an_official_file_is_not_overwritten(folder: Path, file: Path, tmp_path: Path) -> None:
    with unchanged(tmp_path), pytest.raises(CheckpointError, match=r"vcmr\.pt exists and nothing is overwritten"):
        convert(folder, file)


def test_an_empty_folder_is_filled(file: Path, tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    convert(file, tmp_path / "ours", num_heads=HEADS)
    assert {path.name for path in (tmp_path / "ours").iterdir()} == {"config.json", "model.safetensors"}


def test_a_target_in_a_folder_that_is_not_there(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    convert(file, Path("new/place/ours"), num_heads=HEADS)
    assert (tmp_path / "new" / "place" / "ours" / "model.safetensors").is_file()


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Let no file grow beyond so many bytes, as a disk without room would."""
    old, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (old, hard))


@pytest.mark.parametrize("room", [0, 20_000])
def test_a_full_disk_leaves_nothing_of_a_folder(file: Path, tmp_path: Path, room: int) -> None:
    with (
        unchanged(tmp_path),
        pytest.raises(CheckpointError, match=r"ours cannot be written \(.*room on the disk"),
        full_disk(room),
    ):
        convert(file, tmp_path / "ours", num_heads=HEADS)


@pytest.mark.parametrize("room", [0, 20_000])
def test_a_full_disk_leaves_nothing_of_a_file(folder: Path, tmp_path: Path, room: int) -> None:
    with (
        unchanged(tmp_path),
        pytest.raises(CheckpointError, match=r"back\.pt cannot be written \(.*room on the disk"),
        full_disk(room),
    ):
        convert(folder, tmp_path / "back.pt")


def test_a_place_that_cannot_be_written_to(file: Path, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("a file, not a folder")
    with unchanged(tmp_path), pytest.raises(CheckpointError, match="ours cannot be written"):
        convert(file, tmp_path / "note.txt" / "ours", num_heads=HEADS)


@pytest.mark.parametrize("target", ["out.pt", "ours"])
def test_a_target_of_the_wrong_kind(file: Path, folder: Path, tmp_path: Path, target: str) -> None:
    source, message = (file, "a folder's name in place of") if target == "out.pt" else (folder, r"ends with \.pt")
    with unchanged(tmp_path), pytest.raises(CheckpointError, match=message):
        convert(source, tmp_path / "new" / target, num_heads=HEADS if source is file else None)


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no file"):
        convert(tmp_path / "model.pt", tmp_path / "ours")
    with pytest.raises(CheckpointError, match="is not a folder; expected a checkpoint folder"):
        convert(tmp_path / "model", tmp_path / "back.pt")


def test_a_file_that_was_cut_off(file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with unchanged(tmp_path), pytest.raises(CheckpointError, match=r"vcmr\.pt cannot be read as a checkpoint"):
        convert(file, tmp_path / "ours", num_heads=HEADS)


def test_a_folder_whose_weights_were_cut_off(folder: Path, tmp_path: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with unchanged(tmp_path), pytest.raises(CheckpointError, match="is not a whole safetensors file"):
        convert(folder, tmp_path / "back.pt")


class Hostile:
    """Pickled, this is an instruction to make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    torch.save({**state_of("vcmr"), "vocab_padded": Hostile(tmp_path / "ran")}, tmp_path / "hostile.pt")
    with unchanged(tmp_path), pytest.raises(CheckpointError, match="cannot be read as a checkpoint of plain tensors"):
        convert(tmp_path / "hostile.pt", tmp_path / "ours", num_heads=HEADS)
    torch.load(tmp_path / "hostile.pt", weights_only=False)
    assert (tmp_path / "ran").exists(), "the file carries no code, so the test above shows nothing"


@pytest.mark.parametrize(
    ("task", "named", "message"),
    [
        ("vcmr", "question answering", "is for retrieval; expected one for question answering"),
        ("videoQA", "pre-training", "is for question answering; expected one for pre-training"),
        ("violin", "retrieval", "is for statements; expected one for retrieval"),
        ("tvc", "VCMR", r"no task 'VCMR'; expected one of \['captioning'"),
    ],
)
def test_a_file_of_another_task(task: str, named: str, message: str, tmp_path: Path) -> None:
    torch.save(state_of(task), tmp_path / "model.pt")
    with unchanged(tmp_path), pytest.raises(CheckpointError, match=message):
        convert(tmp_path / "model.pt", tmp_path / "ours", named, num_heads=HEADS)


def test_a_folder_of_another_task(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is for question answering; expected one for captioning"):
        convert(folder, tmp_path / "back.pt", "captioning")
    convert(folder, tmp_path / "back.pt", "question answering")
    config = folder / "config.json"
    config.write_text(config.read_text().replace("question answering", "dancing"))
    with pytest.raises(ConfigError, match=r"is of a model for 'dancing'; expected one of \['captioning'"):
        convert(folder, tmp_path / "other.pt")


def test_a_file_with_half_a_head(tmp_path: Path) -> None:
    state = state_of("videoQA")
    del state["st_ed_pred_head.linear_2.bias"]
    torch.save(state, tmp_path / "model.pt")
    with (
        unchanged(tmp_path),
        pytest.raises(CheckpointError, match=r"some of the weights of span: .* span\.output\.bias"),
    ):
        convert(tmp_path / "model.pt", tmp_path / "ours", num_heads=HEADS)


def test_rows_of_words_that_are_no_multiple_of_eight_are_not_called_padded(tmp_path: Path) -> None:
    HeroModel(tiny_config(vocab_size=37)).save_pretrained(tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "back.pt")
    assert torch.load(tmp_path / "back.pt", weights_only=True)["vocab_padded"] is False


@pytest.mark.parametrize("content", ["[]", "{", "\xff"])
def test_a_folder_whose_configuration_cannot_be_read(folder: Path, tmp_path: Path, content: str) -> None:
    (folder / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match="is not the JSON of a configuration"):
        convert(folder, tmp_path / "back.pt")


def test_heads_that_do_not_fit(file: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="hidden_size 48 is not a multiple of num_heads 5"):
        convert(file, tmp_path / "new", num_heads=5)
    with pytest.raises(CheckpointError, match=r"48 is not a multiple of .* 64; pass num_heads .*--heads"):
        convert(file, tmp_path / "new")
    with pytest.raises(CheckpointError, match=r"config\.json says how many heads"):
        convert(folder, tmp_path / "back.pt", num_heads=2)


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite(folder: Path, tmp_path: Path, value: float) -> None:
    state = state_of("vcmr")
    state["video_query_linear.bias"] = torch.full_like(state["video_query_linear.bias"], value)
    torch.save(state, tmp_path / "model.pt")
    with (
        unchanged(tmp_path),
        pytest.raises(CheckpointError, match=r"video_query_linear\.bias has values .* not finite"),
    ):
        convert(tmp_path / "model.pt", tmp_path / "new", num_heads=HEADS)
    model: HeroEncoders = HeroForQuestionAnswering.from_pretrained(folder)
    with torch.no_grad():
        model.temporal.position.weight[3, 2] = value
    model.save_pretrained(folder)
    with (
        unchanged(tmp_path),
        pytest.raises(CheckpointError, match=r"temporal\.position\.weight has values .* not finite"),
    ):
        convert(folder, tmp_path / "back.pt")


def test_the_manual_says_what_every_file_becomes() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "checkpoints.md").read_text(encoding="utf-8")
    table = [line for line in manual.splitlines() if line.startswith("| ") and "`Hero" in line]
    assert len(table) == len(MODEL_CLASSES)
    for task, model_class in MODEL_CLASSES.items():
        (row,) = (line for line in table if f"`{model_class.__name__}`" in line)
        assert f"| `{task}` |" in row or task == RETRIEVAL
