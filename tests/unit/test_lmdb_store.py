"""The authors' LMDB files are read record by record; whatever is damaged is named, and nothing is unpickled."""

from __future__ import annotations

import io
import json
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import lz4.frame
import msgpack
import numpy as np
import pytest

from hero_train.data.lmdb_store import Damage, FeatureStore, TextStore
from hero_train.errors import DataError
from tests.parity.oracle import oracle_folder

DB = oracle_folder() / "db"
RAW, COMPRESSED = "resnet_slowfast_1.5", "resnet_slowfast_1.5_compressed"


def lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DB / "ann" / f"{name}.jsonl").read_text().splitlines()]


def write_records(folder: Path, records: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    environment = lmdb.open(str(folder), map_size=1 << 20, lock=False)
    with environment.begin(write=True) as transaction:
        for key, content in records.items():
            transaction.put(key.encode(), content)
    environment.close()
    return folder


def copied(name: str, to: Path) -> Path:
    """A copy of a store that may be damaged; the file is sparse in some copies of the oracle."""
    shutil.copytree(DB / name, to, copy_function=shutil.copyfile)
    return to


@pytest.mark.parametrize(
    ("name", "key"), [("tvr_val", "desc_id"), ("msrvtt_val", "desc_id"), ("tvqa_val", "qid"), ("violin_val", "desc_id")]
)
def test_a_record_has_every_entry_of_its_annotation(name: str, key: str) -> None:
    annotations = {str(line[key]): line for line in lines(name)}
    damage = Damage()
    with TextStore(DB / "txt" / f"{name}.db") as store:
        records = store.read(annotations, damage)
        lengths = store.sidecar("id2len.json")
    assert list(records) == list(annotations)
    assert damage == Damage({}, len(annotations))
    for number, record in records.items():
        kept = {name: value for name, value in annotations[number].items() if name != key}
        assert {name: record[name] for name in kept} == kept
        tokens = record["input_ids"]
        assert lengths[number] == ([len(part) for part in tokens] if isinstance(tokens[0], list) else len(tokens))


def test_captions_and_clips_are_read() -> None:
    clips = {str(line["clip_id"]): line for line in lines("tvc_val")}
    with TextStore(DB / "txt" / "tvc_val.db" / "clip.db") as store:
        records = store.read(clips, Damage())
    for clip, line in clips.items():
        assert records[clip]["ts"] == line["ts"]
        assert [caption["text"] for caption in records[clip]["captions"]] == [
            caption["desc"] for caption in line["descs"]
        ]


def test_raw_and_compressed_features_are_the_same_arrays() -> None:
    lengths = json.loads((DB / "video" / "syn" / "id2nframe.json").read_text())
    found = []
    for name in (RAW, COMPRESSED):
        with FeatureStore(DB / "video" / "syn" / name) as store:
            assert store.lengths() == lengths
            found.append(store.read(lengths, Damage()))
    for video, clips in lengths.items():
        raw, compressed = (features[video] for features in found)
        assert raw.dtype == compressed.dtype == np.float32
        assert len(raw) == clips
        np.testing.assert_array_equal(raw, compressed)


def npz(array: np.ndarray, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=True, features=array, **settings)
    return buffer.getvalue()


def packed(array: np.ndarray, **changes: Any) -> bytes:
    """As msgpack-numpy writes an array: names and kind are bytes."""
    content = {b"nd": True, b"type": array.dtype.str, b"kind": b"", b"shape": array.shape, b"data": array.tobytes()}
    return msgpack.packb({"features": content | {name.encode(): value for name, value in changes.items()}})


@pytest.mark.parametrize("write", [npz, packed])
@pytest.mark.parametrize("kind", ["<f2", "<f4", "<f8"])
def test_features_come_as_float32_and_no_longer_than_listed(
    tmp_path: Path, write: Callable[[np.ndarray], bytes], kind: str
) -> None:
    array = np.random.default_rng(0).normal(size=(7, 3)).astype(kind)
    (tmp_path / "id2nframe.json").write_text('{"a": 5}')
    with FeatureStore(write_records(tmp_path / "features", {"a": write(array)})) as store:
        (features,) = store.read(["a"], Damage()).values()
    np.testing.assert_array_equal(features, array[:5].astype(np.float32))
    assert features.dtype == np.float32


class Bomb:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


FLOATS = np.ones((4, 3), dtype=np.float32)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (packed(FLOATS)[:-5], "not MessagePack"),
        (npz(FLOATS)[:-5], "not an .npz"),
        (npz(FLOATS)[:30] + b"\0\0" + npz(FLOATS)[32:], "not an .npz"),
        (b"", "not MessagePack"),
        (b"plain text", "not MessagePack"),
        (msgpack.packb([1, 2]), "not MessagePack"),
        (msgpack.packb({"other": 1}), "not MessagePack"),
        (packed(FLOATS, shape=[4, 4]), "48 bytes for the shape"),
        (packed(FLOATS, shape=[-4, -3]), "not MessagePack"),
        (packed(FLOATS, type="<i4"), "type '<i4'"),
        (packed(FLOATS, nd=False), "an array of type"),
        (npz(FLOATS.astype(np.int32)), "type '<i4'"),
        (npz(FLOATS[0]), "shape (3,)"),
        (npz(FLOATS[:2]), "shape (2, 3)"),
        (npz(np.full((4, 3), np.nan, dtype=np.float32)), "not finite"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damaged_features_are_named(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "id2nframe.json").write_text('{"whole": 4, "broken": 4, "absent": 4}')
    damage = Damage()
    records = {"whole": npz(FLOATS), "broken": content, "unlisted": npz(FLOATS)}
    with FeatureStore(write_records(tmp_path / "features", records)) as store:
        assert list(store.read(["broken", "whole", "absent", "unlisted"], damage)) == ["whole"]
    assert list(damage.reasons) == ["features:broken", "features:absent", "features:unlisted"]
    assert reason in damage.reasons["features:broken"]
    assert damage.reasons["features:absent"] == "there is no such record"
    assert "id2nframe.json" in damage.reasons["features:unlisted"]
    assert damage.read == 4


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    written = tmp_path / "written"
    bomb = np.array([[Bomb(written)]], dtype=object)
    pickled = {b"nd": True, b"type": "|O", b"kind": b"O", b"shape": [1, 1], b"data": pickle.dumps(bomb)}
    records = {"npz": npz(bomb), "packed": msgpack.packb({"features": pickled}), "bare": pickle.dumps(bomb)}
    (tmp_path / "id2nframe.json").write_text('{"npz": 1, "packed": 1, "bare": 1}')
    damage = Damage()
    with FeatureStore(write_records(tmp_path / "features", records)) as store:
        assert store.read(records, damage) == {}
    assert len(damage.reasons) == 3
    assert not written.exists()
    np.load(io.BytesIO(records["npz"]), allow_pickle=True)["features"]
    assert written.exists(), "the bomb is a dud, so that the test above shows nothing"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"plain text",
        msgpack.packb({"desc": "not compressed"}),
        lz4.frame.compress(msgpack.packb({"desc": "cut off"}))[:-6],
        lz4.frame.compress(msgpack.packb({"desc": "cut off"})[:-3]),
        lz4.frame.compress(msgpack.packb({"desc": "more"}) + b"\0"),
        lz4.frame.compress(msgpack.packb(["no", "record"])),
        lz4.frame.compress(b"\xc1"),
    ],
)
def test_damaged_text_records_are_named(tmp_path: Path, content: bytes) -> None:
    whole = lz4.frame.compress(msgpack.packb({"desc": "whole"}))
    damage = Damage()
    with TextStore(write_records(tmp_path / "words.db", {"1": whole, "2": content})) as store:
        assert store.read(["1", "2", "3"], damage) == {"1": {"desc": "whole"}}
    assert list(damage.reasons) == ["words.db:2", "words.db:3"]


