"""Captioned moments: TVC."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hero_train.prepare.records import (
    Record,
    Unusable,
    mended_texts,
    read_id,
    read_moments,
    read_seconds,
    read_text,
    read_video_id,
    require,
    with_length,
)
from hero_train.prepare.schemas.schema import Schema, read_split


def _parse_tvc(row: Mapping[str, Any], line: int) -> Iterator[Record]:
    """``clip_id``, ``vid_name``, ``ts`` and ``descs``, which a split that is to be captioned lacks; in a table ``desc``."""
    require(row, ("clip_id", "vid_name", "ts"))
    described = [{"desc": row["desc"]}] if row.get("desc") is not None else row.get("descs") or []
    if not isinstance(described, list) or not all(isinstance(item, Mapping) for item in described):
        raise Unusable("captions that are none", f"has descs {described!r:.80}; expected a list of objects with desc")
    moments = with_length(read_moments(row["ts"], "ts"), "ts")
    if len(moments) != 1:
        raise Unusable("moment that is none", f"has ts {row['ts']!r:.80}; expected [start, end] in seconds")
    clip_id = read_id(row["clip_id"], "clip_id")
    yield Record(
        clip_id,
        read_video_id(row["vid_name"], "vid_name"),
        {"clip_id": clip_id, "descs": [_caption(item) for item in described]},
        moments,
        duration=read_seconds(row.get("duration")),
        split=read_split(row.get("split")),
        mended=mended_texts(*(item.get("desc") for item in described)),
    )


def _caption(item: Mapping[str, Any]) -> dict[str, Any]:
    caption: dict[str, Any] = {"desc": read_text(item.get("desc"), "a caption")}
    if item.get("desc_id") is not None:
        caption["desc_id"] = read_id(item["desc_id"], "desc_id")
    return caption


TVC = Schema(
    name="tvc",
    task="captions",
    expects="clip_id, vid_name, ts [start, end] and, but for a split to be captioned, descs [{desc}, ...]",
    columns=("clip_id", "vid_name", "ts", "desc"),
    parse=_parse_tvc,
)
