"""Features come from arrays, several side by side, the authors' LMDBs or another set, whole or in pieces."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np
import pytest
from safetensors.numpy import save_file

from hero_train.data.features import load_features
from hero_train.errors import ConfigError, DataError
from hero_train.prepare.features import InPieces, open_features
from hero_train.prepare.pieces import Pieces
from tests.unit.releases import annotations_of, run, write_arrays, write_json, write_lines

ARRAY = np.random.default_rng(1).standard_normal((8, 3)).astype(np.float32)
LINE = {"desc_id": 1, "desc": "a query", "vid_name": "v", "ts": [1.0, 3.0]}


def annotations(tmp_path: Path, *video_ids: str) -> dict[str, Path]:
    lines = [{**LINE, "desc_id": number, "vid_name": video_id} for number, video_id in enumerate(video_ids)]
    return {"train": write_lines(tmp_path / "tvr.jsonl", lines)}


def npy(path: Path) -> None:
    np.save(path.with_suffix(".npy"), ARRAY)


def npz_of_halves(path: Path) -> None:
    """As the authors' extractor writes them."""
    np.savez(path.with_suffix(".npz"), features=ARRAY.astype(np.float16), allow_pickle=True)


def safetensors(path: Path) -> None:
    save_file({"features": ARRAY}, path.with_suffix(".safetensors"), metadata={"duration": "12.4"})


@pytest.mark.parametrize(
    ("write", "tolerance", "duration"), [(npy, 0.0, 12.0), (npz_of_halves, 1e-2, 12.0), (safetensors, 0.0, 12.4)]
)
def test_an_array_per_video(tmp_path: Path, write: Callable[[Path], None], tolerance: float, duration: float) -> None:
    (tmp_path / "features").mkdir()
    write(tmp_path / "features" / "v")
    (tmp_path / "features" / "readme.txt").touch()
    summary = run(tmp_path / "set", "tvr", tmp_path / "features", files=annotations(tmp_path, "v"))
    found, dropped = load_features(tmp_path / "set", ["v"])
    assert not dropped
    np.testing.assert_allclose(found["v"].features, ARRAY, atol=tolerance)
    assert (found["v"].features.dtype, found["v"].duration) == (np.float32, duration)
    assert (summary.features.width, summary.features.clips, summary.features.encoder) == (3, 8, None)


def test_only_the_videos_that_annotations_name_are_in_the_set(tmp_path: Path) -> None:
    features = write_arrays(tmp_path / "features", {"v": 8, "w": 4, "x": 2})
    run(tmp_path / "set", "tvr", features, files=annotations(tmp_path, "x", "v"))
    assert sorted(path.stem for path in (tmp_path / "set" / "features").iterdir()) == ["v", "x"]


def test_features_stand_side_by_side_as_long_as_the_shorter(tmp_path: Path) -> None:
    resnet = write_arrays(tmp_path / "resnet", {"v": 8, "w": 5}, width=4)
    slowfast = write_arrays(tmp_path / "slowfast", {"v": 7, "w": 6}, width=2, seed=1)
    summary = run(tmp_path / "set", "tvr", [resnet, slowfast], files=annotations(tmp_path, "v", "w"))
    found, _ = load_features(tmp_path / "set", ["v", "w"])
    assert {name: video.features.shape for name, video in found.items()} == {"v": (7, 6), "w": (5, 6)}
    np.testing.assert_array_equal(found["w"].features[:, :4], np.load(resnet / "w.npy"))
    np.testing.assert_array_equal(found["w"].features[:, 4:], np.load(slowfast / "w.npy")[:5])
    assert [list(origin) for origin in summary.features.origin["joined"]] == [["arrays"], ["arrays"]]


