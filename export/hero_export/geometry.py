"""Row shapes against the model: what a graph of fixed shapes can be asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hero_export.errors import GeometryError
from hero_sdk.geometry import RowGeometry

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
    from hero_train.geometry import check_geometry as check_rows

    if max_batch < 1:
        raise GeometryError(f"The largest batch is {max_batch}; it must be at least 1. Change --max-batch.")
    check_rows(geometry, config, GeometryError, lambda name: f"--{name.replace('_', '-')}")
