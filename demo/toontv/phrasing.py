"""From facts to English: noun phrases, events and what was said, in one of several wordings."""

from __future__ import annotations

import random
from types import MappingProxyType

from demo.toontv import world
from demo.toontv.script import Facts, Scene

_PLAIN_SHARE = 0.65  # how often the plainest wording of a value is used

_PLACE_SAID: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        "": ("talks about {place}", "mentions {place}", "brings up {place}"),
        "likes": ("praises {place}", "says nice things about {place}", "loves {place}"),
        "dislikes": ("complains about {place}", "says bad things about {place}", "hates {place}"),
    }
)

_TOPIC_SAID: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        "food": ("wants {value}", "asks for {value}", "is hungry for {value}"),
        "plan": ("plans to {value}", "wants to {value}", "says that they will {value}"),
        "person": ("looks for {value}", "asks where {value} is", "wants to find {value}"),
    }
)

_SPEAKERS = ("someone", "somebody", "a voice")


def pick(rng: random.Random, phrases: tuple[str, ...]) -> str:
    """One of the wordings, mostly the first."""
    return phrases[0] if rng.random() < _PLAIN_SHARE else rng.choice(phrases)


def sentence(text: str, end: str = ".") -> str:
    """`text` with a capital and a stop."""
    return text[0].upper() + text[1:] + end


def who(rng: random.Random, name: str) -> str:
    """A noun phrase for a character."""
    return pick(rng, world.CHARACTERS[name])


def thing(rng: random.Random, name: str) -> str:
    """A noun phrase for a thing."""
    return pick(rng, world.THINGS[name])


def where(rng: random.Random, name: str) -> str:
    """An adverbial for a setting."""
    return pick(rng, world.SETTINGS[name])


def deed(rng: random.Random, action: str, other: str) -> str:
    """The verb with its object, where `other` is a noun phrase: "jumps over the crate"."""
    return pick(rng, world.ACTIONS[action]).format(thing=other)


def speaker(rng: random.Random) -> str:
    """Who talks: never a character, since the picture does not show who it is."""
    return rng.choice(_SPEAKERS)


def picture(rng: random.Random, facts: Facts, fronted: bool = False) -> str:
    """What is seen, as a clause without capital and stop; `facts` may leave out any one of the picture's parts.

    `fronted` allows the setting to come first, which reads badly inside a longer sentence.
    """
    cast, action, place = facts.get("cast", ()), facts.get("action"), facts.get("where")
    names = [who(rng, name) for name in cast]
    rng.shuffle(names)
    at = where(rng, str(place)) if place else ""
    if action == world.MEET or len(names) == 2:
        clause = deed(rng, world.MEET, names[1])
        return _placed(rng, f"{names[0]} {clause}", at, fronted)
    # Not "someone": that is what the speakers are called.
    subject = names[0] if names else "a character"
    if action is None:
        if "thing" not in facts:
            return f"{subject} is {at}"
        other = thing(rng, str(facts["thing"]))
        return rng.choice((f"{subject} is {at} with {other}", f"{subject} and {other} are {at}"))
    return _placed(rng, f"{subject} {deed(rng, str(action), thing(rng, str(facts['thing'])))}", at, fronted)


def _placed(rng: random.Random, clause: str, at: str, fronted: bool) -> str:
    if not at:
        return clause
    return f"{at}, {clause}" if fronted and rng.random() < 0.25 else f"{clause} {at}"


def said(rng: random.Random, facts: Facts) -> str:
    """What is heard, as a verb phrase: "talks about Dunmere and wants soup"; at least one of place and topic."""
    parts = []
    if "place" in facts:
        parts.append(rng.choice(_PLACE_SAID[str(facts.get("opinion", ""))]).format(place=facts["place"]))
    parts += [rng.choice(_TOPIC_SAID[topic]).format(value=facts[topic]) for topic in world.TOPICS if topic in facts]
    rng.shuffle(parts)
    return " and ".join(parts)


def event(scene: Scene) -> str:
    """The scene's deed in its plainest words, without its setting: "the robot jumps over the crate"."""
    other = world.THINGS[scene.thing][0] if scene.thing else world.CHARACTERS[scene.cast[1]][0]
    return f"{world.CHARACTERS[scene.cast[0]][0]} {world.ACTIONS[scene.action][0].format(thing=other)}"
