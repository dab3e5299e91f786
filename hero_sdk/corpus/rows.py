"""One row per video: the schema of the corpus table, and the way of an encoded video into it and out of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from hero_sdk.errors import CorpusError, InputError, require
from hero_sdk.types import EncodedVideo, FloatArray, Subtitle

FORMAT_VERSION = 1

SEARCH_COLUMNS = (
    "video_id",
    "duration",
    "clip_interval",
    "subtitle_start",
    "subtitle_end",
    "subtitle_text",
    "vector",
)
"""What a search reads of each candidate."""


@dataclass(frozen=True)
class Identity:
    """What a corpus is bound to, kept in the metadata of its schema.

    Attributes:
        fingerprint: of the bundle that embedded the videos.
        hidden_size: width of a clip embedding.
        clip_interval: seconds per clip.
    """

    fingerprint: str
    hidden_size: int
    clip_interval: float

    def metadata(self) -> dict[bytes, bytes]:
        """As schema metadata."""
        values = {"format": FORMAT_VERSION, **self.__dict__}
        return {f"hero:{name}".encode(): str(value).encode() for name, value in values.items()}

    @classmethod
    def from_metadata(cls, metadata: dict[bytes, bytes] | None, origin: str) -> Identity:
        """Read it back.

        Args:
            metadata: of the schema.
            origin: the folder, for messages.

        Raises:
            CorpusError: not the table of a corpus, or of another format version.
        """
        found = {key.decode(): value.decode() for key, value in (metadata or {}).items() if key.startswith(b"hero:")}
        version = found.get("hero:format")
        if version != str(FORMAT_VERSION):
            raise CorpusError(
                f"{origin} holds a table of corpus format {version!r}; this version of the SDK reads {FORMAT_VERSION}. "
                "Index the videos again into a new folder, or use the SDK that made this one."
            )
        try:
            return cls(found["hero:fingerprint"], int(found["hero:hidden_size"]), float(found["hero:clip_interval"]))
        except (KeyError, ValueError) as error:
            raise CorpusError(
                f"{origin} has incomplete corpus metadata ({error!r}). Index the videos again into a new folder."
            ) from error


def corpus_schema(identity: Identity) -> Any:
    """The pyarrow schema of the table."""
    pa = require("pyarrow", "corpus", "keep a corpus")
    embedding = pa.list_(pa.field("item", pa.float16()), identity.hidden_size)
    # A declared primary key makes two processes that add the same id conflict instead of both succeeding.
    key = {"lance-schema:unenforced-primary-key": "true"}
    fields = [
        pa.field("video_id", pa.string(), nullable=False, metadata=key),
        pa.field("source", pa.string()),
        pa.field("added", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
        pa.field("duration", pa.float64(), nullable=False),
        pa.field("clip_interval", pa.float64(), nullable=False),
        pa.field("clips", pa.int32(), nullable=False),
        pa.field("subtitle_start", pa.list_(pa.float64())),
        pa.field("subtitle_end", pa.list_(pa.float64())),
        pa.field("subtitle_text", pa.list_(pa.string())),
        pa.field("vector", pa.list_(embedding)),
    ]
    return pa.schema(fields, metadata=identity.metadata())


def video_row(video_id: str, video: EncodedVideo, source: str | None, identity: Identity) -> Any:
    """A pyarrow table with the one row of a video.

    Raises:
        InputError: an empty id, one that is not text, or embeddings that do not belong in this corpus.
    """
    check_video_id(video_id)
    shape = np.shape(video.clip_embeddings)
    if len(shape) != 2 or shape[0] < 1 or shape[1] != identity.hidden_size:
        raise InputError(
            f"Video {video_id!r} has clip embeddings of shape {shape}; the corpus keeps (clips, {identity.hidden_size}) "
            "with at least one clip. Encode the video with the bundle of this corpus."
        )
    if video.clip_interval != identity.clip_interval:
        raise InputError(
            f"Video {video_id!r} has clips of {video.clip_interval} s and the corpus of {identity.clip_interval} s. "
            "Encode the video with the bundle of this corpus."
        )
    with np.errstate(over="ignore"):
        embeddings = np.asarray(video.clip_embeddings).astype(np.float16)
    if not np.isfinite(embeddings).all():
        raise InputError(
            f"The clip embeddings of video {video_id!r} do not fit float16 (not finite, or beyond 65504). "
            "Check the features that went in and the precision of the engine."
        )
    pa = require("pyarrow", "corpus", "keep a corpus")
    schema = corpus_schema(identity)
    clips = len(embeddings)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(embeddings.ravel()), type=schema.field("vector").type.value_type)
    vector = pa.ListArray.from_arrays(pa.array([0, clips], pa.int32()), flat)
    values = {
        "video_id": [video_id],
        "source": [source],
        "added": [datetime.now(timezone.utc)],
        "fingerprint": [identity.fingerprint],
        "duration": [float(video.duration)],
        "clip_interval": [video.clip_interval],
        "clips": [clips],
        "subtitle_start": [[subtitle.start for subtitle in video.subtitles]],
        "subtitle_end": [[subtitle.end for subtitle in video.subtitles]],
        "subtitle_text": [[as_text(subtitle.text) for subtitle in video.subtitles]],
    }
    columns = [pa.array(value, schema.field(name).type) for name, value in values.items()]
    return pa.Table.from_arrays([*columns, vector], schema=schema)


def check_video_id(video_id: object) -> None:
    """Refuse an id that cannot be kept, with an InputError."""
    if not isinstance(video_id, str) or not video_id or "\0" in video_id or as_text(video_id) != video_id:
        raise InputError(f"The video id is {video_id!r}; expected text (valid Unicode, not empty, without NUL).")


def as_text(text: str) -> str:
    """Text that can be stored: what is no valid Unicode (a file name in another encoding) becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


