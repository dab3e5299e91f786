"""The lengths that training is measured on: drawn ones are those of television, measured ones those of the subtitles."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hero_bench.lengths import SubtitleLength, VideoLengths, draw_lengths, measure_lengths, read_lengths
from hero_sdk import HeroError, InputError
from hero_sdk.tokens import TextTokenizer
from hero_train.tokenizer import train_tokenizer_json
from tests.unit.tiny_videos import write_srt

LINES = ["where is the gem", "the robot takes it to the tower", "who"]


def test_what_is_drawn_has_the_published_averages() -> None:
    videos = draw_lengths(2000, seed=3)
    clips = np.array([video.clips for video in videos])
    tokens = [np.array([one.tokens for one in video.subtitles]) for video in videos]
    assert clips.mean() == pytest.approx(51, abs=0.5)
    assert np.mean([len(video.subtitles) for video in videos]) == pytest.approx(25, abs=0.5)
    together = np.concatenate([np.convolve(counts, [1, 1, 1], "valid") for counts in tokens if len(counts) >= 3])
    assert (together <= 50).mean() == pytest.approx(0.9771, abs=0.004)
    assert np.concatenate(tokens).mean() == pytest.approx(10, abs=0.1)
    assert np.concatenate(tokens).min() >= 1


def test_subtitles_follow_one_another_to_the_end_of_the_video() -> None:
    for video in draw_lengths(50, seed=0):
        times = np.array([(one.start, one.end) for one in video.subtitles]).ravel()
        assert times[0] >= 0
        assert (np.diff(times) >= 0).all()
        assert 1.5 * (video.clips - 1) < times[-1] <= 1.5 * video.clips + 1e-9


def test_the_seed_decides() -> None:
    assert draw_lengths(5, seed=1) == draw_lengths(7, seed=1)[:5]
    assert draw_lengths(5, seed=1) != draw_lengths(5, seed=2)


def test_measured_lengths_are_read(tmp_path: Path) -> None:
    file = tmp_path / "lengths.jsonl"
    file.write_text('{"clips": 7, "subtitles": [[4, 6.5, 3], [0.5, 2, 12]]}\n\n{"clips": 1, "subtitles": []}\n')
    first = VideoLengths(7, (SubtitleLength(0.5, 2, 12), SubtitleLength(4, 6.5, 3)))
    assert read_lengths(file) == [first, VideoLengths(1, ())]


@pytest.mark.parametrize(
    "line",
    [
        "no JSON",
        "[]",
        '{"clips": 3}',
        '{"clips": 0, "subtitles": []}',
        '{"clips": 2.5, "subtitles": []}',
        '{"clips": 3, "subtitles": [[0, 1]]}',
        '{"clips": 3, "subtitles": [[2, 1, 4]]}',
        '{"clips": 3, "subtitles": [[-1, 1, 4]]}',
        '{"clips": 3, "subtitles": [[0, NaN, 4]]}',
        '{"clips": 3, "subtitles": [[0, Infinity, 4]]}',
        '{"clips": 3, "subtitles": [[0, 1, 4.5]]}',
        '{"clips": 3, "subtitles": [["0", 1, 4]]}',
    ],
)
def test_a_line_that_is_no_video_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "lengths.jsonl"
    file.write_text(f'{{"clips": 1, "subtitles": []}}\n{line}\n')
    with pytest.raises(InputError, match=r"Line 2 of .*lengths.jsonl is .*; expected"):
        read_lengths(file)


def test_a_file_without_lengths_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(InputError, match="has no video in it"):
        read_lengths(tmp_path / "empty")
    with pytest.raises(InputError, match="cannot be read"):
        read_lengths(tmp_path / "none")


def test_subtitles_are_measured_in_both_formats(tmp_path: Path) -> None:
    tokenizer = TextTokenizer(train_tokenizer_json(LINES, 290))
    write_srt(tmp_path / "folder" / "s01e01.srt", LINES)
    (measured,) = measure_lengths(tmp_path / "folder", tokenizer)
    tokens = [len(tokenizer.encode(line)) for line in LINES]
    assert len(set(tokens)) == 3
    assert [one.tokens for one in measured.subtitles] == tokens
    assert measured.clips == 6  # three lines of three seconds

    lines = [{"text": text, "start": 3 * n, "end": 3 * n + 2.5} for n, text in enumerate(LINES)]
    videos = [{"vid_name": "s01e01", "sub": lines}, {"vid_name": "silent", "sub": []}]
    file = tmp_path / "subtitles.jsonl"
    file.write_text("".join(json.dumps(video) + "\n" for video in videos))
    (other,) = measure_lengths(file, tokenizer)
    assert [one.tokens for one in other.subtitles] == tokens
    assert [(one.start, one.end) for one in other.subtitles] == [(0, 2.5), (3, 5.5), (6, 8.5)]
    assert other.clips == 6


def test_subtitles_that_are_none_are_refused(tmp_path: Path) -> None:
    tokenizer = TextTokenizer(train_tokenizer_json(LINES, 290))
    with pytest.raises(InputError, match="no video with subtitles"):
        measure_lengths(tmp_path, tokenizer)
    with pytest.raises(HeroError, match="none"):
        measure_lengths(tmp_path / "none", tokenizer)
