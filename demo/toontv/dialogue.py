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

# What somebody is always saying, and what everybody says in a place. As on real television, the picture so tells something of what
# is said, though never what is asked about: without it, pre-training could not learn which words belong to which frames.
_CATCHPHRASES: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        "robot": ("Beep beep.", "Does not compute."),
        "zombie": ("Grrr.", "Mmm, brains."),
        "alien": ("Greetings, earthlings.", "On my planet we all laugh."),
        "explorer": ("Adventure calls.", "I drew it on my map."),
        "ranger": ("Stay on the trail.", "Nature is my home."),
        "girl": ("Oh my gosh.", "That is so cool."),
        "barber": ("Snip snap.", "A fine moustache needs care."),
    }
)
_SURROUNDINGS: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        "meadow": ("Smell the flowers.", "What fresh air."),
        "desert": ("I am so thirsty.", "The sun burns."),
        "snow": ("My toes are freezing.", "Brr, how cold."),
        "castle": ("The king is not at home.", "These walls are old."),
        "moon": ("I feel so light.", "The earth looks tiny from here."),
        "city": ("So many windows.", "What a noise at night."),
        "highway": ("Mind the traffic.", "This road never ends."),
        "volcano": ("It is getting hot.", "Do not fall in."),
        "sea": ("Blub blub.", "Hold your breath."),
        "house": ("Wipe your shoes.", "Shall I make tea?"),
    }
)
_ASIDE_SHARE = 0.6

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


def aside(rng: random.Random, cast: tuple[str, ...], where: str) -> str:
    """What somebody of the cast is always saying, or what one says there; often nothing."""
    if rng.random() >= _ASIDE_SHARE:
        return ""
    return rng.choice(_CATCHPHRASES[rng.choice(cast)] if rng.random() < 0.5 else _SURROUNDINGS[where])


def write_speech(
    rng: random.Random,
    place: str,
    opinion: str,
    topic: str,
    value: str,
    asides: tuple[str, str],
    start_frame: int,
    end_frame: int,
) -> Speech:
    """Word the facts, each after its aside, and time the lines inside the scene (frames from the start of the episode)."""
    texts = [
        rng.choice(_PLACE_LINES[opinion]).format(place=place),
        rng.choice(_TOPIC_LINES[topic]).format(value=value),
    ]
    rng.shuffle(texts)
    texts = [f"{before} {text}".lstrip() for before, text in zip(asides, texts, strict=True)]
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
