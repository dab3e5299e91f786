"""The authors' LMDB files: text records and frame features by id.

A text store is a folder such as ``tvr_val.db`` whose records are MessagePack in an LZ4 frame, with JSON files beside them
(``meta.json``, ``id2len.json``, ``query2video.json``, ``vid2len.json`` and so on). A feature store is a folder such as
``resnet_slowfast_1.5_compressed`` whose records are either MessagePack with an array in it or an ``.npz``; the number of clips of
each video is in ``id2nframe.json`` of the folder above. Nothing in them is ever unpickled.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import lmdb
import lz4.frame
import msgpack
import numpy as np

from hero_sdk.tokens import BEGIN_ID, PAD_ID, SEPARATOR_ID
from hero_sdk.types import FloatArray
from hero_train.errors import DataError

if TYPE_CHECKING:
    from typing import Self

Record = TypeVar("Record")

SPECIAL_IDS = {"CLS": BEGIN_ID, "PAD": PAD_ID, "SEP": SEPARATOR_ID}
"""The ids in ``meta.json`` that a HERO relies on."""

_FLOATS = ("<f2", "<f4", "<f8")
_NPZ = b"PK"


class _Damaged(Exception):
    """One record cannot be used; the message says why."""


@dataclass
class Damage:
    """The records that could not be read.

    Attributes:
        reasons: by ``store:id``, why.
        read: how many records were asked for, damaged ones included.
    """

    reasons: dict[str, str] = field(default_factory=dict)
    read: int = 0

    def refuse_above(self, share: float) -> None:
        """End here if more records are damaged than can be done without.

        Args:
            share: of the records that were asked for, in [0, 1].

        Raises:
            DataError: more than that; the message has the number and the first of them.
        """
        if len(self.reasons) > share * self.read:
            first = "; ".join(f"{name}: {reason}" for name, reason in list(self.reasons.items())[:3])
            raise DataError(
                f"{len(self.reasons)} of {self.read} records cannot be read ({first}); up to {share:.1%} may be damaged. "
                "Download the files again, or name a larger share."
            )


class _Store:
    """A read-only LMDB folder, to be used in a ``with`` statement."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        file = folder / "data.mdb"
        if not file.is_file():
            raise DataError(f"There is no {file}; expected an LMDB folder of the authors' format.")
        try:
            self._environment = lmdb.open(str(folder), readonly=True, create=False, lock=False, readahead=False)
        except lmdb.Error as error:
            raise DataError(f"{file} is not an LMDB file ({error}). Download it again.") from error
        # Reading a page beyond the end of a mapped file ends the process, so it is looked for first.
        needed = (self._environment.info()["last_pgno"] + 1) * self._environment.stat()["psize"]
        if file.stat().st_size < needed:
            self._environment.close()
            raise DataError(
                f"{file} is cut off: it has {file.stat().st_size} bytes and its pages take {needed}. Download it again."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._environment.close()

    def _read(self, ids: Iterable[str], damage: Damage, parse: Callable[[str, bytes], Record]) -> dict[str, Record]:
        found: dict[str, Record] = {}
        with self._environment.begin() as transaction:
            for key in ids:
                damage.read += 1
                try:
                    content = transaction.get(key.encode())
                    if content is None:
                        raise _Damaged("there is no such record")
                    found[key] = parse(key, content)
                except (_Damaged, lmdb.Error) as error:
                    damage.reasons[f"{self.folder.name}:{key}"] = str(error)
        return found


class TextStore(_Store):
    """Text records of the authors' preprocessing: queries, subtitles, questions, statements or captions."""

    def sidecar(self, name: str) -> dict[str, Any]:
        """One of the JSON files beside the records; see ``read_sidecar``."""
        return read_sidecar(self.folder / name)

    def check_tokens(self) -> None:
        """Refuse a store that was made with another tokenizer's special tokens.

        Raises:
            DataError: ``meta.json`` is missing or has other ids than RoBERTa's.
        """
        meta = self.sidecar("meta.json")
        found = {name: meta.get(name) for name in SPECIAL_IDS}
        if found != SPECIAL_IDS:
            raise DataError(
                f"{self.folder / 'meta.json'} has the special tokens {found}; HERO expects RoBERTa's {SPECIAL_IDS}."
            )

    def read(self, ids: Iterable[str], damage: Damage) -> dict[str, dict[str, Any]]:
        """Records by id, in the order asked for; those that cannot be read are entered in ``damage`` and left out."""
        return self._read(ids, damage, _text_record)


class FeatureStore(_Store):
    """Frame features of the authors, raw or compressed."""

    def lengths(self) -> dict[str, int]:
        """Number of clips of each video, from ``id2nframe.json`` in the folder above (the release) or ``id2frame_len.json`` (the
        authors' converter).

        Raises:
            DataError: no such file, or not whole numbers.
        """
        path, converted = (self.folder.parent / name for name in ("id2nframe.json", "id2frame_len.json"))
        if not path.exists() and converted.exists():
            path = converted
        lengths = read_sidecar(path)
        if wrong := {key: value for key, value in lengths.items() if not _is_length(value)}:
            raise DataError(f"{path} has {dict(list(wrong.items())[:3])}; expected a number of clips for each video.")
        return lengths

    def read(self, ids: Iterable[str], damage: Damage) -> dict[str, FloatArray]:
        """Features (clips, feature_dim) float32 by id; those that cannot be read are entered in ``damage`` and left out.

        A record is damaged if it has fewer clips than ``id2nframe.json`` says; what it has beyond them is cut.
        """
        lengths = self.lengths()

        def parse(key: str, content: bytes) -> FloatArray:
            features = (_npz_array if content.startswith(_NPZ) else _packed_array)(content)
            if key not in lengths:
                raise _Damaged("id2nframe.json has no such video")
            if features.ndim != 2 or len(features) < lengths[key]:
                raise _Damaged(f"features of shape {features.shape}; expected ({lengths[key]}, feature_dim)")
            features = features[: lengths[key]].astype(np.float32)
            if not np.isfinite(features).all():
                raise _Damaged("features that are not finite")
            return features

        return self._read(ids, damage, parse)


def read_sidecar(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        DataError: no such file, or not one.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"There is no {path}; it belongs to the authors' format. Download the whole folder.") from error
    except ValueError as error:
        raise DataError(f"{path} is not JSON ({error}). Download it again.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}; expected an object.")
    return content


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _text_record(key: str, content: bytes) -> dict[str, Any]:
    try:
        record = msgpack.unpackb(lz4.frame.decompress(content), raw=False)
    # LZ4 raises RuntimeError, MessagePack ValueError or its own, which derive from it or from Exception.
    except (RuntimeError, ValueError, msgpack.UnpackException) as error:
        raise _Damaged(f"not MessagePack in an LZ4 frame ({error})") from error
    if not isinstance(record, dict):
        raise _Damaged(f"a {type(record).__name__} in place of a record")
    return record


def _packed_array(content: bytes) -> np.ndarray:
    """An array as the package msgpack-numpy writes it, of floats only."""
    try:
        array = msgpack.unpackb(content, raw=False)["features"]
        kind, shape, data = array[b"type"], array[b"shape"], array[b"data"]
        if kind not in _FLOATS or array[b"nd"] is not True:
            raise _Damaged(f"an array of type {kind!r}; expected one of {_FLOATS}")
        if math.prod(shape) * np.dtype(kind).itemsize != len(data):
            raise _Damaged(f"{len(data)} bytes for the shape {shape} of {kind}")
        return np.frombuffer(data, dtype=kind).reshape(shape)
    except (KeyError, TypeError, ValueError, msgpack.UnpackException) as error:
        raise _Damaged(f"not MessagePack with an array 'features' ({error!r})") from error


def _npz_array(content: bytes) -> np.ndarray:
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            array: np.ndarray = arrays["features"]
    except (KeyError, ValueError, OSError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise _Damaged(f"not an .npz with an array 'features' ({error})") from error
    if array.dtype.str not in _FLOATS:
        raise _Damaged(f"an array of type {array.dtype.str!r}; expected one of {_FLOATS}")
    return array
