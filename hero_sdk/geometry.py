"""The fixed shapes of packed rows. Beside ``rows``, so that a manifest or a command line can be read without numpy."""

from __future__ import annotations

from dataclasses import dataclass, field

from hero_sdk.errors import InputError

AT_LEAST_ONE = {"minimum": 1}
"""Limit of a field, in the words of JSON schema; see ``manifest``."""


@dataclass(frozen=True)
class RowGeometry:
    """The fixed shapes that every engine sees.

    Attributes:
        slots: slots of a cross-modal row.
        frames: rows of a cross-modal row's frame-feature table.
        temporal_slots: slots of a temporal row; at least the clip limit of the model.
        query_tokens: tokens of a query, ``<s>`` included; longer queries are cut.
    """

    slots: int = field(default=128, metadata=AT_LEAST_ONE)
    frames: int = field(default=64, metadata=AT_LEAST_ONE)
    temporal_slots: int = field(default=128, metadata=AT_LEAST_ONE)
    query_tokens: int = field(default=64, metadata=AT_LEAST_ONE)

    def __post_init__(self) -> None:
        for name in ("slots", "frames", "temporal_slots", "query_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"RowGeometry.{name} is {getattr(self, name)}; it must be at least 1.")
        if self.frames > self.slots:
            raise InputError(
                f"RowGeometry has {self.frames} frames in a row of {self.slots} slots; each frame takes a slot, "
                "so choose frames <= slots."
            )
