"""Five-way questions (TVQA's schema) and true or false statements (in the manner of VIOLIN)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from demo.toontv import phrasing, world
from demo.toontv.script import Episode, Facts, Scene

QUESTION_KINDS = ("picture", "dialogue", "order")
_QUESTIONS_PER_EPISODE = {"picture": 2, "dialogue": 2, "order": 2}
_ANSWERS = 5

_TOPIC_QUESTIONS = {
    "food": "What does {speaker} want to eat",
    "plan": "What does {speaker} plan to do",
    "person": "Who is {speaker} looking for",
}


@dataclass(frozen=True)
class _Question:
    text: str
    answer: str
    wrong: tuple[str, ...]  # the likeliest first
    scene: Scene


def questions(episode: Episode, rng: random.Random, first_id: int) -> list[dict[str, Any]]:
    """Questions with five answers each; "ts" is the scene that answers, in seconds ("a-b")."""
    makers: dict[str, Callable[[Episode, Scene, random.Random], _Question | None]] = {
        "picture": _picture_question,
        "dialogue": _dialogue_question,
        "order": _order_question,
    }
    rows: list[dict[str, Any]] = []
    for kind in QUESTION_KINDS:
        scenes = rng.sample(episode.scenes, len(episode.scenes))
        made = [question for scene in scenes if (question := makers[kind](episode, scene, rng)) is not None]
        for question in made[: _QUESTIONS_PER_EPISODE[kind]]:
            answers = [question.answer, *question.wrong[: _ANSWERS - 1]]
            rng.shuffle(answers)
            rows.append(
                {
                    "qid": first_id + len(rows),
                    "q": question.text,
                    **{f"a{number}": answer for number, answer in enumerate(answers)},
                    "answer_idx": answers.index(question.answer),
                    "vid_name": episode.video_id,
                    "ts": f"{question.scene.start}-{question.scene.end}",
                    "kind": kind,
                    "novel": question.scene.novel,
                }
            )
    return rows


def _only(episode: Episode, facts: Facts) -> bool:
    """Whether exactly one scene of the episode satisfies `facts`."""
    return sum(scene.satisfies(facts) for scene in episode.scenes) == 1


def _wrong(rng: random.Random, answer: str, near: Iterable[str], all_values: Iterable[str]) -> tuple[str, ...]:
    """Wrong answers: two that occur in the episode, if there are, then any of their kind."""
    present = sorted(set(near) - {answer})
    rng.shuffle(present)
    others = sorted(set(all_values) - {answer, *present[:2]})
    rng.shuffle(others)
    return (*present[:2], *others)


def _picture_question(episode: Episode, scene: Scene, rng: random.Random) -> _Question | None:
    """About the thing, the place or the character, sometimes at a moment that only the dialogue tells."""
    if scene.thing is None:
        return None
    who, thing = phrasing.who(rng, scene.cast[0]), phrasing.thing(rng, scene.thing)
    deed, where = phrasing.deed(rng, scene.action, thing), phrasing.where(rng, scene.where)
    told: Facts = {"place": scene.said["place"]} if scene.said else {}
    when = f" when {phrasing.speaker(rng)} talks about {told['place']}" if told else ""
    cast: Facts = {"cast": scene.cast}
    asked = rng.choice(("thing", "where", "cast"))
    if asked == "thing":
        clue = cast | {"action": scene.action} | (told or {"where": scene.where})
        text = f"Which thing is it that {who} {phrasing.deed(rng, scene.action, '')}{when or ' ' + where}".replace(
            "  ", " "
        )
        table, near = world.THINGS, [one.thing for one in episode.scenes if one.thing]
    elif asked == "where":
        clue = cast | (told or {"action": scene.action, "thing": scene.thing})
        text = f"Where is {who}{when}" if told else f"Where is it that {who} {deed}"
        table, near = world.SETTINGS, [one.where for one in episode.scenes]
    else:
        clue = {"thing": scene.thing, "action": scene.action} | (told or {"where": scene.where})
        text = f"Who {deed}{when or ' ' + where}"
        table, near = world.CHARACTERS, [name for one in episode.scenes for name in one.cast]
    if not _only(episode, clue):
        return None
    answer = {"thing": scene.thing, "where": scene.where, "cast": scene.cast[0]}[asked]
    names = _wrong(rng, answer, near, table)
    return _Question(
        phrasing.sentence(text, "?"), _answer(table[answer]), tuple(_answer(table[name]) for name in names), scene
    )


def _answer(phrases: tuple[str, ...]) -> str:
    return phrasing.sentence(phrases[0])


def _dialogue_question(episode: Episode, scene: Scene, rng: random.Random) -> _Question | None:
    """About what is said in a moment that the picture tells."""
    if scene.speech is None:
        return None
    facts = dict(scene.picture)
    facts.pop(rng.choice(("where", "action")) if scene.thing else "where")
    if not _only(episode, facts):
        return None
    when = phrasing.picture(rng, facts)
    speaker = phrasing.speaker(rng)
    speeches = [one.speech for one in episode.scenes if one.speech]
    if rng.random() < 0.4:
        answer, words = scene.speech.place, world.PLACES
        near = [speech.place for speech in speeches]
        text = f"Which town does {speaker} talk about while {when}?"
    else:
        answer, words = scene.speech.value, world.TOPICS[scene.speech.topic]
        near = [speech.value for speech in speeches if speech.topic == scene.speech.topic]
        text = f"{_TOPIC_QUESTIONS[scene.speech.topic].format(speaker=speaker)} while {when}?"
    wrong = _wrong(rng, answer, near, words)
    return _Question(text, phrasing.sentence(answer), tuple(phrasing.sentence(word) for word in wrong), scene)


def _order_question(episode: Episode, scene: Scene, rng: random.Random) -> _Question | None:
    """About what comes right after or right before `scene`; the other answers happen at other times."""
    step = rng.choice((-1, 1))
    position = scene.index + step
    facts: Facts = {key: value for key, value in scene.picture.items() if key != "where"}
    if not 0 <= position < len(episode.scenes) or not _only(episode, facts):
        return None
    target = episode.scenes[position]
    relation = "after" if step > 0 else "before"
    clause = phrasing.picture(rng, facts)
    elsewhere = [one for one in episode.scenes if abs(one.index - scene.index) > 1]
    if rng.random() < 0.5:
        answer = target.where
        # A place that the neighbour on the other side shares, or the scene itself, is wrong too, and harder.
        near = [one.where for one in episode.scenes if one.index != position]
        words = _wrong(rng, answer, near, world.SETTINGS)
        table = world.SETTINGS
        text = f"Where does the story go right after {clause}?" if step > 0 else f"Where was it right before {clause}?"
        return _Question(text, _answer(table[answer]), tuple(_answer(table[word]) for word in words), target)
    answer = phrasing.sentence(phrasing.event(target))
    true_events = {phrasing.sentence(phrasing.event(one)) for one in episode.scenes}
    near = [phrasing.sentence(phrasing.event(one)) for one in elsewhere]
    opposite = scene.index - step
    if 0 <= opposite < len(episode.scenes):
        near.append(phrasing.sentence(phrasing.event(episode.scenes[opposite])))
    wrong = list(dict.fromkeys(event for event in near if event != answer))
    rng.shuffle(wrong)
    wrong = wrong[:3]
    while len(wrong) < _ANSWERS - 1:
        invented = phrasing.sentence(_invented_event(rng))
        if invented not in true_events and invented not in wrong:
            wrong.append(invented)
    return _Question(f"What happens right {relation} {clause}?", answer, tuple(wrong), target)


def _invented_event(rng: random.Random) -> str:
    who = world.CHARACTERS[rng.choice(list(world.CHARACTERS))][0]
    action = rng.choice([name for name in world.ACTIONS if name != world.MEET])
    return f"{who} {world.ACTIONS[action][0].format(thing=world.THINGS[rng.choice(list(world.THINGS))][0])}"


def statements(episode: Episode, rng: random.Random, first_id: int) -> list[dict[str, Any]]:
    """Pairs of a true and a false statement (label 1 and 0), one pair of each kind, about the whole episode.

    "ts" reaches from the first scene that decides to the last, in seconds.
    A false one differs from its true partner in one fact or in the order of two events, and holds of no scene.
    """
    rows: list[dict[str, Any]] = []
    makers = {"picture": _picture_pair, "dialogue": _dialogue_pair, "order": _order_pair}
    for kind, make in makers.items():
        pair = make(episode, rng)
        if pair is None:
            continue
        scenes, true, false = pair
        for label, statement in ((1, true), (0, false)):
            rows.append(
                {
                    "id": first_id + len(rows),
                    "pair_id": first_id + len(rows) - (1 - label),
                    "vid_name": episode.video_id,
                    "statement": statement,
                    "label": label,
                    "kind": kind,
                    "ts": [scenes[0].start, scenes[-1].end],
                    "novel": any(scene.novel for scene in scenes),
                }
            )
    return rows


_Pair = tuple[tuple[Scene, ...], str, str]
"""The scenes that decide, in their order, and a true and a false statement."""


def _same_words(
    rng: random.Random, make: Callable[[random.Random], str], make_false: Callable[[random.Random], str]
) -> tuple[str, str]:
    """Both sentences with the same draws, so that their wording does not give away which one is true."""
    seed = rng.random()
    return make(random.Random(seed)), make_false(random.Random(seed))


def _picture_pair(episode: Episode, rng: random.Random) -> _Pair | None:
    for scene in rng.sample(episode.scenes, len(episode.scenes)):
        if scene.thing is None:
            continue
        facts = scene.picture
        key = rng.choice(("cast", "action", "thing", "where"))
        pools: dict[str, list[Any]] = {
            "cast": [one.cast for one in episode.scenes if one.thing],
            "action": [one.action for one in episode.scenes if one.thing],
            "thing": [one.thing for one in episode.scenes if one.thing],
            "where": [one.where for one in episode.scenes],
        }
        for value in rng.sample(pools[key], len(pools[key])):
            changed = facts | {key: value}
            if not any(one.satisfies(changed) for one in episode.scenes):
                true, false = _same_words(
                    rng,
                    lambda draw, true=facts: phrasing.sentence(phrasing.picture(draw, true)),
                    lambda draw, false=changed: phrasing.sentence(phrasing.picture(draw, false)),
                )
                return (scene,), true, false
    return None


def _dialogue_pair(episode: Episode, rng: random.Random) -> _Pair | None:
    """The false one puts the words of another scene into this one."""
    speaking = [scene for scene in episode.scenes if scene.speech]
    for scene, other in _ordered_pairs(rng, speaking):
        cast_where: Facts = {"cast": scene.cast, "where": scene.where}
        place, wrong_place = ({"place": one.said["place"]} for one in (scene, other))
        if any(one.satisfies(cast_where | wrong_place) for one in episode.scenes):
            continue
        true, false = _same_words(
            rng,
            lambda draw, here=cast_where, what=place: _while(draw, here, what),
            lambda draw, here=cast_where, what=wrong_place: _while(draw, here, what),
        )
        return (scene,), true, false
    return None


def _while(rng: random.Random, seen: Facts, heard: Facts) -> str:
    clause = phrasing.picture(rng, seen)
    return phrasing.sentence(f"{phrasing.speaker(rng)} {phrasing.said(rng, heard)} while {clause}")


def _order_pair(episode: Episode, rng: random.Random) -> _Pair | None:
    """Two events, each of which happens once, in their order and in the other."""
    for early, late in _ordered_pairs(rng, list(episode.scenes)):
        if early.index > late.index:
            continue
        if not all(_only(episode, {k: v for k, v in one.picture.items() if k != "where"}) for one in (early, late)):
            continue
        word = rng.choice(("before", "after"))
        first, second = (early, late) if word == "before" else (late, early)
        true = phrasing.sentence(f"{phrasing.event(first)} {word} {phrasing.event(second)}")
        false = phrasing.sentence(f"{phrasing.event(second)} {word} {phrasing.event(first)}")
        return (early, late), true, false
    return None


def _ordered_pairs(rng: random.Random, scenes: list[Scene]) -> list[tuple[Scene, Scene]]:
    pairs = [(one, other) for one in scenes for other in scenes if one is not other]
    rng.shuffle(pairs)
    return pairs
