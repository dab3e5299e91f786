"""The sprites: image files of the `arcade` wheel (Kenney, CC0), cropped, scaled and outlined for a small frame."""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageChops, ImageFilter

CHARACTER_HEIGHT = 128  # pixels of the sprite's cell; the figure inside is about nine tenths of it
THING_BOX = (92, 76)  # width and height in pixels that a thing fills

POSES = ("idle", "jump", "fall", "climb0", "climb1", *(f"walk{i}" for i in range(8)))

_ALIEN_POSES = {"idle": "front", "jump": "jump", "fall": "fall", "climb0": "climb1", "climb1": "climb2"}

_CHARACTER_FILES = {
    "robot": "animated_characters/robot/robot",
    "zombie": "animated_characters/zombie/zombie",
    "explorer": "animated_characters/female_adventurer/femaleAdventurer",
    "ranger": "animated_characters/male_adventurer/maleAdventurer",
    "girl": "animated_characters/female_person/femalePerson",
    "barber": "animated_characters/male_person/malePerson",
}

_THING_FILES = {
    "bee": "enemies/bee.png",
    "bomb": "tiles/bomb.png",
    "coin": "items/gold_1.png",
    "crate": "tiles/boxCrate_double.png",
    "fish": "enemies/fishPink.png",
    "flag": "items/flagRed1.png",
    "frog": "enemies/frog.png",
    "gem": "items/gemBlue.png",
    "ladybug": "enemies/ladybug.png",
    "mushroom": "tiles/mushroomRed.png",
    "slime": "enemies/slimePurple.png",
    "spaceship": "space_shooter/playerShip1_green.png",
}


class ToonTvError(Exception):
    """Base class of everything that this package raises on purpose."""


class AssetsMissingError(ToonTvError):
    """The wheel that carries the sprites is not installed, or one of its images is not there."""


def images_folder() -> Path:
    """Folder of the sprites inside the installed `arcade` wheel.

    The package is located and not imported: importing it needs pyglet and OpenGL, and only its images are used.
    Raises AssetsMissingError when the package or its image folder is absent.
    """
    advice = "Install it with: pip install --no-deps arcade==3.3.3"
    spec = importlib.util.find_spec("arcade")
    if spec is None or not spec.submodule_search_locations:
        raise AssetsMissingError(f"The package 'arcade', whose sprites ToonTV draws, is not installed. {advice}")
    folder = Path(spec.submodule_search_locations[0]) / "resources" / "assets" / "images"
    if not folder.is_dir():
        raise AssetsMissingError(f"The installed 'arcade' has no image folder at {folder}. {advice}")
    return folder


@lru_cache(maxsize=64)
def load(relative: str) -> Image.Image:
    """One image of the wheel as RGBA, at its own size. Raises AssetsMissingError when the file is absent."""
    path = images_folder() / relative
    if not path.is_file():
        raise AssetsMissingError(
            f"The installed 'arcade' has no image {relative}. Install the expected one: "
            "pip install --no-deps arcade==3.3.3"
        )
    with Image.open(path) as image:
        return image.convert("RGBA")


def _character_file(who: str, pose: str) -> str:
    if who != "alien":
        return f"{_CHARACTER_FILES[who]}_{pose}.png"
    # The alien has two walking poses where the others have eight.
    name = _ALIEN_POSES.get(pose) or f"walk{int(pose.removeprefix('walk')) // 2 % 2 + 1}"
    return f"alien/alienBlue_{name}.png"


def _outlined(image: Image.Image) -> Image.Image:
    """`image` with a white rim and a thin dark edge, so that it stands out before any background."""
    rim, edge = 2, 1
    pad = rim + edge + 1
    canvas = Image.new("RGBA", (image.width + 2 * pad, image.height + 2 * pad))
    canvas.paste(image, (pad, pad))
    alpha = canvas.getchannel("A").point(lambda value: 255 if value > 96 else 0)
    white = alpha.filter(ImageFilter.MaxFilter(2 * rim + 1))
    dark = white.filter(ImageFilter.MaxFilter(2 * edge + 1))
    result = Image.new("RGBA", canvas.size, (20, 20, 30, 255))
    result.putalpha(dark)
    result.paste((255, 255, 255, 255), (0, 0), ImageChops.darker(white, dark))
    result.alpha_composite(canvas)
    return result


@lru_cache(maxsize=2048)
def character(who: str, pose: str, percent: int = 100, mirrored: bool = False, angle: int = 0) -> Image.Image:
    """A character in one of POSES, `percent` of CHARACTER_HEIGHT high, turned by `angle` degrees; RGBA."""
    image = load(_character_file(who, pose))
    height = CHARACTER_HEIGHT * percent // 100
    image = image.resize((image.width * height // image.height, height), Image.Resampling.LANCZOS)
    return _turned(_outlined(image), mirrored, angle)


@lru_cache(maxsize=1024)
def thing(name: str, percent: int = 100, mirrored: bool = False, angle: int = 0) -> Image.Image:
    """A thing that fills `percent` of THING_BOX, turned by `angle` degrees; RGBA."""
    image = load(_THING_FILES[name])
    image = image.crop(image.getchannel("A").getbbox())
    scale = min(THING_BOX[0] / image.width, THING_BOX[1] / image.height) * percent / 100
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    return _turned(_outlined(image), mirrored, angle)


def _turned(image: Image.Image, mirrored: bool, angle: int) -> Image.Image:
    if mirrored:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if angle:
        image = image.rotate(angle, Image.Resampling.BILINEAR, expand=True)
    return image
