"""The dialogue: what is said in a scene and how it stands in the subtitles."""

from __future__ import annotations

import random
from dataclasses import dataclass
from types import MappingProxyType

from demo.toontv.world import FRAMES_PER_SECOND

# What a speaker says of a place, by opinion.
_PLACE_LINES: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        "likes": (
            "I really love {place}.",
            "{place} is the best town I know.",
            "Nothing beats a day in {place}.",
            "Everybody is so happy in {place}.",
            "You know, {place} is wonderful.",
        ),
        "dislikes": (
            "{place} is so boring.",
            "I never want to go back to {place}.",
            "Honestly, {place} is terrible.",
            "Nobody has any fun in {place}.",
            "What an awful town {place} is.",
        ),
    }
)

_TOPIC_LINES: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        "food": (
            "I could really eat some {value} now.",
            "Is there any {value} left?",
            "All I want is {value}.",
            "Let us order {value}, I am hungry.",
        ),
        "plan": (
            "Tomorrow we will {value}.",
            "We still have to {value}.",
            "My plan is to {value}.",
            "One day I am going to {value}.",
        ),
        "person": (
            "Have you seen {value} anywhere?",
            "I am looking for {value}.",
            "Where did {value} go?",
            "We must find {value} today.",
        ),
    }
)

_REMARKS = ("Well, well.", "Listen.", "Oh, hello!", "Guess what?", "Hm.", "Believe me.")

_MARGIN = 0.15  # seconds between a line and the cut
_GAP = 0.1  # seconds between two lines


@dataclass(frozen=True)
class Line:
    """One subtitle; times in seconds from the start of the episode."""

    start: float
    end: float
    text: str


@dataclass(frozen=True)
class Speech:
    """What is said in one scene: an opinion of a place, and one more topic ("food", "plan" or "person")."""

    place: str
    opinion: str
    topic: str
    value: str
    lines: tuple[Line, ...]


def write_speech(
    rng: random.Random, place: str, opinion: str, topic: str, value: str, start_frame: int, end_frame: int
) -> Speech:
    """Word the facts and time the lines inside the scene (frames from the start of the episode)."""
    texts = [
        rng.choice(_PLACE_LINES[opinion]).format(place=place),
        rng.choice(_TOPIC_LINES[topic]).format(value=value),
    ]
    rng.shuffle(texts)
    if rng.random() < 0.2:
        texts[0] = f"{rng.choice(_REMARKS)} {texts[0]}"
    if rng.random() < 0.3:
        texts = [" ".join(texts)]
    start = start_frame / FRAMES_PER_SECOND + _MARGIN
    room = (end_frame - start_frame) / FRAMES_PER_SECOND - 2 * _MARGIN
    return Speech(place, opinion, topic, value, tuple(_timed(rng, texts, start, room)))


def _timed(rng: random.Random, texts: list[str], start: float, room: float) -> list[Line]:
    """Lines one after the other in `room` seconds from `start`, each about as long as it takes to say it."""
    share = room / len(texts)
    lines = []
    for number, text in enumerate(texts):
        length = min(share - _GAP, 0.8 + 0.06 * len(text))
        slack = share - _GAP - length
        begin = start + number * share + rng.random() * slack
        lines.append(Line(round(begin, 3), round(begin + length, 3), text))
    return lines
