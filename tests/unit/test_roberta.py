"""A HERO that starts from a RoBERTa reads text as that RoBERTa's layers do; what is no RoBERTa is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertConfig, RobertaConfig, RobertaForMaskedLM, RobertaModel

from hero_sdk.frame_encoder import FrameEncoder, load_frame_encoder
from hero_sdk.tokens import TextTokenizer
from hero_train.errors import CheckpointError, ConfigError
from hero_train.initial import start_model
from hero_train.model.captioning import HeroForCaptioning
from hero_train.model.hero import HeroEncoders, HeroModel
from hero_train.model.pretraining import HeroForPretraining
from hero_train.recipes.setup import make_model
from hero_train.roberta import load_roberta
from hero_train.run_config import BaseRunConfig, load_config
from hero_train.tokenizer import embedding_rows, train_tokenizer_json
from hero_train.training import Session
from tests.tiny_checkpoint import SENTENCES, write_frame_encoder

DEPTH, WORDS, WIDTH, WIDTH_OF_FEATURES = 6, 300, 16, 6
ENTRIES = {
    "temporal_layers": 1,
    "temporal_positions": 32,
    "query_positions": 32,
    "clip_limit": 16,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
}
SIZES = {
    "vocab_size": WORDS,
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 34,
    "type_vocab_size": 1,
}


@pytest.fixture(scope="module")
def roberta() -> RobertaModel:
    """A RoBERTa of a few thousand weights, none of which has its usual initial value."""
    torch.manual_seed(0)
    # HERO's norms have other epsilons than RoBERTa's.
    model = RobertaModel(RobertaConfig(**SIZES, layer_norm_eps=1e-12), add_pooling_layer=False).eval()
    model.embeddings.LayerNorm.eps = 1e-5
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)
    return model


@pytest.fixture(scope="module")
def folder(roberta: RobertaModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("roberta")
    roberta.save_pretrained(path)
    return path


def start(source: Path, entries: dict[str, Any]) -> HeroModel:
    """A retrieval model that starts from a RoBERTa."""
    return start_model(HeroModel, f"roberta:{source}", entries, feature_dim=WIDTH_OF_FEATURES, vocabulary=WORDS)[0]


@pytest.mark.parametrize(
    ("layers", "taken"), [(1, [5]), (2, [2, 5]), (3, [1, 3, 5]), (4, [0, 1, 2, 3]), (6, [0, 1, 2, 3, 4, 5])]
)
def test_text_is_read_as_by_the_layers_that_were_taken(
    roberta: RobertaModel, folder: Path, layers: int, taken: list[int]
) -> None:
    model = start(folder, {**ENTRIES, "cross_modal_layers": layers}).eval()
    tokens = torch.randint(3, WORDS, (2, 9), generator=torch.Generator().manual_seed(1))
    every = roberta.encoder.layer
    roberta.encoder.layer = torch.nn.ModuleList(every[number] for number in taken)
    with torch.inference_mode():
        found = model.cross_modal.encode_text(tokens.int(), torch.ones_like(tokens).int())
        # HERO counts positions from 0.
        expected = roberta(tokens, position_ids=torch.arange(9).expand(2, 9)).last_hidden_state
    roberta.encoder.layer = every
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_sizes_follow_from_the_roberta(folder: Path) -> None:
    config = start(folder, ENTRIES).config
    assert (config.hidden_size, config.num_heads, config.intermediate_size, config.text_positions) == (WIDTH, 2, 32, 34)
    assert config.vocab_size == embedding_rows(WORDS) == 304
    assert (config.feature_dim, config.temporal_layers, config.cross_modal_layers) == (6, 1, 6)


def test_words_beyond_the_vocabulary_are_zero(roberta: RobertaModel, folder: Path) -> None:
    words = start(folder, ENTRIES).cross_modal.text.word.weight
    torch.testing.assert_close(words[:WORDS], roberta.embeddings.word_embeddings.weight, rtol=0, atol=0)
    assert not words[WORDS:].any()


def test_what_begins_at_random_follows_the_seed(folder: Path) -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(start(folder, ENTRIES).state_dict())
    same, other = ({name for name in states[0] if torch.equal(states[0][name], state[name])} for state in states[1:])
    assert same == set(states[0])
    assert "cross_modal.text.word.weight" in other
    assert "cross_modal.frames.linear.weight" not in other
    assert "temporal.layers.0.intermediate.weight" not in other


@pytest.mark.parametrize(
    "entries", [{"hidden_size": 32}, {"num_heads": 4}, {"intermediate_size": 64}, {"text_positions": 514}]
)
def test_another_size_than_the_robertas_is_refused(folder: Path, entries: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=f"model sets {entries}".replace("{", r"\{").replace("}", r"\}")):
        start(folder, {**ENTRIES, **entries})
    size = {"hidden_size": WIDTH, "num_heads": 2, "intermediate_size": 32, "text_positions": 34}
    start(folder, {**ENTRIES, **{name: size[name] for name in entries}})


def test_more_layers_than_the_roberta_has_are_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=f"has {DEPTH} layers and the model takes {DEPTH + 1}"):
        start(folder, {**ENTRIES, "cross_modal_layers": DEPTH + 1})


def test_weights_of_other_shapes_are_refused(roberta: RobertaModel, folder: Path) -> None:
    model = start(folder, ENTRIES)
    state = roberta.state_dict()
    state["embeddings.position_embeddings.weight"] = torch.zeros(35, WIDTH)
    with pytest.raises(
        CheckpointError,
        match=r"is \(35, 16\) and cross_modal\.text\.position\.weight of the configured model is \(34, 16\)",
    ):
        load_roberta(model, state)
    del state["embeddings.position_embeddings.weight"]
    with pytest.raises(
        CheckpointError, match=r"some of the weights of cross_modal: there is no cross_modal\.text\.position\.weight"
    ):
        load_roberta(model, state)


def copied(folder: Path, to: Path) -> Path:
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def test_a_roberta_with_weights_missing_is_refused(folder: Path, tmp_path: Path) -> None:
    """Transformers alone would fill them in at random."""
    broken = copied(folder, tmp_path / "broken")
    state = load_file(broken / "model.safetensors")
    (name,) = (name for name in state if name.endswith("encoder.layer.1.output.dense.bias"))
    del state[name]
    save_file(state, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"layer\.1\.output\.dense\.bias.*whole RoBERTa"):
        start(broken, ENTRIES)


def test_a_file_that_is_cut_off_is_refused(folder: Path, tmp_path: Path) -> None:
    broken = copied(folder, tmp_path / "broken")
    content = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="cannot load a RoBERTa"):
        start(broken, ENTRIES)


def test_pickled_weights_are_refused(roberta: RobertaModel, folder: Path, tmp_path: Path) -> None:
    pickled = copied(folder, tmp_path / "pickled")
    (pickled / "model.safetensors").unlink()
    torch.save(roberta.state_dict(), pickled / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot load a RoBERTa"):
        start(pickled, ENTRIES)


def test_what_is_no_roberta_is_refused(tmp_path: Path) -> None:
    BertConfig(vocab_size=30, hidden_size=8, num_attention_heads=2).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"is a bert; expected a roberta"):
        start(tmp_path, ENTRIES)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="cannot load a RoBERTa"):
        start(tmp_path, ENTRIES)
    with pytest.raises(CheckpointError, match="cannot load a RoBERTa"):
        start(tmp_path / "absent", ENTRIES)


@pytest.fixture(scope="module")
def language_model() -> RobertaForMaskedLM:
    """A RoBERTa with its head of masked language modelling."""
    torch.manual_seed(1)
    model = RobertaForMaskedLM(RobertaConfig(**{**SIZES, "num_hidden_layers": 2}, layer_norm_eps=1e-12)).eval()
    model.roberta.embeddings.LayerNorm.eps = model.lm_head.layer_norm.eps = 1e-5
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.1)
    return model


@pytest.fixture(params=["folder", "file", "authors' file"])
def head_source(request: pytest.FixtureRequest, language_model: RobertaForMaskedLM, tmp_path: Path) -> Path:
    """The same as transformers saves it, as a plain file of its tensors, and as the authors' conversion names them."""
    if request.param == "folder":
        language_model.save_pretrained(tmp_path / "roberta")
        return tmp_path / "roberta"
    state = language_model.state_dict()
    if request.param == "authors' file":
        state = {authors_name(name): tensor for name, tensor in state.items() if name != "lm_head.decoder.bias"}
    torch.save(state, tmp_path / "pretrain-tv-init.bin")
    return tmp_path / "pretrain-tv-init.bin"


