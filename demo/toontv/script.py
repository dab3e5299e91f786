"""The script of an episode: its scenes with their attributes, times and staging, drawn from a seeded generator."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from demo.toontv import world
from demo.toontv.dialogue import Speech, aside, write_speech

Split = Literal["train", "val", "test"]

# Numbers of scenes and how often each is drawn; with the lengths below an episode has 24 clips of 1.5 s on average.
_SCENE_COUNTS = {5: 20, 6: 24, 7: 23, 8: 17, 9: 9, 11: 4, 14: 2, 17: 1}
_SCENE_CLIPS = {2: 28, 3: 38, 4: 22, 5: 12}
_SHORTEST_CLIPS, _LONGEST_CLIPS = 14, 60  # 21 s and 90 s
_MEETING_SHARE = 0.13
_SILENT_SHARE = 0.14
_NOVEL_SHARE = 0.35  # of the scenes of the test split

Facts = dict[str, str | tuple[str, ...]]


@dataclass(frozen=True)
class Staging:
    """What varies in the drawing and is never asked about."""

    side: int  # 1: the character faces right, -1: left
    phase: float  # 0..1, where the motion cycle begins
    offset: int  # pixels by which the background is shifted
    percent: int  # size of the sprites
    enters: bool  # the character comes in during the first half second
    exits: bool  # and leaves during the last


@dataclass(frozen=True)
class Scene:
    """One scene; frames are counted from the start of the episode, `end_frame` is the first frame after it."""

    index: int
    start_frame: int
    end_frame: int
    cast: tuple[str, ...]  # one character, or two in a meeting
    action: str
    thing: str | None  # None in a meeting
    where: str
    speech: Speech | None
    staging: Staging
    novel: bool

    @property
    def start(self) -> float:
        """Start in seconds."""
        return self.start_frame / world.FRAMES_PER_SECOND

    @property
    def end(self) -> float:
        """End in seconds."""
        return self.end_frame / world.FRAMES_PER_SECOND

    @property
    def picture(self) -> Facts:
        """What the picture shows."""
        facts: Facts = {"cast": self.cast, "action": self.action, "where": self.where}
        return facts if self.thing is None else facts | {"thing": self.thing}

    @property
    def said(self) -> Facts:
        """What the dialogue says; empty in a silent scene."""
        if self.speech is None:
            return {}
        return {
            "place": self.speech.place,
            "opinion": self.speech.opinion,
            self.speech.topic: self.speech.value,
        }

    def satisfies(self, facts: Facts) -> bool:
        """Whether all `facts` hold here. Of a cast it is enough that everyone named is present."""
        mine = self.picture | self.said
        return all(
            set(value) <= set(self.cast) if key == "cast" else mine.get(key) == value for key, value in facts.items()
        )


@dataclass(frozen=True)
class Episode:
    """A whole episode; `duration` is in seconds."""

    video_id: str
    split: Split
    scenes: tuple[Scene, ...]

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.scenes[-1].end_frame

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.frames / world.FRAMES_PER_SECOND


def write_episode(video_id: str, split: Split, seed: int, held_out: tuple[str, ...]) -> Episode:
    """The script of one episode. It depends on `seed` and `video_id` alone, so episodes can be made in any order."""
    rng = random.Random(f"{seed}/{video_id}/script")
    chatter = random.Random(f"{seed}/{video_id}/asides")
    scenes: list[Scene] = []
    company = rng.sample(list(world.CHARACTERS), rng.choice((3, 4, 4, 5)))
    # A place is named once in an episode, so that what is said tells its scenes apart.
    speeches = _speech_facts(rng)
    for index, (start, end) in enumerate(_boundaries(rng)):
        cast, action, thing, where = _composition(rng, split, held_out, company, scenes)
        # The first scenes always speak: every episode has something to ask about the dialogue.
        silent = index >= 3 and rng.random() < _SILENT_SHARE
        asides = (aside(chatter, cast, where), aside(chatter, cast, where))
        speech = None if silent else write_speech(rng, *next(speeches), asides, start, end)
        staging = Staging(
            side=rng.choice((-1, 1)),
            phase=round(rng.random(), 3),
            offset=rng.randrange(224),
            percent=rng.choice((96, 100, 104)),
            enters=rng.random() < 0.5,
            exits=rng.random() < 0.4,
        )
        novel = world.combination(cast, thing, where) in held_out
        scenes.append(Scene(index, start, end, cast, action, thing, where, speech, staging, novel))
    return Episode(video_id, split, tuple(scenes))


def _boundaries(rng: random.Random) -> list[tuple[int, int]]:
    """First and last frames of the scenes: on the clip grid, but for a jitter of one frame (0.125 s)."""
    clips: list[int] = []
    while not _SHORTEST_CLIPS <= sum(clips) <= _LONGEST_CLIPS:
        count = rng.choices(list(_SCENE_COUNTS), list(_SCENE_COUNTS.values()))[0]
        clips = rng.choices(list(_SCENE_CLIPS), list(_SCENE_CLIPS.values()), k=count)
    cuts = [0]
    for length in clips:
        cuts.append(cuts[-1] + length * world.CLIP_FRAMES)
    # The ends of the episode stay on the grid: a last clip of one frame would be of no use to anybody.
    inner = [cut + rng.choice((-1, 0, 1)) for cut in cuts[1:-1]]
    cuts = [0, *inner, cuts[-1]]
    return list(itertools.pairwise(cuts))


def _composition(
    rng: random.Random, split: Split, held_out: tuple[str, ...], company: list[str], scenes: list[Scene]
) -> tuple[tuple[str, ...], str, str | None, str]:
    """Cast, action, thing and setting of the next scene.

    A scene differs from the one before in setting, thing and action, so that the cut is visible, and from all others
    of the episode in at least two of (cast, action, thing, setting), so that a description fits one of them.
    """
    while True:
        if split == "test" and rng.random() < _NOVEL_SHARE:
            cast, thing, where = world.parse_combination(rng.choice(held_out))
        else:
            meeting = rng.random() < _MEETING_SHARE
            cast = tuple(rng.sample(company, 2 if meeting else 1))
            thing = None if meeting else rng.choice(list(world.THINGS))
            where = rng.choice(list(world.SETTINGS))
            if world.combination(cast, thing, where) in held_out:
                continue
        action = world.MEET if thing is None else rng.choice([name for name in world.ACTIONS if name != world.MEET])
        last = scenes[-1] if scenes else None
        if last and (where == last.where or thing == last.thing or action == last.action):
            continue
        shared = (
            (set(cast) & set(scene.cast) != set()) + (action == scene.action) + (thing == scene.thing)
            + (where == scene.where)
            for scene in scenes
        )  # fmt: skip
        if max(shared, default=0) <= 2:
            return cast, action, thing, where


def _speech_facts(rng: random.Random) -> Iterator[tuple[str, str, str, str]]:
    """Place, opinion, topic and value of one speech after the other; no place or value comes twice."""
    places = rng.sample(world.PLACES, len(world.PLACES))
    values = {topic: rng.sample(words, len(words)) for topic, words in world.TOPICS.items()}
    for place in places:
        topic = rng.choice([name for name, words in values.items() if words])
        yield place, rng.choice(world.OPINIONS), topic, values[topic].pop()
