"""Moment queries (TVR's schema) and captions (TVC's), checked against the scenes of the whole split."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from demo.toontv import phrasing, world
from demo.toontv.script import Episode, Facts, Scene

QUERY_TYPES = ("v", "t", "vt")
QUERIES_PER_TYPE = 2  # in each episode
DESC_ID_STRIDE = 1_000_000  # ids of different splits never meet


@dataclass(frozen=True)
class _Candidate:
    scene: Scene
    facts: Facts
    matches: int


class SceneIndex:
    """All scenes of a split, to count how many of them satisfy a query."""

    def __init__(self, episodes: Sequence[Episode]) -> None:
        self._by_fact: dict[tuple[str, str], set[int]] = {}
        self._scenes: list[Scene] = []
        for scene in itertools.chain.from_iterable(episode.scenes for episode in episodes):
            number = len(self._scenes)
            self._scenes.append(scene)
            for key, value in (scene.picture | scene.said).items():
                for single in (value,) if isinstance(value, str) else value:
                    self._by_fact.setdefault((key, single), set()).add(number)

    def count(self, facts: Facts) -> int:
        """Number of scenes of the split in which all `facts` hold."""
        keys = [(key, one) for key, value in facts.items() for one in ((value,) if isinstance(value, str) else value)]
        rows = sorted((self._by_fact.get(key, set()) for key in keys), key=len)
        return len(set.intersection(*rows)) if rows else len(self._scenes)


def moment_queries(episode: Episode, index: SceneIndex, rng: random.Random, first_id: int) -> list[dict[str, Any]]:
    """QUERIES_PER_TYPE queries of each type, about different scenes where possible; times in seconds.

    Every query fits exactly one scene of its episode; "matches" says how many scenes of the split it fits. How much a
    query tells is drawn first, with odds that are the same in all splits, so that test queries are worded as training
    queries are; then the scene is taken that makes it fit the fewest scenes.
    """
    rows: list[dict[str, Any]] = []
    used: dict[int, int] = {}
    for kind in QUERY_TYPES:
        for _ in range(QUERIES_PER_TYPE):
            pool = _candidates(episode, index, kind, rng.choices(*zip(*_FORMS[kind].items(), strict=True))[0])
            if not pool:  # a short form can fit several scenes each time; the longest never does
                pool = _candidates(episode, index, kind, next(iter(_FORMS[kind])))
            # The same question is not asked twice.
            pool = [one for one in pool if all(one.facts != row["facts"] for row in rows)]
            if not pool:
                continue
            rng.shuffle(pool)
            chosen = min(pool, key=lambda one: (one.matches, used.get(one.scene.index, 0)))
            used[chosen.scene.index] = used.get(chosen.scene.index, 0) + 1
            rows.append(
                {
                    "desc_id": first_id + len(rows),
                    "desc": _wording(rng, kind, chosen.facts),
                    "vid_name": episode.video_id,
                    "ts": [chosen.scene.start, chosen.scene.end],
                    "duration": episode.duration,
                    "type": kind,
                    "matches": chosen.matches,
                    "novel": chosen.scene.novel,
                    "facts": chosen.facts,
                }
            )
    return rows


def _candidates(episode: Episode, index: SceneIndex, kind: str, form: str) -> list[_Candidate]:
    """The scenes that a query of this type and form can ask for and tell from the rest of the episode."""
    asked = ((scene, _part(scene, kind, form)) for scene in episode.scenes)
    return [
        _Candidate(scene, facts, index.count(facts))
        for scene, facts in asked
        if facts is not None and sum(other.satisfies(facts) for other in episode.scenes) == 1
    ]


# How much a query of each type tells, and how often. "-x" leaves x out; the first form of a type tells the most.
# Either half of a "vt" query fits many scenes of a split; both together fit one.
_FORMS: dict[str, dict[str, int]] = {
    "v": {"all": 60, "-cast": 10, "-action": 15, "-where": 15},
    "t": {"all": 55, "-opinion": 45},
    "vt": {
        "-cast+place": 12, "-action+place": 16, "-where+place": 22,
        "-cast+topic": 12, "-action+topic": 16, "-where+topic": 22,
    },
}  # fmt: skip


def _part(scene: Scene, kind: str, form: str) -> Facts | None:
    """The facts of `scene` that a query of this form tells, or None when the scene has no such query."""
    seen, heard = scene.picture, scene.said
    dropped, _, half = form.removeprefix("-").partition("+")
    if kind != "v" and not heard:
        return None
    if kind == "t":
        return {key: value for key, value in heard.items() if key != dropped}
    if "thing" not in seen and dropped in ("cast", "action"):
        return None  # people who meet are all that there is to ask about
    seen = {key: value for key, value in seen.items() if key != dropped}
    wanted = ("place",) if half == "place" else tuple(world.TOPICS) if half == "topic" else ()
    return seen | {key: value for key, value in heard.items() if key in wanted}


def _wording(rng: random.Random, kind: str, facts: Facts) -> str:
    if kind == "v":
        return phrasing.sentence(phrasing.picture(rng, facts, fronted=True))
    heard = f"{phrasing.speaker(rng)} {phrasing.said(rng, facts)}"
    if kind == "t":
        return phrasing.sentence(heard)
    seen = phrasing.picture(rng, facts)
    return phrasing.sentence(rng.choice((f"{seen} while {heard}", f"{heard} while {seen}", f"{seen} and {heard}")))


def captions(episode: Episode, rng: random.Random, first_id: int) -> list[dict[str, Any]]:
    """A clip for every scene, with one description of the picture and, where somebody talks, one of both."""
    rows = []
    for scene in episode.scenes:
        kinds = ("v", "vt") if scene.speech else ("v",)
        facts = {"v": scene.picture, "vt": scene.picture | scene.said}
        rows.append(
            {
                "vid_name": episode.video_id,
                "clip_id": first_id + scene.index,
                "ts": [scene.start, scene.end],
                "duration": episode.duration,
                "descs": [
                    {
                        "desc_id": 2 * (first_id + scene.index) + number,
                        "desc": _wording(rng, kind, facts[kind]),
                        "type": kind,
                    }
                    for number, kind in enumerate(kinds)
                ],
            }
        )
    return rows
