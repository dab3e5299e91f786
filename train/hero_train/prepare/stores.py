"""The rows of the authors' text LMDBs, which keep the raw annotation beside its tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from hero_train.data.lmdb_store import Damage, TextStore
from hero_train.prepare.records import Unusable
from hero_train.prepare.tables import Row

CLIPS, CAPTIONS = "clip.db", "cap.db"

_CHUNK = 1024
"""Records that are in memory at a time."""

_ID_NAMES = ("desc_id", "qid")


def is_store(path: Path) -> bool:
    """Whether a folder is a text store, or the pair of stores of TVC."""
    return any((path / name / "data.mdb").is_file() for name in (".", CLIPS))


def store_rows(folder: Path) -> Iterator[Row]:
    """The annotations of a store; a record that cannot be read is a row with a problem.

    Raises:
        DataError: a store that is incomplete or cut off.
    """
    if (folder / CLIPS).is_dir():
        yield from _caption_rows(folder)
        return
    with TextStore(folder) as store:
        for number, (key, record, problem) in enumerate(_read(store, store.sidecar("query2video.json")), start=1):
            # The key is the id, whatever the record calls it.
            content = record and {**record, **{name: key for name in _ID_NAMES if name in record}}
            yield Row(content, number, problem)


def _caption_rows(folder: Path) -> Iterator[Row]:
    """Clips with their captions, of which each store has a half."""
    with TextStore(folder / CLIPS) as clips, TextStore(folder / CAPTIONS) as captions:
        for number, (key, clip, problem) in enumerate(_read(clips, clips.sidecar("clip2vid.json")), start=1):
            if clip is None:
                yield Row(None, number, problem)
                continue
            ids = [str(caption.get("id")) for caption in clip.get("captions", ())]
            damage = Damage()
            found = captions.read(ids, damage)
            if damage.reasons:
                name, reason = next(iter(damage.reasons.items()))
                yield Row(None, number, Unusable("record that cannot be read", f"has the caption {name}: {reason}"))
                continue
            yield Row({**clip, "clip_id": key, "descs": [{**found[name], "desc_id": name} for name in ids]}, number)


def _read(store: TextStore, ids: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any] | None, Unusable | None]]:
    """Each record of a store, or why it cannot be read."""
    remaining = iter(ids)
    while chunk := list(islice(remaining, _CHUNK)):
        damage = Damage()
        found = store.read(chunk, damage)
        for key in chunk:
            reason = damage.reasons.get(f"{store.folder.name}:{key}")
            problem = (
                None if reason is None else Unusable("record that cannot be read", f"({key}) is damaged: {reason}")
            )
            yield key, found.get(key), problem
