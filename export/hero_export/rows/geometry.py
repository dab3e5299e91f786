"""Row shapes against the model: what a graph of fixed shapes can be asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hero_export.errors import GeometryError
from hero_sdk.geometry import RowGeometry

if TYPE_CHECKING:
    from hero_train.config import HeroConfig

DEFAULT_MAX_BATCH = 32
DEFAULT_ANSWERS = 5
"""Most answers of a question; TVQA has five, How2QA four."""
DEFAULT_CAPTION_TOKENS = 30
"""Most tokens of a caption, its end included, as in the authors' inference."""


def row_geometry(
    config: HeroConfig,
    *,
    slots: int = RowGeometry.slots,
    frames: int = RowGeometry.frames,
    temporal_slots: int | None = None,
    query_tokens: int = RowGeometry.query_tokens,
) -> RowGeometry:
    """Row shapes for a model.

    Args:
        config: of the model.
        slots, frames, query_tokens: see ``RowGeometry``.
        temporal_slots: None takes the default of ``RowGeometry``, or more where the model reads a text behind a video of the
            longest kind.

    Raises:
        InputError: shapes that contradict one another.
    """
    if temporal_slots is None:
        temporal_slots = RowGeometry.temporal_slots
        if reads_texts(config):
            temporal_slots = max(temporal_slots, config.clip_limit + query_tokens)
    return RowGeometry(slots, frames, temporal_slots, query_tokens)


def reads_texts(config: HeroConfig) -> bool:
    """Whether the model of this configuration reads a text together with each video."""
    from hero_train.model.answers import QuestionAnsweringConfig, StatementsConfig

    return isinstance(config, QuestionAnsweringConfig | StatementsConfig)


def check_geometry(geometry: RowGeometry, config: HeroConfig, max_batch: int) -> None:
    """Refuse row shapes that would send an index beyond one of the model's tables, or that cannot hold its inputs.

    Args:
        geometry: the fixed shapes of the graphs.
        config: of the model.
        max_batch: the largest batch that the export verifies.

    Raises:
        GeometryError: says which shape, which limit, and which option to change.
    """
    from hero_train.geometry import check_geometry as check_rows
    from hero_train.geometry import check_text_geometry

    if max_batch < 1:
        raise GeometryError(f"The largest batch is {max_batch}; it must be at least 1. Change --max-batch.")
    check = check_text_geometry if reads_texts(config) else check_rows
    check(geometry, config, GeometryError, lambda name: f"--{name.replace('_', '-')}")


def check_limits(config: HeroConfig, answers: int, caption_tokens: int) -> None:
    """Refuse a number of answers or of a caption's tokens that a graph cannot have.

    Raises:
        GeometryError: says which limit, and which option to change.
    """
    from hero_train.config import CaptioningConfig

    if answers < 2:
        raise GeometryError(f"A question may have {answers} answers; expected at least 2. Change --answers.")
    if caption_tokens < 1:
        raise GeometryError(
            f"A caption may have {caption_tokens} tokens; expected at least 1. Change --caption-tokens."
        )
    if isinstance(config, CaptioningConfig) and caption_tokens > config.decoder_positions:
        raise GeometryError(
            f"A caption may have {caption_tokens} tokens, and the decoder has {config.decoder_positions} positions. Choose "
            f"--caption-tokens {config.decoder_positions} or fewer."
        )
