"""Video files with all their peculiarities. The grey level of a frame tells when it appears: tests see which was taken."""

from __future__ import annotations

import logging
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from hero_sdk.errors import InputError, MediaError
from hero_sdk.media import embedded_subtitles, frame_at, iterate_clip_frames, video_duration
from hero_sdk.types import Subtitle
from tests.made_videos import brightness, raw_h264, write_sound, write_video

HALVES = [number / 2 for number in range(14)]
"""Frames every half second: the clips' middles (0.75, 2.25, ...) lie between two, and the earlier one is taken."""


def seen(path: Path, interval: float = 1.5) -> list[float]:
    """When the frames of the clips appear, to half a second."""
    images = [image for batch in iterate_clip_frames(path, interval, 16) for image in batch]
    assert all(image.shape == (16, 16, 3) and image.dtype == np.uint8 for image in images)
    return [round((float(image.mean()) - 30) / 20 * 2) / 2 for image in images]


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "avi", "ts", "flv"])
def test_containers(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"video.{suffix}", HALVES)
    frames = iterate_clip_frames(path, 1.5, 16)
    count = sum(len(batch) for batch in frames)
    # How long the last frame lasts is told differently, so the fifth clip's middle, 6.75, lies inside or not.
    assert count == (5 if frames.duration >= 6.75 else 4)
    assert seen(path)[:4] == [0.5, 2.0, 3.5, 5.0]
    assert frames.duration == pytest.approx(video_duration(path), abs=1.0)


