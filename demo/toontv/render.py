"""The pictures: every action is a pose, a motion and a few cartoonist's lines, all readable from a single frame."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from PIL import Image, ImageDraw

from demo.toontv import assets, scenery
from demo.toontv.scenery import GROUND, SIZE
from demo.toontv.script import Episode, Scene
from demo.toontv.world import FRAMES_PER_SECOND

_CENTRE = SIZE // 2
_WALK_FRAMES_PER_SECOND = 8
_RUN_PIXELS_PER_SECOND = 96
_ENTRANCE, _EXIT = 0.5, 0.375  # seconds


def episode_frames(episode: Episode) -> Iterator[Image.Image]:
    """All frames of an episode in order: RGB, SIZE x SIZE pixels, FRAMES_PER_SECOND of them a second."""
    for scene in episode.scenes:
        for frame in range(scene.start_frame, scene.end_frame):
            yield scene_frame(scene, frame)


def scene_frame(scene: Scene, frame: int) -> Image.Image:
    """One frame, counted from the start of the episode, of a scene."""
    seconds = (frame - scene.start_frame) / FRAMES_PER_SECOND
    return _ACTIONS[scene.action](scene, seconds)


def _paste(canvas: Image.Image, sprite: Image.Image, x: float, bottom: float) -> None:
    """Draw `sprite` centred on column `x`, standing on row `bottom`."""
    canvas.paste(sprite, (round(x - sprite.width / 2), round(bottom - sprite.height)), sprite)


def _entrance(scene: Scene, seconds: float) -> float:
    """How far (pixels) the character is from its place, because it comes in or leaves; 0 for most of the scene."""
    left = scene.end - scene.start - seconds
    if scene.staging.enters and seconds < _ENTRANCE:
        return -(1 - seconds / _ENTRANCE) * SIZE * 0.8 * scene.staging.side
    if scene.staging.exits and left < _EXIT:
        return (1 - left / _EXIT) * SIZE * 0.8 * scene.staging.side
    return 0.0


def _walk_pose(scene: Scene, seconds: float, speed: float = 1.0) -> str:
    return f"walk{int((seconds * speed + scene.staging.phase) * _WALK_FRAMES_PER_SECOND) % 8}"


def _figure(scene: Scene, pose: str, angle: int = 0) -> Image.Image:
    return assets.character(scene.cast[0], pose, scene.staging.percent, scene.staging.side < 0, angle)


def _object(scene: Scene, angle: int = 0) -> Image.Image:
    if scene.thing is None:
        raise ValueError(f"The action {scene.action!r} needs a thing, and scene {scene.index} has none.")
    return assets.thing(scene.thing, scene.staging.percent, scene.staging.side < 0, angle)


def _cycle(scene: Scene, seconds: float, period: float) -> float:
    """Position 0..1 in a motion that repeats every `period` seconds."""
    return (seconds / period + scene.staging.phase) % 1.0


def _jump(scene: Scene, seconds: float) -> Image.Image:
    """Back and forth over the thing, in an arc drawn with dots."""
    canvas = scenery.view(scene.where, scene.staging.offset)
    draw = ImageDraw.Draw(canvas)

    def foot(share: float) -> tuple[float, float]:
        return _CENTRE + (share - 0.5) * 150, GROUND + 2 - 88 * math.sin(math.pi * share) ** 0.7

    for dot in range(13):
        x, y = foot(dot / 12)
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=(255, 255, 255), outline=(20, 20, 30))
    _paste(canvas, _object(scene), _CENTRE, GROUND + 4)
    # A triangle wave, so that the way back is a jump too.
    share = abs(2 * _cycle(scene, seconds, 2.75) - 1)
    x, y = foot(share)
    _paste(canvas, _figure(scene, "jump"), x, y + 4)
    return canvas


def _climb(scene: Scene, seconds: float) -> Image.Image:
    """Up a ladder, with the thing waiting on a ledge at its top."""
    side = scene.staging.side
    canvas = scenery.view(scene.where, scene.staging.offset)
    ladder_x, ledge_x = _CENTRE - 44 * side, _CENTRE + 54 * side
    rung = assets.load("tiles/ladderMid.png").resize((64, 64))
    for top in range(GROUND - 64, -64, -64):
        canvas.paste(rung, (ladder_x - 32, top), rung)
    ledge = assets.load("tiles/bridgeB.png").resize((116, 116))
    canvas.paste(ledge, (ledge_x - 58, 98), ledge)
    _paste(canvas, _object(scene), ledge_x, 104)
    share = min(1.0, seconds / max(scene.end - scene.start - 0.5, 0.5))
    pose = f"climb{int(seconds * 4 + scene.staging.phase * 2) % 2}"
    _paste(canvas, _figure(scene, pose), ladder_x, GROUND - 6 - share * 44)
    return canvas


def _carry(scene: Scene, seconds: float) -> Image.Image:
    """To and fro with the thing held overhead."""
    canvas = scenery.view(scene.where, scene.staging.offset)
    x = _CENTRE + 34 * math.sin(2 * math.pi * _cycle(scene, seconds, 4.0)) + _entrance(scene, seconds)
    _paste(canvas, _figure(scene, _walk_pose(scene, seconds)), x, GROUND + 12)
    _paste(canvas, _object(scene), x, 90)
    return canvas


def _chase(scene: Scene, seconds: float) -> Image.Image:
    """After the thing, which flees; the camera follows and the air streaks."""
    side = scene.staging.side
    canvas = scenery.view(scene.where, scene.staging.offset + round(side * seconds * _RUN_PIXELS_PER_SECOND))
    draw = ImageDraw.Draw(canvas)
    for number, row in enumerate(range(40, 190, 18)):
        x = (number * 71 - side * seconds * 500) % (SIZE + 90) - 90
        draw.line(((x, row), (x + 90, row)), fill=(255, 255, 255), width=3)
    runner_x = _CENTRE - 56 * side + _entrance(scene, seconds)
    hop = abs(math.sin(2 * math.pi * _cycle(scene, seconds, 0.75))) * 26
    _paste(canvas, _figure(scene, _walk_pose(scene, seconds, 2.0), angle=-14 * side), runner_x, GROUND + 8)
    _paste(canvas, _object(scene, angle=-10 * side), _CENTRE + 58 * side, GROUND - hop)
    return canvas


def _fall(scene: Scene, seconds: float) -> Image.Image:
    """Head over heels beside the thing, with lines of air rushing up."""
    side = scene.staging.side
    canvas = scenery.view(scene.where, scene.staging.offset)
    draw = ImageDraw.Draw(canvas)
    for number, column in enumerate(range(10, SIZE, 22)):
        y = (number * 83 - seconds * 420) % (SIZE + 80) - 80
        draw.line(((column, y), (column, y + 80)), fill=(255, 255, 255), width=3)
    # Turned to steps of ten degrees: the turned sprites are kept, and there must not be too many.
    swing = math.sin(2 * math.pi * _cycle(scene, seconds, 2.0))
    figure = _figure(scene, "fall", angle=180 + 10 * round(3 * swing))
    thing = _object(scene, angle=10 * round(-4 * swing))
    _paste(canvas, figure, _CENTRE - 50 * side, 100 + 12 * swing + figure.height / 2)
    _paste(canvas, thing, _CENTRE + 58 * side, 92 - 20 * swing + thing.height / 2)
    return canvas


def _stand(scene: Scene, seconds: float) -> Image.Image:
    """On top of the thing, rocking a little."""
    canvas = scenery.view(scene.where, scene.staging.offset)
    thing = _object(scene)
    rock = math.sin(2 * math.pi * _cycle(scene, seconds, 1.4))
    x = _CENTRE + 30 * (scene.staging.phase - 0.5)
    figure = _figure(scene, "idle", angle=4 * round(2 * rock))
    _paste(canvas, thing, x, GROUND + 18)
    _paste(canvas, figure, x + 3 * rock, GROUND + 24 - thing.height + (figure.height - SIZE * 0.6) / 8)
    return canvas


def _meet(scene: Scene, seconds: float) -> Image.Image:
    """Two characters face to face, under a bubble with dots: they talk."""
    canvas = scenery.view(scene.where, scene.staging.offset)
    draw = ImageDraw.Draw(canvas)
    for number, who in enumerate(scene.cast):
        away = 1 if number else -1
        nod = 4 * math.sin(2 * math.pi * _cycle(scene, seconds + number * 0.4, 0.9))
        sprite = assets.character(who, "idle", scene.staging.percent, away > 0)
        # The second waits, the first is the one that comes in or leaves.
        shift = abs(_entrance(scene, seconds)) * away if number == 0 else 0.0
        _paste(canvas, sprite, _CENTRE + 56 * away + shift, GROUND + 10 + nod)
    draw.ellipse((66, 6, 158, 52), fill=(255, 255, 255), outline=(20, 20, 30), width=2)
    shown = 1 + int(seconds * 3) % 3
    for dot in range(shown):
        draw.ellipse((84 + dot * 22, 23, 96 + dot * 22, 35), fill=(20, 20, 30))
    return canvas


_ACTIONS: dict[str, Callable[[Scene, float], Image.Image]] = {
    "jump": _jump,
    "climb": _climb,
    "carry": _carry,
    "chase": _chase,
    "fall": _fall,
    "stand": _stand,
    "meet": _meet,
}
