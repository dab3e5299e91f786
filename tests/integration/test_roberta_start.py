"""A training run from video files that starts from a RoBERTa."""

from __future__ import annotations

from pathlib import Path

import torch
import yaml
from accelerate.state import AcceleratorState
from transformers import RobertaConfig, RobertaModel

from hero_train.model.hero import HeroModel
from hero_train.optimisation import FINAL_RATE
from hero_train.recipes import retrieval
from hero_train.run_config import load_config
from hero_train.tokenizer import train_tokenizer_json
from tests.tiny_training import TINY, VIDEOS, write_training_set

WORDS = 300
LINES = [line for _, lines in VIDEOS.values() for line in lines]
DECIDED = ("hidden_size", "num_heads", "intermediate_size", "text_positions")


def test_a_run_begins_with_the_robertas_words_and_fits_the_rest_to_the_features(tmp_path: Path) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    write_training_set(tmp_path)
    torch.manual_seed(5)
    hidden, heads, intermediate, positions = (TINY[name] for name in DECIDED)
    roberta = RobertaModel(
        RobertaConfig(
            vocab_size=WORDS,
            hidden_size=hidden,
            num_attention_heads=heads,
            intermediate_size=intermediate,
            max_position_embeddings=positions,
            num_hidden_layers=2,
            type_vocab_size=1,
        )
    )
    roberta.save_pretrained(tmp_path / "start")
    (tmp_path / "start" / "tokenizer.json").write_text(train_tokenizer_json(LINES, WORDS), encoding="utf-8")
    content = {
        "task": "retrieval",
        "output": "run",
        "frame_encoder": "encoder",
        "data": {"videos": "videos", "subtitles": "subtitles", "train": "queries.jsonl", "features": "features"},
        "tokenizer": {"source": "start/tokenizer.json"},
        "initial": "roberta:start",
        "model": {name: value for name, value in TINY.items() if name not in DECIDED},
        "sampling": {"videos": 6, "queries_per_video": 3},
        "optimisation": {"steps": 1, "warmup": 0, "learning_rate": 1e-9},
        "rows": {"slots": 64, "frames": 32, "temporal_slots": 32, "query_tokens": 16},
        "precision": "fp32",
        "threads": 1,
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    result = retrieval.run(load_config(tmp_path / "run.yaml"))

    weights = HeroModel.from_pretrained(result.checkpoint).state_dict()
    words = roberta.embeddings.word_embeddings.weight.detach()
    # AdamW moves a weight by about the learning rate, which has a smallest value; the result is rounded to float32.
    one_step = 2 * FINAL_RATE
    # One layer of two: the second.
    layer = roberta.encoder.layer[1].intermediate.dense.weight.detach()
    torch.testing.assert_close(weights["cross_modal.text.word.weight"][:WORDS], words, rtol=0, atol=one_step)
    torch.testing.assert_close(weights["cross_modal.layers.0.intermediate.weight"], layer, rtol=0, atol=one_step)
    for norm in ("cross_modal.frames.feature_norm", "temporal.frames.norm"):
        assert weights[f"{norm}.bias"].abs().max() > 1e-3, "the norm is not fitted to the features"