@dataclass(frozen=True)
class Candidates:
    """The videos that a search looks at, as they come out of the table.

    Attributes:
        table: pyarrow table with ``SEARCH_COLUMNS``.
        hidden_size: width of a clip embedding.
    """

    table: Any
    hidden_size: int

    @classmethod
    def join(cls, batches: Iterable[Any], hidden_size: int) -> Candidates:
        """From record batches, at least one."""
        pa = require("pyarrow", "corpus", "search a corpus")
        return cls(pa.Table.from_batches(list(batches)).combine_chunks(), hidden_size)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def video_ids(self) -> list[str]:
        """The ids, in the order of the rows."""
        return list(self.table["video_id"].to_pylist())

    @cached_property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(videos,) clips of each video."""
        return np.concatenate([_lengths(chunk) for chunk in self.table["vector"].chunks])

    @cached_property
    def clip_embeddings(self) -> FloatArray:
        """(clips, hidden) float32, the clips of all videos one after another."""
        return np.concatenate([_embeddings(chunk, self.hidden_size) for chunk in self.table["vector"].chunks])

    def describe(self, number: int) -> tuple[str, EncodedVideo]:
        """Id and encoded video of a row."""
        # Without the embeddings, which as Python numbers would cost more than all the rest of a search.
        row = self.table.drop_columns(["vector"]).slice(number, 1).to_pylist()[0]
        start = int(self.lengths[:number].sum())
        subtitles = zip(row["subtitle_start"], row["subtitle_end"], row["subtitle_text"], strict=True)
        video = EncodedVideo(
            clip_embeddings=self.clip_embeddings[start : start + int(self.lengths[number])],
            clip_interval=row["clip_interval"],
            duration=row["duration"],
            subtitles=tuple(Subtitle(*subtitle) for subtitle in subtitles),
        )
        return row["video_id"], video

    def take(self, rows: npt.NDArray[np.int64]) -> Candidates:
        """Some of the rows, in this order."""
        return Candidates(self.table.take(rows), self.hidden_size)


def _lengths(column: Any) -> npt.NDArray[np.int64]:
    return np.asarray(column.value_lengths().to_numpy(zero_copy_only=False), dtype=np.int64)


def _embeddings(column: Any, hidden_size: int) -> FloatArray:
    # flatten() and not .values, which ignores the offset of a slice.
    values = column.flatten().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(values, dtype=np.float32).reshape(-1, hidden_size)
