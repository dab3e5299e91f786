"""An export starts from parts that were made for one another, and knows them by a fingerprint."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import huggingface_hub
import onnx
import pytest
import torch
from huggingface_hub.utils import filter_repo_objects

from hero_export import ExportError
from hero_export.bundles.sources import find_sources
from hero_sdk.errors import BundleError, FingerprintError
from hero_sdk.frame_encoder import GRAPH_FILE, describe_frame_encoder
from hero_train.errors import CheckpointError, ConfigError
from hero_train.model.hero import HeroModel
from hero_train.tokenizer import train_tokenizer_json
from tests.tiny_checkpoint import CONFIG, SENTENCES, write_checkpoint, write_frame_encoder


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("original") / "checkpoint")


@pytest.fixture
def checkpoint(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "checkpoint"))


def edit_config(checkpoint: Path, **change: object) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")


def test_the_parts_of_a_checkpoint(checkpoint: Path) -> None:
    sources = find_sources(checkpoint)
    assert sources.config == CONFIG
    assert sources.tokenizer == checkpoint / "tokenizer.json"
    assert sources.frame_encoder == checkpoint / "frame_encoder"
    assert (sources.frames.name, sources.frames.feature_dim) == ("mean colour", CONFIG.feature_dim)


def test_parts_from_elsewhere(checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_frame_encoder(other, CONFIG.feature_dim, lambda model: model.metadata_props.add(key="made", value="again"))
    (checkpoint / "tokenizer.json").rename(other / "tokenizer.json")
    shutil.rmtree(checkpoint / "frame_encoder")
    by_folder = find_sources(checkpoint, tokenizer=other, frame_encoder=other)
    by_file = find_sources(checkpoint, tokenizer=other / "tokenizer.json", frame_encoder=other)
    assert by_folder == by_file
    assert by_folder.tokenizer == other / "tokenizer.json"
    assert by_folder.frame_encoder == other


def test_missing_parts_are_named_with_the_option_that_names_them(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"There is no file .*none\.json.*--tokenizer"):
        find_sources(checkpoint, tokenizer=tmp_path / "none.json")
    with pytest.raises(ExportError, match=r"There is no folder .*none; .*--frame-encoder"):
        find_sources(checkpoint, frame_encoder=tmp_path / "none")
    (checkpoint / "tokenizer.json").unlink()
    with pytest.raises(ExportError, match=r"There is no file .*checkpoint/tokenizer\.json"):
        find_sources(checkpoint)
    with pytest.raises(CheckpointError, match="is not a folder"):
        find_sources(tmp_path / "nowhere")
    (checkpoint / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        find_sources(checkpoint)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"\xff\xfe\x00", ExportError, "is not text"),
        (b"{}", BundleError, "The tokenizer cannot be read"),
        (b"not json", BundleError, "The tokenizer cannot be read"),
    ],
)
def test_a_tokenizer_that_cannot_be_read(
    checkpoint: Path, content: bytes, error: type[Exception], message: str
) -> None:
    (checkpoint / "tokenizer.json").write_bytes(content)
    with pytest.raises(error, match=message):
        find_sources(checkpoint)


def test_a_tokenizer_with_ids_beyond_the_word_embeddings(checkpoint: Path) -> None:
    text = train_tokenizer_json(
        [*SENTENCES, "another corpus of words " * 3, "with more merges than the model knows"], 301
    )
    ids = json.loads(text)["model"]["vocab"].values()
    added = [token["id"] for token in json.loads(text)["added_tokens"]]
    assert max(*ids, *added) == CONFIG.vocab_size
    (checkpoint / "tokenizer.json").write_text(text, encoding="utf-8")
    with pytest.raises(FingerprintError, match=r"token ids up to 300, .* 300 word embeddings \(ids up to 299\)"):
        find_sources(checkpoint)
    edit_config(checkpoint, vocab_size=301)
    assert find_sources(checkpoint).config.vocab_size == 301


def test_a_frame_encoder_of_another_feature_width(checkpoint: Path, tmp_path: Path) -> None:
    write_frame_encoder(tmp_path / "wide", CONFIG.feature_dim + 1)
    with pytest.raises(FingerprintError, match=r"features of width 25, .* features of width 24"):
        find_sources(checkpoint, frame_encoder=tmp_path / "wide")


def test_a_frame_encoder_that_was_swapped(checkpoint: Path, tmp_path: Path) -> None:
    path = checkpoint / "frame_encoder" / GRAPH_FILE
    model = onnx.load(str(path))
    model.metadata_props.add(key="made", value="again")
    onnx.save(model, str(path))
    with pytest.raises(FingerprintError, match="was written for"):
        find_sources(checkpoint)


def test_a_frame_encoder_with_weights_in_another_file(checkpoint: Path) -> None:
    folder = checkpoint / "frame_encoder"
    model = onnx.load(str(folder / GRAPH_FILE))
    onnx.save(model, str(folder / GRAPH_FILE), save_as_external_data=True, location="weights", size_threshold=0)
    describe_frame_encoder(folder, "mean colour")
    with pytest.raises(ExportError, match="keeps weights in another file, which its fingerprint does not cover"):
        find_sources(checkpoint)


def test_the_fingerprint_changes_with_all_that_decides_a_vector_and_with_nothing_else(
    original: Path, tmp_path: Path
) -> None:
    def changed(name: str) -> Path:
        return Path(shutil.copytree(original, tmp_path / name))

    weights = changed("weights")
    model = HeroModel.from_pretrained(weights)
    with torch.no_grad():
        model.moment.query.bias[0] += 1e-3
    model.save_pretrained(weights)
    tokenizer = changed("tokenizer")
    (tokenizer / "tokenizer.json").write_text(train_tokenizer_json(["other words"], 280), encoding="utf-8")
    frames = changed("frames")
    write_frame_encoder(
        frames / "frame_encoder",
        CONFIG.feature_dim,
        lambda model: model.graph.initializer[1].CopyFrom(
            onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(model.graph.initializer[1]) * 2, "weights")
        ),
    )
    folders = [weights, tokenizer, frames]
    for name, value in {"clip_interval": 2.0, "clip_limit": 19, "subtitle_context": 1, "num_heads": 4}.items():
        folders.append(changed(name))
        edit_config(folders[-1], **{name: value})
    same = changed("same")
    edit_config(same, hidden_dropout=0.0, initializer_range=0.1, min_span_clips=1)

    first = find_sources(original).fingerprint()
    others = [find_sources(folder).fingerprint() for folder in folders]
    assert len({first, *others}) == 1 + len(folders)
    assert find_sources(same).fingerprint() == first
    assert len(first) == 64
    assert set(first) <= set("0123456789abcdef")


def test_the_same_model_saved_again_has_the_same_fingerprint(original: Path, checkpoint: Path) -> None:
    HeroModel.from_pretrained(original).save_pretrained(checkpoint)
    assert find_sources(checkpoint).fingerprint() == find_sources(original).fingerprint()


def test_a_checkpoint_from_the_hub_comes_with_its_frame_encoder(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's own filter decides which files are fetched; only the transport is replaced."""
    (original / "training_state.bin").write_text("of no use here")

    def fetch(repository: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        assert (repository, revision) == ("name/hero", None)
        files = [path.relative_to(original).as_posix() for path in original.rglob("*") if path.is_file()]
        for name in filter_repo_objects(files, allow_patterns=allow_patterns):
            (tmp_path / "cache" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(original / name, tmp_path / "cache" / name)
        return str(tmp_path / "cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    sources = find_sources("name/hero")
    assert sources.fingerprint() == find_sources(original).fingerprint()
    assert not (tmp_path / "cache" / "training_state.bin").exists()


def test_sources_cannot_be_altered(checkpoint: Path) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        find_sources(checkpoint).tokenizer = checkpoint  # type: ignore[misc]
