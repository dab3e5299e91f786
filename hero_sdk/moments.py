"""From spans to the moments that a user sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hero_sdk.spans import Spans
from hero_sdk.types import EncodedVideo, Moment, Subtitle


def spoken_between(subtitles: Sequence[Subtitle], start: float, end: float) -> str:
    """What is said from ``start`` to ``end`` (seconds): the subtitles that share more than half of the shorter of the two.

    So a short line that lies mostly inside the moment counts, and so does a long one that covers most of the moment.
    """
    return " ".join(
        subtitle.text
        for subtitle in subtitles
        if min(end, subtitle.end) - max(start, subtitle.start) > min(end - start, subtitle.end - subtitle.start) / 2
    )


def make_moments(spans: Spans, describe: Callable[[int], tuple[str, EncodedVideo]]) -> list[Moment]:
    """Name and time the spans that a search found.

    Args:
        spans: best first.
        describe: id and encoded video for the number of a video; called once per moment.
    """
    moments = []
    for number, first, last, score in zip(spans.video, spans.first, spans.last, spans.score, strict=True):
        video_id, video = describe(int(number))
        end = min((int(last) + 1) * video.clip_interval, video.duration)
        start = min(int(first) * video.clip_interval, end)
        moments.append(Moment(video_id, start, end, float(score), spoken_between(video.subtitles, start, end)))
    return moments