def test_random_damage_is_never_anything_but_damage(tmp_path: Path) -> None:
    """Bits of whole records are turned at random: each is read as something or named, and nothing else is raised."""
    chance = random.Random(0)
    sources = {
        "text": lz4.frame.compress(msgpack.packb({"desc": "words " * 9, "input_ids": [*range(40)]})),
        "npz": npz(np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)),
        "packed": packed(FLOATS),
    }
    for name, content in sources.items():
        records = {}
        for number in range(200):
            broken = bytearray(content)
            broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
            records[str(number)] = bytes(broken)
        folder = write_records(tmp_path / name / "store", records)
        (tmp_path / name / "id2nframe.json").write_text(json.dumps(dict.fromkeys(records, 4)))
        damage = Damage()
        with (TextStore if name == "text" else FeatureStore)(folder) as store:
            found = store.read(records, damage)
        assert len(found) + len(damage.reasons) == damage.read == 200
        assert damage.reasons


@pytest.mark.parametrize(("share", "refused"), [(0.0, True), (0.1, True), (0.2, False), (1.0, False)])
def test_damage_is_refused_past_a_share(share: float, refused: bool) -> None:
    damage = Damage({"words.db:7": "there is no such record"}, read=5)
    if not refused:
        damage.refuse_above(share)
        return
    with pytest.raises(DataError, match=r"^1 of 5 records .*words\.db:7: there is no such record"):
        damage.refuse_above(share)


def test_no_damage_is_never_refused() -> None:
    Damage().refuse_above(0.0)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    folder = copied("txt/tvr_val.db", tmp_path / "tvr_val.db")
    with TextStore(folder) as store:
        assert store.read(["100"], Damage())
    file = folder / "data.mdb"
    content = file.read_bytes()
    for length in (0, 100, 4096, 8192, 12288 - 1):
        file.write_bytes(content[:length])
        with pytest.raises(DataError, match=r"data\.mdb"):
            TextStore(folder)


def test_what_is_no_lmdb_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"no database " * 1000)
    with pytest.raises(DataError, match="not an LMDB file"):
        TextStore(tmp_path)
    with pytest.raises(DataError, match="There is no"):
        TextStore(tmp_path / "elsewhere")


def test_a_store_can_be_opened_again_and_beside_another() -> None:
    for _ in range(2):
        with TextStore(DB / "txt" / "tvr_val.db") as first, TextStore(DB / "txt" / "msrvtt_val.db") as second:
            assert first.read(["100"], Damage())
            assert second.read(["100"], Damage())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no"),
        ("{", "not JSON"),
        ("[]", "holds a list"),
        ('{"CLS": 0, "PAD": 0, "SEP": 102}', "'SEP': 102"),
    ],
)
def test_a_store_of_another_tokenizer_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    folder = write_records(tmp_path / "words.db", {})
    if content is not None:
        (folder / "meta.json").write_text(content)
    with TextStore(folder) as store, pytest.raises(DataError, match=message):
        store.check_tokens()


@pytest.mark.parametrize("content", ['{"a": 0}', '{"a": "5"}', '{"a": true}', '{"a": 2.5}'])
def test_numbers_of_clips_are_checked(tmp_path: Path, content: str) -> None:
    (tmp_path / "id2nframe.json").write_text(content)
    with (
        FeatureStore(write_records(tmp_path / "features", {})) as store,
        pytest.raises(DataError, match="number of clips"),
    ):
        store.lengths()
