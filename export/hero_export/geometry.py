"""Row shapes against the model: what a graph of fixed shapes can be asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hero_export.errors import GeometryError
from hero_sdk.rows import LAST_TEXT_POSITION, RowGeometry

if TYPE_CHECKING:
    from hero_train.config import HeroConfig

DEFAULT_MAX_BATCH = 32


def check_geometry(geometry: RowGeometry, config: HeroConfig, max_batch: int) -> None:
    """Refuse row shapes that would send an index beyond one of the model's tables, or that cannot hold its inputs.

    Args:
        geometry: the fixed shapes of the graphs.
        config: of the model.
        max_batch: the largest batch that the export verifies.

    Raises:
        GeometryError: says which shape, which limit, and which option to change.
    """
    if max_batch < 1:
        raise GeometryError(f"The largest batch is {max_batch}; it must be at least 1. Change --max-batch.")
    if geometry.slots < 2:
        raise GeometryError(
            f"A cross-modal row has {geometry.slots} slot; a frame and its text need at least 2. Change --slots."
        )
    # A segment's positions count from 0 over its frames and again over its tokens, each at most as many as a row has slots.
    positions = min(geometry.slots, LAST_TEXT_POSITION + 1)
    if positions > config.text_positions:
        raise GeometryError(
            f"A row of {geometry.slots} slots can hold a text of as many tokens, and the model has {config.text_positions} text "
            f"positions. Choose --slots {config.text_positions} or fewer."
        )
    if geometry.frames > config.frame_positions:
        raise GeometryError(
            f"A row can hold a subtitle of {geometry.frames} frames, and the model has {config.frame_positions} frame positions. "
            f"Choose --frames {config.frame_positions} or fewer."
        )
    if geometry.temporal_slots < config.clip_limit:
        raise GeometryError(
            f"A temporal row has {geometry.temporal_slots} slots, and the model reads videos of up to {config.clip_limit} clips "
            f"at once. Choose --temporal-slots {config.clip_limit} or more."
        )
    positions = min(config.query_positions, config.text_positions)
    if geometry.query_tokens > positions:
        raise GeometryError(
            f"A query may have {geometry.query_tokens} tokens, and the model has {config.query_positions} query positions and "
            f"{config.text_positions} text positions. Choose --query-tokens {positions} or fewer."
        )
