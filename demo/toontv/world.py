"""The world of ToonTV: who, what, where, what can be said, and which combinations training never sees."""

from __future__ import annotations

import itertools
import random
from types import MappingProxyType

Phrases = MappingProxyType[str, tuple[str, ...]]

FRAMES_PER_SECOND = 8
CLIP_FRAMES = 12  # 1.5 s: the resolution of the model, to which scene boundaries are close

HELD_OUT_SHARE = 0.15

# Every value has a few ways to be said; the first is the plainest.
CHARACTERS: Phrases = MappingProxyType(
    {
        "robot": ("the robot", "the blue robot"),
        "zombie": ("the zombie", "the green zombie"),
        "alien": ("the alien", "the alien in the helmet"),
        "explorer": ("the explorer", "the explorer with long red hair"),
        "ranger": ("the ranger", "the ranger with spiky hair"),
        "girl": ("the girl", "the girl in the green shirt"),
        "barber": ("the barber", "the barber with the moustache"),
    }
)

THINGS: Phrases = MappingProxyType(
    {
        "bee": ("the bee", "the yellow bee"),
        "bomb": ("the bomb", "the grey bomb"),
        "coin": ("the coin", "the gold coin"),
        "crate": ("the crate", "the wooden crate"),
        "fish": ("the fish", "the pink fish"),
        "flag": ("the flag", "the red flag"),
        "frog": ("the frog", "the green frog"),
        "gem": ("the gem", "the blue gem"),
        "ladybug": ("the ladybug", "the spotted ladybug"),
        "mushroom": ("the mushroom", "the red mushroom"),
        "slime": ("the slime", "the purple slime"),
        "spaceship": ("the spaceship", "the little spaceship"),
    }
)

SETTINGS: Phrases = MappingProxyType(
    {
        "meadow": ("in the meadow", "on the green grass of the meadow"),
        "desert": ("in the desert", "on the hot sand of the desert"),
        "snow": ("in the snow", "out in the white snow"),
        "castle": ("in the castle", "behind the stone walls of the castle"),
        "moon": ("on the moon", "under the stars on the moon"),
        "city": ("in the city", "in the dark city at night"),
        "highway": ("on the highway", "on the highway with the palms"),
        "volcano": ("at the volcano", "on the lava of the volcano"),
        "sea": ("under the sea", "down under the sea"),
        "house": ("in the pink house", "inside the pink house"),
    }
)

# {thing} is filled with a thing; in a meeting {thing} is the other character.
ACTIONS: Phrases = MappingProxyType(
    {
        "jump": ("jumps over {thing}", "leaps over {thing}"),
        "climb": ("climbs a ladder to {thing}", "climbs up the ladder to get {thing}"),
        "carry": ("carries {thing}", "carries {thing} overhead"),
        "chase": ("chases {thing}", "runs after {thing}"),
        "fall": ("falls through the air with {thing}", "tumbles down with {thing}"),
        "stand": ("stands on {thing}", "balances on top of {thing}"),
        "meet": ("meets {thing}", "stops to talk to {thing}"),
    }
)
MEET = "meet"

PLACES = (
    "Brindle Cove", "Marrow Hill", "Tansy Bridge", "Old Pelham", "Quill Harbour", "Dunmere", "Foxley Bay", "Port Lumen",
    "Saffron Gate", "Whistledown", "Kettle Point", "North Ember", "Juniper Falls", "Crowsby", "Velvet Creek",
    "Hollow Pines", "Amberly", "Zephyr Rock", "Tumble Marsh", "Lantern Street",
)  # fmt: skip
FOODS = (
    "soup", "pancakes", "noodles", "cherry pie", "pickles", "popcorn", "dumplings", "lemonade", "toast", "waffles",
    "chestnuts", "ice cream",
)  # fmt: skip
PLANS = (
    "paint the fence", "fix the clock", "win the race", "sell the piano", "learn to dance", "catch the ferry",
    "bake a birthday cake", "open a bookshop", "write a song", "plant a garden",
)  # fmt: skip
PEOPLE = ("Mabel", "Otto", "Priya", "Hugo", "Wanda", "Felix", "Ingrid", "Cosmo", "Yusuf", "Delia")

OPINIONS = ("likes", "dislikes")
TOPICS: MappingProxyType[str, tuple[str, ...]] = MappingProxyType({"food": FOODS, "plan": PLANS, "person": PEOPLE})


def combination(cast: tuple[str, ...], thing: str | None, where: str) -> str:
    """The name of a composition, as in the held-out list: "robot|frog|desert" or "alien+robot|meeting|desert"."""
    return f"{'+'.join(sorted(cast))}|{thing or 'meeting'}|{where}"


def parse_combination(name: str) -> tuple[tuple[str, ...], str | None, str]:
    """The inverse of `combination`: cast, thing (None in a meeting) and setting."""
    cast, thing, where = name.split("|")
    return tuple(cast.split("+")), None if thing == "meeting" else thing, where


def held_out_combinations(seed: int) -> tuple[str, ...]:
    """The compositions that are never shown in training and validation, sorted; a share HELD_OUT_SHARE of each kind."""
    rng = random.Random(f"{seed}/held-out")
    singles = [
        combination((who,), thing, where) for who, thing, where in itertools.product(CHARACTERS, THINGS, SETTINGS)
    ]
    meetings = [
        combination(pair, None, where)
        for pair, where in itertools.product(itertools.combinations(CHARACTERS, 2), SETTINGS)
    ]
    chosen = (rng.sample(kind, round(len(kind) * HELD_OUT_SHARE)) for kind in (singles, meetings))
    return tuple(sorted(itertools.chain.from_iterable(chosen)))
