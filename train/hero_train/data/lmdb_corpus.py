"""A training corpus from the authors' LMDB files: the objects that the folder reader gives, without a tokenizer or a video.

Which frames belong to which subtitle, and the tokens, are read as the authors' preprocessing stored them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from hero_sdk.rows import Segment, VideoInput
from hero_sdk.tokens import BEGIN_ID, SEPARATOR_ID
from hero_sdk.types import FloatArray, IntArray, Subtitle
from hero_train.config import HeroConfig
from hero_train.data.annotations import QUERY_TYPES, MomentQuery, QueryType, Rounding, parse_moments
from hero_train.data.corpus import CorpusVideo, spoken_queries
from hero_train.data.lmdb_store import Damage, FeatureStore, TextStore, read_sidecar
from hero_train.errors import DataError

DAMAGED_SHARE = 0.001
"""How many records may be damaged, of all that are read."""


def read_lmdb_corpus(
    queries: Path,
    subtitles: Path | None,
    features: Path,
    config: HeroConfig,
    *,
    rounding: Rounding = "outward",
    longest_query: int | None = None,
    damaged_share: float = DAMAGED_SHARE,
) -> tuple[list[CorpusVideo], Damage]:
    """The videos that a split's queries are about, with their queries.

    As the authors' loader does, clips beyond the clip limit are dropped, and the subtitles after the first one that reaches
    beyond it. All features are held in memory.

    Args:
        queries: text store of the split, such as ``txt/tvr_train.db``.
        subtitles: text store of the subtitles, such as ``txt/tv_subtitles.db``. None: the model sees the picture only, in one
            segment of all frames with ``<s>``, as in the authors' video-only tasks.
        features: feature store, such as ``video/tv/resnet_slowfast_1.5_compressed``.
        config: of the model: clip interval, clip limit and subtitle context.
        rounding: which clips a moment is trained to reach.
        longest_query: queries of more tokens are left out (the authors train on 60 at most); None keeps all.
        damaged_share: how many of the records may be damaged, in [0, 1]. Their videos and queries are left out.

    Returns:
        The videos in the order of their first query, and what could not be read.

    Raises:
        DataError: a store is missing or cut off, was made for another clip interval or other special tokens, or too many records
            are damaged.
    """
    _check_interval(features, config.clip_interval)
    damage = Damage()
    with TextStore(queries) as store:
        store.check_tokens()
        video_of = {str(key): str(video) for key, video in store.sidecar("query2video.json").items()}
        asked = store.read(_short_enough(store, video_of, longest_query), damage)
    wanted = list(dict.fromkeys(video_of[key] for key in asked))
    with FeatureStore(features) as frames:
        extracted = frames.read(wanted, damage)
    spoken: Mapping[str, dict[str, Any]] = {}
    durations: dict[str, float] = {}
    if subtitles is not None:
        with TextStore(subtitles) as store:
            store.check_tokens()
            spoken = store.read(extracted, damage)
            durations = _durations(subtitles / "vid2dur_idx.json")

    videos: dict[str, CorpusVideo] = {}
    for video_id in wanted:
        if video_id not in extracted or (subtitles is not None and video_id not in spoken):
            continue
        clips = extracted[video_id][: config.clip_limit]
        duration = durations.get(video_id, len(extracted[video_id]) * config.clip_interval)
        try:
            videos[video_id] = _video(video_id, duration, clips, spoken.get(video_id), config, rounding)
        except _UNFIT as error:
            assert subtitles is not None
            damage.reasons[f"{subtitles.name}:{video_id}"] = f"not a record of subtitles ({error!r})"
    for key, record in asked.items():
        video = videos.get(video_of[key])
        if video is None:
            continue
        try:
            query = _query(key, record, video)
            tokens = _tokens([BEGIN_ID], record["input_ids"])
        except (*_UNFIT, DataError) as error:
            damage.reasons[f"{queries.name}:{key}"] = f"not a record of a query ({error!r})"
            continue
        video.ask(query, tokens, config.clip_interval, rounding)
    damage.refuse_above(damaged_share)
    return list(videos.values()), damage


_UNFIT = (KeyError, IndexError, TypeError, ValueError, OverflowError)
"""What comes of a record that is whole and does not have the entries of its kind."""


def _check_interval(features: Path, clip_interval: float) -> None:
    named = re.search(r"_(\d+(?:\.\d+)?)(?:_compressed)?$", features.name)
    if named and not math.isclose(float(named[1]), clip_interval):
        raise DataError(
            f"{features} has features of {named[1]} s and the model's clips take {clip_interval:g} s. "
            "Take the features of that interval, or set model.clip_interval."
        )


def _durations(path: Path) -> dict[str, float]:
    """Seconds of each video of all splits; nothing where the stores come without that file."""
    if not path.exists():
        return {}
    try:
        return {video: float(entry[0]) for split in read_sidecar(path).values() for video, entry in split.items()}
    except (AttributeError, *_UNFIT) as error:
        raise DataError(f"{path} does not have [seconds, number] for each video of each split ({error!r}).") from error


def _short_enough(store: TextStore, ids: Mapping[str, str], longest: int | None) -> list[str]:
    if longest is None:
        return list(ids)
    lengths = store.sidecar("id2len.json")
    return [key for key in ids if lengths.get(key, 0) <= longest]


def _video(
    video_id: str,
    duration: float,
    features: FloatArray,
    record: dict[str, Any] | None,
    config: HeroConfig,
    rounding: Rounding,
) -> CorpusVideo:
    if record is None:
        every = Segment(np.arange(len(features), dtype=np.int32), np.array([BEGIN_ID], dtype=np.int32))
        return CorpusVideo(video_id, duration, VideoInput(features, (every,)), ())
    texts = [_tokens([], tokens) for tokens in record["input_ids"]]
    owned = _frames_read(record["unique_sub2frames"], len(texts), len(features))
    separator = np.array([SEPARATOR_ID], dtype=np.int32)
    segments = tuple(
        Segment(frames, np.concatenate([separator, *texts[max(0, index - config.subtitle_context) : index + 1]]))
        for index, frames in owned
    )
    # A video without subtitles has segments without text in their place.
    subtitles = [Subtitle(float(line["start"]), float(line["end"]), str(line["text"])) for line in record["sub"]]
    queries = [_tokens([BEGIN_ID], text.tolist()) for text in texts[: len(subtitles)]]
    spoken = spoken_queries(subtitles, queries, len(features), config.clip_interval, rounding)
    return CorpusVideo(video_id, duration, VideoInput(features, segments), spoken)


def _frames_read(owned: list[tuple[int, list[int]]], texts: int, clips: int) -> list[tuple[int, IntArray]]:
    """Each subtitle's number and frames, up to the first that reaches beyond the clips that are read."""
    kept: list[tuple[int, IntArray]] = []
    for index, frames in owned:
        inside = sorted(frame for frame in frames if frame < clips)
        if not 0 <= index < texts or min(frames, default=0) < 0:
            raise ValueError(f"subtitle {index} of {texts} with the frames {frames}")
        if inside or not frames:
            kept.append((index, np.array(inside, dtype=np.int32)))
        if len(inside) < len(frames):
            break
    return kept


def _tokens(first: list[int], ids: list[int]) -> IntArray:
    """Token ids behind special ones, int32."""
    tokens = np.array([*first, *ids], dtype=np.int32)
    if tokens.ndim != 1 or (len(tokens) and tokens.min() < 0):
        raise ValueError(f"the token ids {ids}")
    return tokens


def _query(key: str, record: dict[str, Any], video: CorpusVideo) -> MomentQuery:
    kind = record.get("type", "vt")
    if kind not in QUERY_TYPES:
        raise ValueError(f"the type {kind!r}")
    moments = parse_moments(record.get("target"), "It")
    return MomentQuery(key, str(record["desc"]), video.video_id, moments, cast("QueryType", kind))