def test_the_frame_nearest_to_the_middle_and_the_earlier_of_two(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mkv", [0.0, 0.5, 1.0, 1.5, 2.5, 3.0])
    assert seen(path) == [0.5, 2.5]
    assert seen(path, 1.0) == [0.5, 1.5, 2.5]


def test_a_clip_exists_when_its_middle_does(tmp_path: Path) -> None:
    assert len(seen(write_video(tmp_path / "2_1.mkv", [0.0, 2.1]))) == 1
    assert len(seen(write_video(tmp_path / "2_3.mkv", [0.0, 2.3]))) == 2
    assert seen(write_video(tmp_path / "short.mkv", [0.0, 0.1, 0.2])) == [0.0]


def test_variable_frame_rate(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mkv", [0.0, 0.5, 5.0, 5.5, 9.0])
    assert seen(path) == [0.5, 0.5, 5.0, 5.0, 5.5, 9.0]


def test_a_picture_that_starts_after_the_sound(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mkv", [3.0, 3.5, 4.0, 4.5, 5.0], audio_seconds=1.0)
    assert seen(path) == [3.0, 3.0, 3.5]


def test_batches_are_bounded_and_do_not_change_the_images(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mkv", HALVES)
    batches = list(iterate_clip_frames(path, 0.5, 16, batch_size=4))
    assert [len(batch) for batch in batches] == [4, 4, 4, 1]
    (whole,) = iterate_clip_frames(path, 0.5, 16, batch_size=32)
    assert np.array_equal(np.concatenate(batches), whole)


def test_no_times_and_no_length(tmp_path: Path) -> None:
    path = tmp_path / "video.h264"
    path.write_bytes(raw_h264(seconds=4, rate=10))
    frames = iterate_clip_frames(path, 1.0, 16)
    assert sum(len(batch) for batch in frames) == 4
    assert video_duration(path) == pytest.approx(4.0) == frames.duration


@pytest.mark.parametrize(("rotation", "corner"), [(0, (0, 0)), (90, (1, 0)), (180, (1, 1)), (-90, (0, 1))])
def test_rotation(tmp_path: Path, rotation: int, corner: tuple[int, int]) -> None:
    # White in the upper left as stored. A positive angle turns counter-clockwise, so 90 brings it to the lower left.
    stored = np.zeros((48, 64, 3), dtype=np.uint8)
    stored[:24, :32] = 255
    path = write_video(tmp_path / "video.mp4", [0.0, 0.5], pictures=[stored, stored], rotation=rotation)
    thumbnail = frame_at(path, 0.0, 48)
    assert thumbnail.shape == ((48, 64, 3) if rotation in (0, 180) else (48, 36, 3))
    ((image,),) = iterate_clip_frames(path, 1.5, 16)
    for array in (thumbnail, image):
        rows, columns = array.shape[0] // 2, array.shape[1] // 2
        quarters = {
            (row, column): array[row * rows :, column * columns :][2 : rows - 2, 2 : columns - 2].mean()
            for row in (0, 1)
            for column in (0, 1)
        }
        assert max(quarters, key=quarters.__getitem__) == corner


def test_the_whole_picture_is_kept(tmp_path: Path) -> None:
    wide = np.zeros((48, 256, 3), dtype=np.uint8)
    wide[:, :64], wide[:, -64:] = (255, 0, 0), (0, 0, 255)
    path = write_video(tmp_path / "video.mkv", [0.0], pictures=[wide], size=(256, 48))
    ((image,),) = iterate_clip_frames(path, 1.5, 32)
    assert image[16, 3].argmax() == 0
    assert image[16, -3].argmax() == 2


def test_frame_at(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mkv", HALVES, aspect=Fraction(2, 1))
    for seconds, shown in [(0.0, 0.0), (1.6, 1.5), (2.0, 2.0), (6.4, 6.0), (99.0, 6.5), (-3.0, 0.0)]:
        image = frame_at(path, seconds, 24)
        assert image.shape == (24, 64, 3)
        assert image.dtype == np.uint8
        assert image.mean() == pytest.approx(brightness(shown), abs=4)
    with pytest.raises(InputError, match="height of at least 1"):
        frame_at(path, 1.0, 0)
    with pytest.raises(InputError, match="nan"):
        frame_at(path, float("nan"), 24)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_embedded_subtitles(tmp_path: Path, suffix: str) -> None:
    lines = [(1.0, 2.0, "Hello <i>you</i>" if suffix == "mkv" else "Hello you"), (3.0, 4.5, "and, you")]
    path = write_video(tmp_path / f"video.{suffix}", HALVES, subtitles=lines)
    assert embedded_subtitles(path) == (Subtitle(1.0, 2.0, "Hello you"), Subtitle(3.0, 4.5, "and, you"))
    assert seen(path)[:4] == [0.5, 2.0, 3.5, 5.0]
    assert embedded_subtitles(write_video(tmp_path / f"none.{suffix}", HALVES)) == ()


def test_a_truncated_file_gives_what_it_has(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (14, 48, 64, 3), dtype=np.uint8)
    for whole in (
        write_video(tmp_path / "whole.mkv", HALVES, pictures=list(noise)),
        write_video(tmp_path / "whole.mp4", HALVES, pictures=list(noise), options={"movflags": "faststart"}),
    ):
        path = tmp_path / f"half{whole.suffix}"
        content = whole.read_bytes()
        path.write_bytes(content[: len(content) * 6 // 10])
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="hero_sdk"):
            frames = iterate_clip_frames(path, 1.0, 16)
            count = sum(len(batch) for batch in frames)
        assert 1 <= count == round(frames.duration) < 6
        assert "going on with these" in caplog.text


def test_a_damaged_file_goes_on_after_the_damage(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (14, 48, 64, 3), dtype=np.uint8)
    path = write_video(tmp_path / "video.ts", HALVES, pictures=list(noise))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(3000)
    path.write_bytes(content)
    frames = iterate_clip_frames(path, 1.0, 16)
    assert sum(len(batch) for batch in frames) >= 6


def test_recordings_that_were_joined_go_on(tmp_path: Path) -> None:
    one = write_video(tmp_path / "one.ts", [number / 2 for number in range(60)]).read_bytes()
    path = tmp_path / "joined.ts"
    path.write_bytes(one + one)
    frames = iterate_clip_frames(path, 1.5, 16)
    assert sum(len(batch) for batch in frames) == pytest.approx(40, abs=1)
    assert frames.duration == pytest.approx(60, abs=1)


def not_videos(folder: Path) -> dict[str, Path]:
    files = {name: folder / f"{name}.mp4" for name in ("missing", "folder", "empty", "text", "playlist", "cut")}
    files["folder"].mkdir()
    files["empty"].write_bytes(b"")
    files["text"].write_text("not a video " * 1000)
    video = write_video(folder / "video.ts", HALVES)
    files["playlist"].write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{video}\n#EXT-X-ENDLIST\n")
    # The index of an mp4 is its end.
    whole = write_video(folder / "whole.mp4", HALVES).read_bytes()
    files["cut"].write_bytes(whole[: whole.index(b"moov") - 4])
    files["sound"] = write_sound(folder / "sound.m4a")
    files["cover"] = write_sound(folder / "cover.mp4", cover=True)
    return files


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "is not a file"),
        ("folder", "is not a file"),
        ("empty", "cannot be read as a video"),
        ("text", "cannot be read as a video"),
        ("playlist", "cannot be read as a video"),
        ("cut", "cannot be read as a video"),
        ("sound", "has no video stream; it has audio"),
        ("cover", "has no video stream"),
    ],
)
def test_what_is_not_a_video(tmp_path: Path, kind: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = not_videos(tmp_path)[kind]
    capfd.readouterr()
    for call in (
        lambda: list(iterate_clip_frames(path, 1.5, 16)),
        lambda: video_duration(path),
        lambda: embedded_subtitles(path),
        lambda: frame_at(path, 1.0, 24),
    ):
        with pytest.raises(MediaError, match=message) as caught:
            call()
        assert str(path) in str(caught.value)
    assert capfd.readouterr().err == "", "FFmpeg wrote to the terminal"


def test_a_video_without_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mp4", [0.0, 0.5], options={"movflags": "faststart"})
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"mdat") + 4])
    with pytest.raises(MediaError, match="no frame that can be decoded"):
        list(iterate_clip_frames(path, 1.5, 16))
    with pytest.raises(MediaError, match="no frame that can be decoded"):
        frame_at(path, 0.0, 24)


def test_damaged_times_do_not_give_clips_without_end(tmp_path: Path) -> None:
    path = write_video(tmp_path / "video.mkv", [0.0, 1.0, 200_000.0])
    with pytest.raises(MediaError, match="jumps from"):
        list(iterate_clip_frames(path, 1.5, 16))


@pytest.mark.parametrize("arguments", [(0.0, 16, 1), (float("nan"), 16, 1), (1.5, 0, 1), (1.5, 16, 0), (-1.5, 16, 1)])
def test_numbers_that_are_not_positive(arguments: tuple[float, int, int]) -> None:
    with pytest.raises(InputError, match="expected a positive number"):
        iterate_clip_frames("video.mp4", *arguments)


def test_an_iteration_that_is_given_up_closes_the_file(tmp_path: Path) -> None:
    # Unclosed files are ResourceWarnings, and warnings are errors here.
    frames = iterate_clip_frames(write_video(tmp_path / "video.mkv", HALVES), 0.5, 16, batch_size=1)
    next(frames)
    del frames
