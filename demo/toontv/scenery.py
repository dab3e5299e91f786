"""The backgrounds: one wide strip per setting, which repeats, so that a camera can follow a runner along it."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import lru_cache

from PIL import Image, ImageDraw

from demo.toontv import assets

SIZE = 224  # pixels; the frame is square, as image encoders want it
STRIP_WIDTH = 2 * SIZE
GROUND = 186  # row on which feet stand

_TILE = 56  # 8 tiles make a strip

Colour = tuple[int, int, int]


@lru_cache(maxsize=16)
def strip(where: str) -> Image.Image:
    """The background of a setting, RGB, STRIP_WIDTH + SIZE wide: the last SIZE columns repeat the first."""
    canvas = Image.new("RGB", (STRIP_WIDTH, SIZE))
    # Seeded by the setting alone: a place looks the same in every episode of every corpus.
    _PAINTERS[where](canvas, random.Random(f"scenery/{where}"))
    wide = Image.new("RGB", (STRIP_WIDTH + SIZE, SIZE))
    wide.paste(canvas, (0, 0))
    wide.paste(canvas.crop((0, 0, SIZE, SIZE)), (STRIP_WIDTH, 0))
    return wide


def view(where: str, offset: int) -> Image.Image:
    """A frame-sized RGB copy of the background, from column `offset` (taken modulo the strip)."""
    left = offset % STRIP_WIDTH
    return strip(where).crop((left, 0, left + SIZE, SIZE))


def _gradient(canvas: Image.Image, top: Colour, bottom: Colour) -> None:
    draw = ImageDraw.Draw(canvas)
    for row in range(SIZE):
        share = row / (SIZE - 1)
        colour = tuple(round(a + (b - a) * share) for a, b in zip(top, bottom, strict=True))
        draw.line(((0, row), (STRIP_WIDTH, row)), fill=colour)


def _tinted(image: Image.Image, colour: Colour | None) -> Image.Image:
    """`image` multiplied by `colour`, keeping its transparency."""
    if colour is None:
        return image
    bands = [band.point(lambda value, c=c: value * c // 255) for band, c in zip(image.split(), colour, strict=False)]
    return Image.merge("RGBA", (*bands, image.getchannel("A")))


def _tile(name: str, size: int = _TILE, colour: Colour | None = None) -> Image.Image:
    return _tinted(assets.load(f"tiles/{name}.png").resize((size, size), Image.Resampling.LANCZOS), colour)


def _row(canvas: Image.Image, tile: Image.Image, top: int) -> None:
    for left in range(0, STRIP_WIDTH, tile.width):
        canvas.paste(tile, (left, top), tile)


def _ground(canvas: Image.Image, name: str, colour: Colour | None = None) -> None:
    _row(canvas, _tile(name, colour=colour), GROUND - 8)


def _props(canvas: Image.Image, prop: Image.Image, lefts: tuple[int, ...], bottom: int = GROUND - 4) -> None:
    for left in lefts:
        canvas.paste(prop, (left, bottom - prop.height), prop)


def _discs(
    canvas: Image.Image,
    rng: random.Random,
    count: int,
    radii: tuple[int, int],
    colour: Colour,
    bottom: int,
    filled: bool,
) -> None:
    draw = ImageDraw.Draw(canvas)
    for _ in range(count):
        radius = rng.randint(*radii)
        x, y = rng.randrange(radius, STRIP_WIDTH - radius), rng.randrange(4, bottom)
        box = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(box, fill=colour if filled else None, outline=colour, width=2)


def _hills(canvas: Image.Image, colour: Colour, top: int, width: int, peaked: bool = False) -> None:
    draw = ImageDraw.Draw(canvas)
    for left in range(-width // 4, STRIP_WIDTH, width):
        if peaked:
            draw.polygon(((left, SIZE), (left + width // 2, top), (left + width, SIZE)), fill=colour)
        else:
            draw.ellipse((left, top, left + width, 2 * SIZE - top), fill=colour)


def _meadow(canvas: Image.Image, rng: random.Random) -> None:
    _gradient(canvas, (90, 185, 255), (200, 240, 255))
    for _ in range(9):
        x, y = rng.randrange(20, STRIP_WIDTH - 60), rng.randrange(10, 80)
        for shift in (0, 16, 32):
            ImageDraw.Draw(canvas).ellipse((x + shift, y - shift % 3 * 4, x + shift + 28, y + 20), fill=(255, 255, 255))
    _hills(canvas, (120, 205, 90), 130, 224)
    _props(canvas, _tile("bush", 72), (10, 140, 240, 360))
    _ground(canvas, "grassMid")


def _desert(canvas: Image.Image, rng: random.Random) -> None:
    _gradient(canvas, (255, 170, 60), (255, 235, 150))
    for left in (30, 254):
        ImageDraw.Draw(canvas).ellipse((left, 16, left + 62, 78), fill=(255, 250, 200))
    _hills(canvas, (240, 200, 110), 135, 149)
    _props(canvas, _tile("cactus", 92), (0, 130, 224, 345))
    _ground(canvas, "sandMid")


def _snow(canvas: Image.Image, rng: random.Random) -> None:
    _gradient(canvas, (190, 205, 225), (235, 242, 250))
    _hills(canvas, (215, 228, 240), 70, 149, peaked=True)
    _props(canvas, _tile("snow_pile", 90), (20, 180, 310), GROUND)
    _ground(canvas, "snowMid")
    _discs(canvas, rng, 150, (2, 4), (255, 255, 255), 180, filled=True)


def _castle(canvas: Image.Image, rng: random.Random) -> None:
    for top in range(-20, SIZE, _TILE):
        _row(canvas, _tile("brickGrey", colour=(105, 105, 120)), top)
    _props(canvas, _tile("torch1", 84), (10, 122, 234, 346), 110)
    _ground(canvas, "stoneMid", (150, 150, 165))


def _moon(canvas: Image.Image, rng: random.Random) -> None:
    _gradient(canvas, (5, 5, 20), (35, 15, 60))
    _discs(canvas, rng, 130, (1, 2), (255, 255, 255), 180, filled=True)
    for left in (40, 264):
        draw = ImageDraw.Draw(canvas)
        draw.ellipse((left, 20, left + 60, 80), fill=(230, 140, 190))
        draw.ellipse((left - 18, 42, left + 78, 58), outline=(255, 225, 240), width=4)
    _props(canvas, _tile("plantPurple", 64), (0, 150, 224, 370))
    _ground(canvas, "planetMid")


def _city(canvas: Image.Image, rng: random.Random) -> None:
    far = assets.load("cybercity_background/far-buildings.png").resize((SIZE, SIZE), Image.Resampling.NEAREST)
    for left in (0, SIZE):
        canvas.paste(_tinted(far, None).convert("RGB").point(lambda value: min(255, value * 3 // 2)), (left, 0))
    draw = ImageDraw.Draw(canvas)
    for left in range(0, STRIP_WIDTH, 64):
        top = rng.randrange(60, 110)
        draw.rectangle((left + 4, top, left + 54, GROUND), fill=(10, 40, 50))
        for x in range(left + 10, left + 48, 12):
            for y in range(top + 8, GROUND - 16, 16):
                if rng.random() < 0.6:
                    draw.rectangle((x, y, x + 6, y + 8), fill=(255, 225, 90))
    _row(canvas, _tile("brickGrey", colour=(40, 90, 100)), GROUND - 8)


def _highway(canvas: Image.Image, rng: random.Random) -> None:
    layers = "miami_synth_parallax/layers"
    back = assets.load(f"{layers}/back.png")
    palms = assets.load(f"{layers}/palms.png")
    for left in (0, SIZE):
        canvas.paste(back.crop((0, 0, SIZE, SIZE)).convert("RGB"), (left, 0))
        canvas.paste(palms, (left, -10), palms)
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, GROUND - 10, STRIP_WIDTH, SIZE), fill=(70, 40, 110))
    draw.rectangle((0, GROUND - 12, STRIP_WIDTH, GROUND - 8), fill=(255, 90, 200))
    for left in range(0, STRIP_WIDTH, _TILE):
        draw.rectangle((left, 204, left + 30, 209), fill=(255, 220, 250))


def _volcano(canvas: Image.Image, rng: random.Random) -> None:
    _gradient(canvas, (60, 5, 10), (190, 40, 20))
    _hills(canvas, (40, 20, 25), 50, 149, peaked=True)
    draw = ImageDraw.Draw(canvas)
    for left in range(-37, STRIP_WIDTH, 149):
        top = left + 74
        draw.polygon(((top - 16, 84), (top, 46), (top + 16, 84), (top + 5, 76), (top - 6, 96)), fill=(255, 120, 20))
    _discs(canvas, rng, 50, (2, 4), (255, 170, 40), 150, filled=True)
    _row(canvas, _tile("lavaTop_high"), GROUND - 12)


def _sea(canvas: Image.Image, rng: random.Random) -> None:
    for top in range(0, SIZE, _TILE):
        _row(canvas, _tile("water", colour=(60, 190, 205)), top)
    _discs(canvas, rng, 46, (4, 10), (225, 255, 255), 170, filled=False)
    _props(canvas, _tile("grass_sprout", 110, (70, 200, 120)), (0, 110, 224, 330))
    _ground(canvas, "sandCenter", (255, 235, 190))


def _house(canvas: Image.Image, rng: random.Random) -> None:
    for top in range(0, SIZE, _TILE):
        _row(canvas, _tile("brickTextureWhite", colour=(255, 150, 185)), top)
    draw = ImageDraw.Draw(canvas)
    for left in (20, 244):
        draw.rectangle((left, 30, left + 64, 96), fill=(170, 225, 255), outline=(255, 255, 255), width=6)
        draw.line(((left + 32, 30), (left + 32, 96)), fill=(255, 255, 255), width=5)
    _props(canvas, _tile("doorClosed_mid", 84), (130, 354), GROUND)
    draw.rectangle((0, GROUND - 8, STRIP_WIDTH, SIZE), fill=(120, 60, 90))
    for left in range(0, STRIP_WIDTH, 28):
        draw.line(((left, GROUND - 8), (left, SIZE)), fill=(90, 40, 65), width=2)


_PAINTERS: dict[str, Callable[[Image.Image, random.Random], None]] = {
    "meadow": _meadow,
    "desert": _desert,
    "snow": _snow,
    "castle": _castle,
    "moon": _moon,
    "city": _city,
    "highway": _highway,
    "volcano": _volcano,
    "sea": _sea,
    "house": _house,
}
