"""Checkpoints of the authors, as files, become ours and theirs again: every name, every tensor, and what the models compute.

The tolerances are those of the oracle's README: 1e-5 on activations, 1e-4 on logits.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hero_train.convert import convert
from hero_train.loading import ImportReport
from hero_train.losses import IGNORED_TARGET
from hero_train.model.answers import HeroForQuestionAnswering, HeroForStatements
from hero_train.model.captioning import HeroForCaptioning
from hero_train.model.hero import HeroEncoders, HeroModel
from hero_train.model.pretraining import HeroForPretraining
from hero_train.model.tasks import MODEL_CLASSES, model_class_of, task_of
from hero_train.official import read_official
from hero_train.official_writing import ExportReport
from tests.parity.authors import PACKED
from tests.parity.oracle import OracleBatch, assert_close, oracle_folder, read_dump
from tests.parity.test_answers import read_case
from tests.parity.test_captioning import moments_of
from tests.parity.test_pretraining import word_batch

ACTIVATION, LOGIT = 1e-5, 1e-4
TASKS = {
    "pretrain": "pre-training",
    "vcmr": "retrieval",
    "vr": "retrieval",
    "videoQA": "question answering",
    "violin": "statements",
    "tvc": "captioning",
}
MASK = "decoder.tri_mask"
WORDS = "v_encoder.f_encoder.embeddings.word_embeddings.weight"


def authors_state(task: str) -> dict[str, Tensor]:
    """The oracle's state dict; the compact copy leaves the decoder's mask out, a megabyte of two numbers."""
    state = dict(read_dump(f"{task}_state_dict")["state_dict"])
    if task == "tvc" and MASK not in state:
        mask = (1.0 - torch.tril(torch.ones(1024, 1024))) * -10000.0
        place = [*state].index("emb_LayerNorm.bias") + 1
        state = dict([*[*state.items()][:place], (MASK, mask), *[*state.items()][place:]])
    return state


def number_of_heads() -> int:
    sizes = json.loads((oracle_folder() / "config" / "hero_finetune.json").read_text())
    return int(sizes["f_config"]["num_attention_heads"])


@pytest.fixture(scope="module", params=TASKS)
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(task: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder, from a file as the authors' saver writes it."""
    place = tmp_path_factory.mktemp(task)
    torch.save({**authors_state(task), "vocab_padded": True}, place / "model_step_100.pt")
    return converted(place / "model_step_100.pt", task)


def converted(file: Path, task: str) -> Path:
    """The folder that a file becomes."""
    named = "pre-training" if task == "pretrain" else None
    conversion = convert(file, file.with_suffix(""), named, num_heads=number_of_heads())
    assert conversion.task == TASKS[task]
    assert isinstance(conversion.report, ImportReport)
    assert conversion.report.fresh == []
    assert "unknown to this model" not in conversion.report.left_out.values()
    return conversion.target


def load(folder: Path) -> HeroEncoders:
    return model_class_of(folder).from_pretrained(folder)


def test_back_and_forth_gives_the_authors_names_and_the_models_tensors(task: str, folder: Path, tmp_path: Path) -> None:
    expected = authors_state(task)
    conversion = convert(folder, tmp_path / "back.pt")
    report = conversion.report
    found = torch.load(tmp_path / "back.pt", weights_only=True)
    assert [*found] == [*expected, "vocab_padded"]
    assert found["vocab_padded"] is True
    assert isinstance(report, ExportReport)
    assert {*report.written, *report.added} == set(expected)
    assert len(report.written) == len(load(folder).state_dict())
    for name in report.written:
        assert torch.equal(found[name], expected[name]), name
        assert found[name].dtype == expected[name].dtype
    for name, what in report.added.items():
        assert found[name].shape == expected[name].shape, name
        if what in ("a constant buffer", "the word embeddings once more"):
            assert torch.equal(found[name], expected[name]), name
    heads = {name for name, what in report.added.items() if what.startswith("initial values")}
    assert bool(heads) == (task != "pretrain")


def test_the_tied_word_embeddings_are_one_tensor_in_the_file(task: str, folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "back.pt")
    found = read_official(tmp_path / "back.pt")
    assert found["v_encoder.f_encoder.lm_head.decoder.weight"].data_ptr() == found[WORDS].data_ptr()


def test_what_came_back_becomes_the_same_folder(task: str, folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "back.pt")
    again = converted(tmp_path / "back.pt", task)
    for path in folder.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name


def as_in_parallel_training(state: dict[str, Tensor]) -> dict[str, Any]:
    """The names of a model inside a wrapper, with the older names of norms."""
    older = {
        re.sub(
            r"(LayerNorm|net\.2)\.weight$", r"\1.gamma", re.sub(r"(LayerNorm|net\.2)\.bias$", r"\1.beta", name)
        ): tensor
        for name, tensor in state.items()
    }
    assert older.keys() != state.keys()
    return {f"module.{name}": tensor for name, tensor in older.items()}


