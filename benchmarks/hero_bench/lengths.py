"""How long videos and their subtitles are, which decides what a layout costs: drawn as in television, or measured.

The data that HERO was made for are the videos of TVQA and TVR: 60 to 90 s of six television series, 76 s on average, with about
25 subtitles. TVR's own baseline says that 97.71 % of three subtitles in a row have no more than 50 tokens together
(``max_sub_l`` in its settings). What is drawn here has these averages and this share:

- videos: half of them around 61 s, half around 91 s, with a deviation of 5 s;
- subtitles: one for every 3.04 s on average, with a deviation of a fifth;
- tokens of a subtitle: a gamma distribution of mean 10 and shape 3.7, so many short and few long, without its separator;
- time: a subtitle stands for 0.6 s and another 0.17 s for each token; pauses are exponential, 1 s on average; all of it is
  stretched to the length of the video. Which frames a subtitle owns follows from the times by the paper's rule.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hero_sdk.errors import InputError
from hero_sdk.tokens import TextTokenizer
from hero_sdk.video_files import subtitle_files
from hero_train.data.annotations import read_json_lines
from hero_train.data.corpus import read_all_subtitles
from hero_train.data.subtitles import subtitled_video

CLIP_INTERVAL = 1.5
"""Seconds, the paper's."""

SHORT_VIDEO, LONG_VIDEO, VIDEO_DEVIATION = 61.0, 91.0, 5.0
SUBTITLE_EVERY, SUBTITLE_DEVIATION = 3.04, 0.2
TOKENS, TOKEN_SHAPE = 10.0, 3.7
SECONDS_PER_SUBTITLE, SECONDS_PER_TOKEN, PAUSE = 0.6, 0.17, 1.0


@dataclass(frozen=True)
class SubtitleLength:
    """From when to when a subtitle stands, in seconds, and its tokens, without the separator."""

    start: float
    end: float
    tokens: int


@dataclass(frozen=True)
class VideoLengths:
    """How many clips a video has, and its subtitles, sorted by start."""

    clips: int
    subtitles: tuple[SubtitleLength, ...]


def draw_lengths(count: int, seed: int) -> list[VideoLengths]:
    """Lengths as in television; see the top of this module."""
    rng = np.random.default_rng(seed)
    return [_draw(rng) for _ in range(count)]


def _draw(rng: np.random.Generator) -> VideoLengths:
    duration = rng.normal(SHORT_VIDEO if rng.random() < 0.5 else LONG_VIDEO, VIDEO_DEVIATION)
    count = max(1, round(duration / SUBTITLE_EVERY * rng.normal(1, SUBTITLE_DEVIATION)))
    tokens = np.maximum(rng.gamma(TOKEN_SHAPE, TOKENS / TOKEN_SHAPE, count).round().astype(int), 1)
    spoken = SECONDS_PER_SUBTITLE + SECONDS_PER_TOKEN * tokens
    pauses = rng.exponential(PAUSE, count)
    stretch = duration / (spoken.sum() + pauses.sum())
    ends = stretch * np.cumsum(spoken + pauses)
    starts = ends - stretch * spoken
    subtitles = map(SubtitleLength, starts.tolist(), ends.tolist(), tokens.tolist())
    return VideoLengths(math.ceil(duration / CLIP_INTERVAL), tuple(subtitles))


def read_lengths(path: Path) -> list[VideoLengths]:
    """Measured lengths: one JSON object per video and line, ``{"clips": 51, "subtitles": [[start, end, tokens], ...]}``.

    Raises:
        InputError: no such file, no video, or a line that is none; the message names it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); expected a JSONL file of lengths.") from error
    found = [_parse(line, f"Line {number} of {path}") for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise InputError(f"{path} has no video in it.")
    return found


def _parse(line: str, where: str) -> VideoLengths:
    try:
        content = json.loads(line)
        clips, subtitles = content["clips"], [SubtitleLength(*parts) for parts in content["subtitles"]]
        fits = type(clips) is int and clips > 0 and all(map(_is_possible, subtitles))
    except (ValueError, KeyError, TypeError) as error:
        raise _refused(line, where) from error
    if not fits:
        raise _refused(line, where)
    return VideoLengths(clips, tuple(sorted(subtitles, key=lambda one: one.start)))


def _is_possible(subtitle: SubtitleLength) -> bool:
    return 0 <= subtitle.start <= subtitle.end < math.inf and type(subtitle.tokens) is int and subtitle.tokens >= 0


def _refused(line: str, where: str) -> InputError:
    return InputError(
        f'{where} is {line:.80}; expected {{"clips": 51, "subtitles": [[start, end, tokens], ...]}} with at least one clip, '
        "seconds from 0 on, and whole numbers of tokens."
    )


def measure_lengths(source: Path, tokenizer: TextTokenizer) -> list[VideoLengths]:
    """The lengths of real subtitles. A video counts as ending with its last subtitle; videos without subtitles are left out.

    Args:
        source: a folder of ``.srt`` and ``.vtt`` files, or a file of the field's format (see ``hero_train.data.subtitles``).
        tokenizer: of the model that is to be trained.

    Raises:
        InputError: no video with subtitles.
        HeroError: subtitles that cannot be read; the message names the place.
    """
    if source.is_dir():
        video_ids = list(subtitle_files(source))
    else:
        lines = read_json_lines(source)
        video_ids = [subtitled_video(content, f"Line {number} of {source}") for number, content in lines]
    found = [
        VideoLengths(
            max(1, math.ceil(max(one.end for one in spoken) / CLIP_INTERVAL)),
            tuple(SubtitleLength(one.start, one.end, len(tokenizer.encode_subtitle(one.text))) for one in spoken),
        )
        for spoken in read_all_subtitles(source, video_ids).values()
        if spoken
    ]
    if not found:
        raise InputError(
            f"{source} has no video with subtitles; expected .srt or .vtt files, or lines with vid_name and sub."
        )
    return found