def authors_name(name: str) -> str:
    """A name of transformers' as ``pretrain-tv-init.bin`` has it."""
    return "roberta." + name.removeprefix("roberta.").replace("lm_head.layer_norm", "lm_head.LayerNorm")


@pytest.mark.parametrize("model_class", [HeroForPretraining, HeroForCaptioning])
def test_words_are_predicted_as_by_the_robertas_own_head(
    model_class: type[HeroEncoders], head_source: Path, language_model: RobertaForMaskedLM
) -> None:
    entries = {**ENTRIES, "cross_modal_layers": 2, "num_heads": 2}
    model, report = start_model(
        model_class, f"roberta:{head_source}", entries, feature_dim=WIDTH_OF_FEATURES, vocabulary=WORDS
    )
    assert isinstance(model, HeroForPretraining | HeroForCaptioning)
    model.eval()
    tokens = torch.randint(3, WORDS, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        hidden = model.cross_modal.encode_text(tokens.int(), torch.ones_like(tokens).int())
        found = model.language(hidden, model.cross_modal.text.word.weight)
        expected = language_model(tokens, position_ids=torch.arange(9).expand(2, 9)).logits
    torch.testing.assert_close(found[..., :WORDS], expected, rtol=0, atol=1e-5)
    assert not found[..., WORDS:].any()
    assert not any(name.startswith("language.") for name in report.fresh)
    assert "word_embeddings.weight" in str(report.adapted)


def test_a_model_without_such_a_head_leaves_it_out(head_source: Path) -> None:
    _, report = start_model(
        HeroModel,
        f"roberta:{head_source}",
        {**ENTRIES, "cross_modal_layers": 1, "num_heads": 2},
        feature_dim=WIDTH_OF_FEATURES,
        vocabulary=WORDS,
    )
    reasons = {name: why for name, why in report.left_out.items() if "lm_head" in name}
    assert set(reasons.values()) <= {
        "head of masked language modelling and captioning",
        "the word embeddings once more",
    }
    assert len(reasons) >= 6
    skipped = [name for name, why in report.left_out.items() if why == "a layer between those that are taken"]
    assert skipped
    assert all(".layer.0." in name for name in skipped)
    assert report.fresh_frames


def test_text_positions_are_cut_when_that_is_asked_for(roberta: RobertaModel, folder: Path) -> None:
    model, report = start_model(
        HeroModel,
        f"roberta:{folder}",
        {**ENTRIES, "text_positions": 20},
        feature_dim=WIDTH_OF_FEATURES,
        vocabulary=WORDS,
        resize_positions=True,
    )
    expected = roberta.embeddings.position_embeddings.weight[:20]
    torch.testing.assert_close(model.cross_modal.text.position.weight, expected, rtol=0, atol=0)
    assert report.adapted["embeddings.position_embeddings.weight"] == "34 rows, of which the first 20 were taken for 20"


def test_a_file_of_other_weights_is_refused(tmp_path: Path) -> None:
    torch.save({"bert.embeddings.word_embeddings.weight": torch.zeros(3, 64)}, tmp_path / "bert.bin")
    with pytest.raises(CheckpointError, match=r"bert\.bin has no 'embeddings\.word_embeddings\.weight'.*a RoBERTa"):
        start(tmp_path / "bert.bin", ENTRIES)


def test_a_file_needs_the_number_of_heads_where_their_width_is_another(roberta: RobertaModel, tmp_path: Path) -> None:
    torch.save(roberta.state_dict(), tmp_path / "roberta.bin")
    with pytest.raises(CheckpointError, match="16 is not a multiple of the authors' head width 64"):
        start(tmp_path / "roberta.bin", ENTRIES)
    assert start(tmp_path / "roberta.bin", {**ENTRIES, "num_heads": 2}).config.num_heads == 2


def with_values(state: dict[str, Tensor], name: str, value: float) -> dict[str, Tensor]:
    """A copy of a state dict of which one tensor has another first value."""
    changed = {key: tensor.clone() for key, tensor in state.items()}
    changed[name].flatten()[0] = value
    return changed


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(roberta: RobertaModel, folder: Path, value: float) -> None:
    name = "encoder.layer.5.output.dense.weight"
    with pytest.raises(CheckpointError, match=rf"{name} has values that are not finite"):
        load_roberta(start(folder, ENTRIES), with_values(roberta.state_dict(), name, value))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> FrameEncoder:
    return load_frame_encoder(write_frame_encoder(tmp_path_factory.mktemp("encoder"), WIDTH_OF_FEATURES))


def run_config(folder: Path, **changes: Any) -> BaseRunConfig:
    """A run that starts from the RoBERTa that lies beside its configuration."""
    content = {
        "task": "retrieval",
        "output": "run",
        "frame_encoder": "encoder",
        "data": {"videos": "videos", "train": "train.jsonl", "features": "features"},
        "model": ENTRIES,
        "rows": {"slots": 32, "frames": 16, "temporal_slots": 32, "query_tokens": 16},
        "initial": f"roberta:{folder.name}",
    }
    path = folder.parent / "run.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    return load_config(path)


def session(config: BaseRunConfig) -> Session:
    AcceleratorState._reset_state(reset_partial_state=True)
    return Session(config, console=Console(quiet=True))


def test_a_run_starts_from_the_roberta_that_its_configuration_names(
    roberta: RobertaModel, folder: Path, encoder: FrameEncoder
) -> None:
    config = run_config(folder)
    assert config.initial == f"roberta:{folder}"
    tokenizer = TextTokenizer(train_tokenizer_json(SENTENCES, WORDS))
    model = make_model(HeroModel, session(config), tokenizer, encoder.spec.feature_dim)
    assert isinstance(model, HeroModel)
    assert torch.equal(model.cross_modal.text.word.weight[:WORDS], roberta.embeddings.word_embeddings.weight)
    assert model.config.feature_dim == encoder.spec.feature_dim


def test_a_hub_id_stays_as_it_is(folder: Path) -> None:
    assert run_config(folder, initial="roberta:roberta-base").initial == "roberta:roberta-base"
    assert run_config(folder, initial="roberta:someone/roberta").initial == "roberta:someone/roberta"


def test_another_tokenizer_is_refused(folder: Path, encoder: FrameEncoder) -> None:
    tokenizer = TextTokenizer(train_tokenizer_json(SENTENCES, WORDS - 8))
    with pytest.raises(ConfigError, match=r"tokenizer 292 ids\. Set tokenizer\.source"):
        make_model(HeroModel, session(run_config(folder)), tokenizer, encoder.spec.feature_dim)


def test_a_saved_start_can_be_loaded(folder: Path, tmp_path: Path) -> None:
    model = start(folder, ENTRIES)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["hidden_size"] == WIDTH
    loaded = HeroModel.from_pretrained(tmp_path).state_dict()
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded[name], weight)