def test_a_file_of_parallel_training_with_older_names(task: str, folder: Path, tmp_path: Path) -> None:
    torch.save(as_in_parallel_training(authors_state(task)) | {"vocab_padded": True}, tmp_path / "model.pt")
    other = converted(tmp_path / "model.pt", task)
    assert (other / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_a_file_whose_vocabulary_is_not_padded(task: str, folder: Path, tmp_path: Path) -> None:
    state = authors_state(task)
    rows = len(state[WORDS]) - read_dump(f"{task}_state_dict")["meta"]["vocab_pad"]
    assert rows % 8, "this oracle's vocabulary needs no padding"
    for name in (WORDS, "v_encoder.f_encoder.lm_head.decoder.weight", "v_encoder.f_encoder.lm_head.bias"):
        state[name] = state[name][:rows]
    torch.save({**state, "vocab_padded": False}, tmp_path / "model.pt")
    found, expected = (load(one).state_dict() for one in (converted(tmp_path / "model.pt", task), folder))
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        if name in ("cross_modal.text.word.weight", "language.bias"):
            assert len(tensor) == len(expected[name]) > rows
            assert torch.equal(tensor[:rows], expected[name][:rows])
            assert not tensor[rows:].any()
        else:
            assert torch.equal(tensor, expected[name]), name
    back = convert(tmp_path / "model", tmp_path / "back.pt")
    assert torch.load(back.target, weights_only=True)["vocab_padded"] is True
    if task == "pretrain":
        assert load(tmp_path / "model").config.vocabulary == rows  # type: ignore[attr-defined]


def clips_and_queries(model: HeroEncoders, dump: dict[str, Any]) -> None:
    assert isinstance(model, HeroModel)
    dump = dump.get("sub", dump)
    batch = OracleBatch(dump["batch"])
    packed = batch.pack(PACKED)
    clips, mask = model.unpack(packed, model.encode_videos(packed))
    assert_close(clips[mask], dump["encoder"]["frame_embeddings"][mask], ACTIVATION)
    if "query_stages" in dump:
        assert_close(model.encode_queries(*batch.queries()).vector, dump["query_stages"]["q_feat_attn"], ACTIVATION)


def masked_words(model: HeroEncoders, dump: dict[str, Any]) -> None:
    assert isinstance(model, HeroForPretraining)
    batch = word_batch(dump["mlm"]["batch"])
    # In the order of the oracle, which is that of the subtitles.
    slots = [
        (span.row, slot)
        for (span,) in batch.packed.segments
        if span is not None
        for slot in range(span.start, span.start + span.length)
        if batch.labels[span.row, slot] != IGNORED_TARGET
    ]
    rows, places = (torch.tensor(numbers) for numbers in zip(*slots, strict=True))
    hidden = model.cross_modal(**model.tensors(batch.packed.cross_modal.arrays()))[rows, places]
    expected = dump["mlm"]["eval_no_loss"]
    # The converted checkpoint does not know how many of its rows are padding.
    assert_close(model.word_logits(hidden)[:, : expected.shape[1]], expected, LOGIT)


def answers(model: HeroEncoders, dump: dict[str, Any]) -> None:
    assert isinstance(model, HeroForQuestionAnswering)
    case = read_case("videoQA", HeroForQuestionAnswering, "qa")._replace(model=model)
    assert_close(case(case.pack())[0], dump["logits"], LOGIT)


def truth(model: HeroEncoders, dump: dict[str, Any]) -> None:
    assert isinstance(model, HeroForStatements)
    case = read_case("violin", HeroForStatements, "q")._replace(model=model)
    assert_close(case(case.pack())[0].flatten(), dump["logits"].flatten(), LOGIT)


def words_of_captions(model: HeroEncoders, dump: dict[str, Any]) -> None:
    assert isinstance(model, HeroForCaptioning)
    batch = dump["batch"]
    clips = model.encode_moments(OracleBatch(batch).pack(PACKED), moments_of(batch))
    assert_close(model.scores(batch["cap_input_ids"], *clips), dump["scores"], LOGIT)


CHECKS: dict[str, Callable[[HeroEncoders, dict[str, Any]], None]] = {
    "pretrain": masked_words,
    "vcmr": clips_and_queries,
    "vr": clips_and_queries,
    "videoQA": answers,
    "violin": truth,
    "tvc": words_of_captions,
}


@torch.inference_mode()
def test_a_converted_file_computes_the_authors_numbers(task: str, folder: Path, tmp_path: Path) -> None:
    CHECKS[task](load(folder), read_dump(f"{task}_io"))
    convert(folder, tmp_path / "back.pt")
    CHECKS[task](load(converted(tmp_path / "back.pt", task)), read_dump(f"{task}_io"))


def test_every_model_of_ours_has_a_file_of_theirs() -> None:
    assert set(TASKS.values()) == set(MODEL_CLASSES) == set(map(task_of, MODEL_CLASSES.values()))
