"""Frame features are extracted once per video and encoder, and never read from a file that does not fit."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hero_sdk.errors import MediaError
from hero_sdk.frame_encoder import FrameEncoder, load_frame_encoder
from hero_sdk.manifest import FrameEncoderSpec
from hero_sdk.types import FloatArray
from hero_train.data.features import (
    VideoFeatures,
    check_interval,
    extract_features,
    find_videos,
    load_features,
    missing_videos,
)
from hero_train.errors import DataError
from tests.tiny_checkpoint import write_frame_encoder
from tests.unit.tiny_videos import write_video


class FakeEncoder(FrameEncoder):
    """Takes the bytes of a file for its features, and notes what it was asked."""

    def __init__(self, fingerprint: str = "a" * 64) -> None:
        self._spec = FrameEncoderSpec("fake", 8, 3, fingerprint)
        self.asked: list[tuple[str, float]] = []

    def encode_video(self, path: Path | str, clip_interval: float) -> tuple[FloatArray, float]:
        self.asked.append((Path(path).name, clip_interval))
        content = Path(path).read_bytes()
        if content.startswith(b"broken"):
            raise MediaError(f"{path} cannot be read as a video.")
        if content.startswith(b"endless"):
            return np.full((2, 3), np.inf, np.float32), 3.0
        values = np.frombuffer(content, np.uint8).astype(np.float32)
        return np.repeat(values[:, None], 3, axis=1), len(values) + 0.1


@pytest.fixture
def videos(tmp_path: Path) -> dict[str, Path]:
    folder = tmp_path / "videos"
    folder.mkdir()
    for name, content in {"one.mp4": b"ab", "two.mkv": b"cde"}.items():
        (folder / name).write_bytes(content)
        os.utime(folder / name, (1_000_000, 1_000_000))
    return find_videos(folder)


def extract(
    videos: dict[str, Path], encoder: FrameEncoder, cache: Path, interval: float = 1.5
) -> dict[str, VideoFeatures]:
    found, dropped = extract_features(videos, encoder, interval, cache)
    assert not dropped
    return found


def test_each_video_is_extracted_once(videos: dict[str, Path], tmp_path: Path) -> None:
    encoder = FakeEncoder()
    first = extract(videos, encoder, tmp_path / "cache")
    assert sorted(encoder.asked) == [("one.mp4", 1.5), ("two.mkv", 1.5)]
    again = extract(videos, encoder, tmp_path / "cache")
    assert len(encoder.asked) == 2
    for name, expected in {"one": b"ab", "two": b"cde"}.items():
        for found in (first, again):
            assert found[name].features.dtype == np.float32
            assert found[name].features[:, 0].tolist() == list(expected)
            assert found[name].duration == len(expected) + 0.1


def test_a_new_video_is_all_that_is_extracted(videos: dict[str, Path], tmp_path: Path) -> None:
    extract({"one": videos["one"]}, FakeEncoder(), tmp_path / "cache")
    encoder = FakeEncoder()
    assert set(extract(videos, encoder, tmp_path / "cache")) == {"one", "two"}
    assert encoder.asked == [("two.mkv", 1.5)]


def test_a_video_that_changed_is_extracted_again(videos: dict[str, Path], tmp_path: Path) -> None:
    extract(videos, FakeEncoder(), tmp_path / "cache")
    videos["one"].write_bytes(b"xyz")
    later = max(path.stat().st_mtime for path in tmp_path.rglob("*.safetensors")) + 10
    os.utime(videos["one"], (later, later))
    encoder = FakeEncoder()
    found = extract(videos, encoder, tmp_path / "cache")
    assert encoder.asked == [("one.mp4", 1.5)]
    assert found["one"].features[:, 0].tolist() == list(b"xyz")


@pytest.mark.parametrize(("fingerprint", "interval"), [("b" * 64, 1.5), ("a" * 64, 2.0)])
def test_another_encoder_or_interval_has_features_of_its_own(
    videos: dict[str, Path], tmp_path: Path, fingerprint: str, interval: float
) -> None:
    extract(videos, FakeEncoder(), tmp_path / "cache")
    other = FakeEncoder(fingerprint)
    extract(videos, other, tmp_path / "cache", interval)
    assert len(other.asked) == 2
    back = FakeEncoder()
    extract(videos, back, tmp_path / "cache")
    assert not back.asked
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_video_that_cannot_be_read_is_dropped_with_the_reason(videos: dict[str, Path], tmp_path: Path) -> None:
    videos["one"].write_bytes(b"broken")
    done: list[str] = []
    found, dropped = extract_features(videos, FakeEncoder(), 1.5, tmp_path / "cache", done.append)
    assert set(found) == {"two"}
    assert dropped == {"one": f"{videos['one']} cannot be read as a video."}
    assert done == ["one", "two"]
    assert not list((tmp_path / "cache").rglob("one*"))


def test_a_video_whose_features_are_not_finite_is_dropped(videos: dict[str, Path], tmp_path: Path) -> None:
    videos["one"].write_bytes(b"endless")
    for _ in range(2):
        _, dropped = extract_features(videos, FakeEncoder(), 1.5, tmp_path / "cache")
        assert dropped == {"one": f"{videos['one']} gives features that are not finite."}


def cached(cache: Path, video: str) -> Path:
    (file,) = cache.rglob(f"{video}.safetensors")
    return file


def damage(file: Path, kind: str) -> None:
    content = file.read_bytes()
    tensors = load_file(file)
    if kind == "cut off":
        file.write_bytes(content[:-4])
    elif kind == "empty":
        file.write_bytes(b"")
    elif kind == "other tensor":
        save_file({"frames": tensors["features"]}, file, metadata={"duration": "2.1"})
    elif kind == "no duration":
        save_file(tensors, file)
    elif kind == "duration that is no number":
        save_file(tensors, file, metadata={"duration": "long"})


@pytest.mark.parametrize("kind", ["cut off", "empty", "other tensor", "no duration", "duration that is no number"])
def test_a_damaged_file_of_the_cache_is_named(videos: dict[str, Path], tmp_path: Path, kind: str) -> None:
    extract(videos, FakeEncoder(), tmp_path / "cache")
    file = cached(tmp_path / "cache", "two")
    damage(file, kind)
    with pytest.raises(DataError, match=r"are damaged .*Delete the file and run again") as caught:
        extract(videos, FakeEncoder(), tmp_path / "cache")
    assert str(file) in str(caught.value)
    file.unlink()
    assert set(extract(videos, FakeEncoder(), tmp_path / "cache")) == {"one", "two"}


def test_an_extraction_that_breaks_off_leaves_no_file(
    videos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("hero_train.data.features.save_file", full_disk)
        with pytest.raises(OSError, match="No space left"):
            extract_features(videos, FakeEncoder(), 1.5, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.safetensors"))
    assert set(extract(videos, FakeEncoder(), tmp_path / "cache")) == {"one", "two"}


def test_real_videos_through_a_real_encoder(tmp_path: Path) -> None:
    """Three seconds each of two colours: two clips of one feature, two of another, from the cache as from the file."""
    write_video(tmp_path / "videos" / "one.mp4", ["red", "blue"])
    (tmp_path / "videos" / "two.mp4").write_bytes(b"not a video")
    videos, encoder = find_videos(tmp_path / "videos"), load_frame_encoder(write_frame_encoder(tmp_path / "encoder", 6))
    found, dropped = extract_features(videos, encoder, 1.5, tmp_path / "cache")
    assert "cannot be read as a video" in dropped["two"]
    features = found["one"].features
    assert features.shape == (4, 6)
    assert found["one"].duration == pytest.approx(6.0, abs=0.3)
    same = np.abs(features[:, None] - features[None]).max(axis=-1) < 0.05 * np.abs(features).max()
    assert same.tolist() == [[True, True, False, False]] * 2 + [[False, False, True, True]] * 2
    again, _ = extract_features(videos, encoder, 1.5, tmp_path / "cache")
    np.testing.assert_array_equal(again["one"].features, features)
    assert again["one"].duration == found["one"].duration


def test_videos_are_found_by_their_suffix(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.MKV", "c.d.webm", "b.srt", "notes.txt", "b.mp4.part"):
        (tmp_path / name).touch()
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "e.mp4").touch()
    assert {name: path.name for name, path in find_videos(tmp_path).items()} == {
        "a": "a.MKV",
        "b": "b.mp4",
        "c.d": "c.d.webm",
    }


def test_two_videos_of_one_id(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    (tmp_path / "a.mkv").touch()
    with pytest.raises(DataError, match=r"a\.mkv and a\.mp4 in .* have one id; rename one of them"):
        find_videos(tmp_path)


def test_a_folder_without_videos(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"has no video in it; looked for files that end in .*\.mp4"):
        find_videos(tmp_path)
    with pytest.raises(DataError, match=r"There is no folder .*nowhere"):
        find_videos(tmp_path / "nowhere")


def test_missing_videos_are_named_once_in_order() -> None:
    found = {"b": VideoFeatures(np.zeros((1, 1), np.float32), 1.0)}
    assert missing_videos(["c", "b", "a", "c"], found) == ["c", "a"]


def write_set(folder: Path, widths: dict[str, int], duration: str = "4.5") -> Path:
    """A folder of features of three clips each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, width in widths.items():
        features = np.arange(3 * width, dtype=np.float32).reshape(3, width)
        save_file({"features": features}, folder / f"{name}.safetensors", metadata={"duration": duration})
    return folder


