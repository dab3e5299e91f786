"""What the tests of training share: a model of a few thousand weights, and a real training set of short videos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hero_train.config import HeroConfig
from tests.tiny_checkpoint import write_frame_encoder
from tests.unit.tiny_videos import write_srt, write_video

TINY: dict[str, Any] = {
    "hidden_size": 16,
    "num_heads": 2,
    "intermediate_size": 32,
    "cross_modal_layers": 1,
    "temporal_layers": 1,
    "text_positions": 64,
    "temporal_positions": 32,
    "query_positions": 32,
    "frame_positions": 32,
    "clip_limit": 16,
    "min_span_clips": 1,
    "max_span_clips": 4,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
}

VIDEOS = {
    "first": (["red", "green", "blue"], ["the apple falls", "a bird sings", "open the door"]),
    "second": (["green", "blue", "red"], ["close the window", "where is the key", "we are late"]),
    "third": (["blue", "red", "green"], ["it rains again", "give me the map", "look at the moon"]),
    "fourth": (["red", "blue", "green"], ["take the train", "nobody came", "sing it louder"]),
    "fifth": (["green", "red", "blue"], ["the soup is cold", "call the doctor", "turn the page"]),
    "sixth": (["blue", "green", "red"], ["hide the letter", "paint the wall", "count to ten"]),
}
"""Three seconds of each colour, with a line spoken over each."""


def tiny_config(**changes: Any) -> HeroConfig:
    """An architecture with every part of a HERO."""
    return HeroConfig(**{**TINY, "vocab_size": 40, "feature_dim": 6, **changes})


def write_annotations(path: Path, queries: list[dict[str, Any]]) -> Path:
    """A JSONL file."""
    path.write_text("".join(json.dumps(query) + "\n" for query in queries), encoding="utf-8")
    return path


def write_training_set(folder: Path) -> Path:
    """Videos, subtitles and a query for each spoken line, and the frame encoder: everything but the configuration."""
    queries = []
    for video, (colours, lines) in VIDEOS.items():
        write_video(folder / "videos" / f"{video}.mp4", colours)
        write_srt(folder / "subtitles" / f"{video}.srt", lines)
        for number, line in enumerate(lines):
            queries.append(
                {
                    "desc_id": len(queries),
                    "desc": f"Somebody says: {line}",
                    "vid_name": video,
                    "ts": [3.0 * number, 3.0 * (number + 1)],
                    "type": "t",
                }
            )
    write_annotations(folder / "queries.jsonl", queries)
    write_frame_encoder(folder / "encoder", 6)
    return folder
