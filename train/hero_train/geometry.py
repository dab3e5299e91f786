"""Row shapes against the model: what rows of fixed shapes can be asked for."""

from __future__ import annotations

from collections.abc import Callable

from hero_sdk.errors import HeroError
from hero_sdk.rows import LAST_TEXT_POSITION, RowGeometry
from hero_train.config import HeroConfig
from hero_train.errors import ConfigError


def check_geometry(
    geometry: RowGeometry,
    config: HeroConfig,
    error: type[HeroError] = ConfigError,
    option: Callable[[str], str] = "rows.{}".format,
) -> None:
    """Refuse row shapes that would send an index beyond one of the model's tables, or that cannot hold its inputs.

    Args:
        geometry: the fixed shapes of the rows.
        config: of the model.
        error: what to raise.
        option: how the user set the shape of this name.

    Raises:
        error: says which shape, which limit, and which option to change.
    """
    if geometry.slots < 2:
        raise error(
            f"A cross-modal row has {geometry.slots} slot; a frame and its text need at least 2. Change {option('slots')}."
        )
    # A segment's positions count from 0 over its frames and again over its tokens, each at most as many as a row has slots.
    positions = min(geometry.slots, LAST_TEXT_POSITION + 1)
    if positions > config.text_positions:
        raise error(
            f"A row of {geometry.slots} slots can hold a text of as many tokens, and the model has {config.text_positions} text "
            f"positions. Choose {option('slots')} {config.text_positions} or fewer."
        )
    if geometry.frames > config.frame_positions:
        raise error(
            f"A row can hold a subtitle of {geometry.frames} frames, and the model has {config.frame_positions} frame positions. "
            f"Choose {option('frames')} {config.frame_positions} or fewer."
        )
    if geometry.temporal_slots < config.clip_limit:
        raise error(
            f"A temporal row has {geometry.temporal_slots} slots, and the model reads videos of up to {config.clip_limit} clips "
            f"at once. Choose {option('temporal_slots')} {config.clip_limit} or more."
        )
    positions = min(config.query_positions, config.text_positions)
    if geometry.query_tokens > positions:
        raise error(
            f"A query may have {geometry.query_tokens} tokens, and the model has {config.query_positions} query positions and "
            f"{config.text_positions} text positions. Choose {option('query_tokens')} {positions} or fewer."
        )


def check_text_geometry(
    geometry: RowGeometry,
    config: HeroConfig,
    error: type[HeroError] = ConfigError,
    option: Callable[[str], str] = "rows.{}".format,
) -> None:
    """``check_geometry`` for models that read a text of up to ``geometry.query_tokens`` together with a video.

    Raises:
        error: says which shape, which limit, and which option to change.
    """
    check_geometry(geometry, config, error, option)
    for name, beside, what in (
        ("slots", 2, "a frame, a separator"),
        ("temporal_slots", config.clip_limit, f"a video of {config.clip_limit} clips"),
    ):
        slots, least = getattr(geometry, name), beside + geometry.query_tokens
        if slots < least:
            raise error(
                f"Rows of {slots} slots cannot hold {what} and a text of {geometry.query_tokens} tokens. Choose "
                f"{option(name)} {least} or more, or {option('query_tokens')} {slots - beside} or fewer."
            )