def test_features_are_read_without_videos(tmp_path: Path) -> None:
    write_set(tmp_path, {"one": 4, "two": 4, "three": 4})
    found, dropped = load_features(tmp_path, ["two", "one", "two"])
    assert list(found) == ["two", "one"]
    assert not dropped
    assert (found["one"].features.dtype, found["one"].duration) == (np.float32, 4.5)
    np.testing.assert_array_equal(found["one"].features, np.arange(12).reshape(3, 4))


def test_a_cache_of_extracted_features_can_be_read_as_well(videos: dict[str, Path], tmp_path: Path) -> None:
    extracted = extract(videos, FakeEncoder(), tmp_path / "cache")
    (folder,) = (tmp_path / "cache").iterdir()
    found, _ = load_features(folder, extracted)
    for name, video in found.items():
        np.testing.assert_array_equal(video.features, extracted[name].features)
        assert video.duration == extracted[name].duration


def test_a_video_without_features_is_named_with_the_reason(tmp_path: Path) -> None:
    write_set(tmp_path / "features", {"one": 4, "two": 4, "other": 5, "broken": 4})
    write_set(tmp_path / "features", {"short": 4}, duration="-1")
    write_set(tmp_path, {"outside": 4})
    (tmp_path / "features" / "broken.safetensors").write_bytes(b"")
    infinite = {"features": np.full((2, 4), np.inf, np.float32)}
    save_file(infinite, tmp_path / "features" / "infinite.safetensors", metadata={"duration": "3"})
    wide = {"features": np.ones((2, 4, 1), np.float32)}
    save_file(wide, tmp_path / "features" / "wide.safetensors", metadata={"duration": "3"})
    names = ["one", "two", "other", "broken", "short", "absent", "../outside", "infinite", "wide"]
    found, dropped = load_features(tmp_path / "features", names)
    assert list(found) == ["one", "two"]
    assert list(dropped) == ["broken", "short", "absent", "../outside", "infinite", "wide", "other"]
    for name, reason in {
        "broken": "damaged",
        "short": r"a duration of -1\.0 s",
        "absent": "There is no file",
        "../outside": "There is no file",
        "infinite": "not finite",
        "wide": r"shape \(2, 4, 1\)",
        "other": "5 wide, and most others 4",
    }.items():
        assert re.search(reason, dropped[name]), dropped[name]


def test_a_prepared_set_is_read_when_it_is_whole(tmp_path: Path) -> None:
    write_set(tmp_path / "set" / "features", {"one": 4})
    with pytest.raises(DataError, match=r"has no prepared\.json, so it was not finished"):
        load_features(tmp_path / "set", ["one"])
    (tmp_path / "set" / "prepared.json").write_text("{}")
    found, dropped = load_features(tmp_path / "set", ["one"])
    assert (list(found), dropped) == (["one"], {})
    with pytest.raises(DataError, match="There is no folder"):
        load_features(tmp_path / "nowhere", ["one"])


@pytest.mark.parametrize(
    ("content", "message"), [('{"clip_interval": 2.0}', "every 2 s .* every 1.5 s"), ("{}", "damaged")]
)
def test_a_set_of_another_clip_interval_is_refused(tmp_path: Path, content: str, message: str) -> None:
    check_interval(tmp_path, 1.5)
    (tmp_path / "prepared.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        check_interval(tmp_path, 1.5)


def test_a_set_of_the_models_clip_interval_is_read(tmp_path: Path) -> None:
    (tmp_path / "prepared.json").write_text('{"clip_interval": 1.5}', encoding="utf-8")
    check_interval(tmp_path, 1.5)