def test_a_video_needs_features_on_both_sides(tmp_path: Path) -> None:
    resnet = write_arrays(tmp_path / "resnet", {"v": 8, "w": 5})
    slowfast = write_arrays(tmp_path / "slowfast", {"v": 8, "x": 5})
    assert open_features([resnet, slowfast], 1.5).ids() == ["v"]
    (slowfast / "v.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"v\.npy has no array"):
        run(tmp_path / "set", "tvr", [resnet, slowfast], files=annotations(tmp_path, "v"))


def write_lmdb(folder: Path, arrays: dict[str, np.ndarray], lengths: str = "id2nframe.json") -> Path:
    folder.mkdir(parents=True)
    environment = lmdb.open(str(folder), map_size=1 << 20, lock=False)
    with environment.begin(write=True) as transaction:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.savez_compressed(buffer, features=array)
            transaction.put(name.encode(), buffer.getvalue())
    environment.close()
    write_json(folder.parent / lengths, {name: len(array) for name, array in arrays.items()})
    return folder


@pytest.mark.parametrize("lengths", ["id2nframe.json", "id2frame_len.json"])
def test_an_lmdb_of_the_authors_names_its_interval(tmp_path: Path, lengths: str) -> None:
    folder = write_lmdb(tmp_path / "video" / "resnet_slowfast_2_compressed", {"v": ARRAY}, lengths)
    summary = run(tmp_path / "set", "tvr", folder, interval=None, files=annotations(tmp_path, "v"))
    assert summary.clip_interval == 2.0
    found, _ = load_features(tmp_path / "set", ["v"])
    np.testing.assert_array_equal(found["v"].features, ARRAY)
    assert found["v"].duration == 16.0


def test_a_clip_interval_that_contradicts(tmp_path: Path) -> None:
    folder = write_lmdb(tmp_path / "video" / "resnet_slowfast_1.5", {"v": ARRAY})
    with pytest.raises(ConfigError, match=r"has features of 1\.5 s, and --clip-interval is 2; leave it out"):
        open_features([folder], 2.0)
    arrays = write_arrays(tmp_path / "arrays", {"v": 8})
    with pytest.raises(ConfigError, match=r"Nothing tells how many seconds .*; state --clip-interval"):
        open_features([arrays], None)
    other = write_lmdb(tmp_path / "other" / "clip_2", {"v": ARRAY})
    with pytest.raises(ConfigError, match=r"Features of 1\.5 s and 2 s cannot stand side by side"):
        open_features([folder, other], None)


def test_another_set_lends_its_features_without_a_copy(tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    safetensors(tmp_path / "features" / "v")
    files = annotations(tmp_path, "v")
    first = run(tmp_path / "first", "tvr", tmp_path / "features", files=files)
    second = run(tmp_path / "second", "tvr", tmp_path / "first", interval=None, files=files)
    inodes = {(tmp_path / name / "v.safetensors").stat().st_ino for name in ("first/features", "second/features")}
    assert len(inodes) == 1
    assert second.features.fingerprint == first.features.fingerprint
    assert second.clip_interval == 1.5
    with pytest.raises(ConfigError, match=r"has features of 1\.5 s"):
        open_features([tmp_path / "first"], 2.0)


def test_the_fingerprint_is_of_what_is_in_the_set(tmp_path: Path) -> None:
    files = annotations(tmp_path, "v", "w")
    folders = [
        write_arrays(tmp_path / name, {"v": 8, "w": 4}, seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    first, same, other = (
        run(tmp_path / f"set_{folder.name}", "tvr", folder, files=files).features.fingerprint for folder in folders
    )
    assert first == same != other


@pytest.mark.parametrize("kind", ["nowhere", "empty", "twice"])
def test_a_folder_that_has_no_features(tmp_path: Path, kind: str) -> None:
    if kind != "nowhere":
        (tmp_path / kind).mkdir()
    if kind == "twice":
        npy(tmp_path / "twice" / "v")
        safetensors(tmp_path / "twice" / "v")
    messages = {
        "nowhere": "There is no folder",
        "empty": "has no features in it",
        "twice": "are of one video; remove one",
    }
    with pytest.raises(DataError, match=messages[kind]):
        open_features([tmp_path / kind], 1.5)


def test_pieces_are_cut_where_a_clip_ends(tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    long = np.arange(50, dtype=np.float32)[:, None]
    save_file({"features": long}, tmp_path / "features" / "film.safetensors", metadata={"duration": "75.8"})
    np.save(tmp_path / "features" / "film.7.npy", long[:3])
    source = InPieces(open_features([tmp_path / "features"], 1.5), 30)
    assert source.has("film.1")
    assert not source.has("other.1")
    found = dict(source.read(["film.2", "film.0", "film.7", "film.3"]))
    assert {name: (read.features.ravel().tolist(), read.duration) for name, read in found.items()} == {
        "film.0": (list(range(20)), 30.0),
        "film.2": (list(range(40, 50)), pytest.approx(15.8)),
        "film.7": ([0, 1, 2], None),
        "film.3": ([], None),
    }
    assert "The video has 50 clips, none of which is in piece 3" in found["film.3"].problem
    assert sorted(dict(source.read_all())) == ["film.0", "film.1", "film.2", "film.7"]
    with pytest.raises(ConfigError, match=r"Pieces of 40 s do not end where clips of 1\.5 s end"):
        InPieces(open_features([tmp_path / "features"], 1.5), 40)


def test_a_set_without_annotations_has_every_video(tmp_path: Path) -> None:
    """What pre-training reads, such as HowTo100M in pieces of a minute."""
    features = write_arrays(tmp_path / "features", {"-3BVWtwbV64": 95, "short": 2})
    sub = [{"text": "hello", "start": 59.0, "end": 62.0}, {"text": "good bye", "start": 130, "end": 131}]
    subtitles = write_lines(tmp_path / "subtitles.jsonl", [{"vid_name": "-3BVWtwbV64", "sub": sub}])
    summary = run(tmp_path / "set", None, features, pieces=Pieces(60, every=True), subtitles=subtitles)
    assert sorted(path.stem for path in (tmp_path / "set" / "features").iterdir()) == [
        "-3BVWtwbV64.0",
        "-3BVWtwbV64.1",
        "-3BVWtwbV64.2",
        "short.0",
    ]
    assert [json.loads(line) for line in (tmp_path / "set" / "subtitles.jsonl").read_text().splitlines()] == [
        {"vid_name": "-3BVWtwbV64.0", "sub": [{"text": "hello", "start": 59.0, "end": 60.0}]},
        {"vid_name": "-3BVWtwbV64.1", "sub": [{"text": "hello", "start": 0.0, "end": 2.0}]},
        {"vid_name": "-3BVWtwbV64.2", "sub": [{"text": "good bye", "start": 10.0, "end": 11.0}]},
    ]
    assert (summary.schema, summary.task, summary.splits) == (None, "pretraining", {})
    assert not list((tmp_path / "set" / "annotations").iterdir())


def test_annotations_of_pieces_know_the_duration_of_the_long_video(tmp_path: Path) -> None:
    features = write_arrays(tmp_path / "features", {"v": 60})
    lines = [{**LINE, "ts": [85.0, 95.0]}]
    options = {"durations": write_json(tmp_path / "durations.json", {"v": 88.5}), "pieces": Pieces(60, every=True)}
    run(tmp_path / "set", "tvr", features, files={"train": write_lines(tmp_path / "own.jsonl", lines)}, **options)
    (written,) = annotations_of(tmp_path / "set", "train")
    assert (written["vid_name"], written["ts"]) == ("v.1", [25.0, 28.5])
