"""Quantising a model of OpenVINO with NNCF."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from hero_export.errors import PrecisionError
from hero_export.openvino.convert import Converted
from hero_sdk.engines.openvino import load_openvino
from hero_sdk.errors import require

if TYPE_CHECKING:
    import openvino

EXTRA = "quantise"
PURPOSE = "quantise graphs for OpenVINO"

MOST_ROWS = 300
"""Rows of a calibration set that are looked at."""

SMOOTHINGS: tuple[float | None, ...] = (0.25, None)
"""How much of the outliers of activations goes into the weights (SmoothQuant); None for nothing. All are made, the nearest is kept.

NNCF's own choice, 0.95, leaves a channel no room beyond what the calibration showed of it: calibrated on a dozen rows, other rows
of a random caption decoder were 0.23 of the scale away, where 0.25 gave 0.036. And on a model that had learnt to judge statements
0.25 was 0.14 away (cosine 0.974), where nothing gave 0.047 (0.998); on the demo's other graphs the two were alike.
"""

Rows = Sequence[Mapping[str, np.ndarray]]
"""Inputs of a graph by name, each with a batch in front."""


def quantise(
    converted: Converted, rows: Rows, *, smoothing: float | None = None, keep: Collection[str] = ()
) -> openvino.Model:
    """Weights and activations in eight bits: NNCF's post-training quantisation with its settings for transformers.

    Weights get one scale for each output, symmetric; activations one for each tensor. The mean error of each product is moved into
    its bias.

    The range of an activation is that of all rows. NNCF's own choice, the mean of the rows' ranges, cuts off what the fuller rows
    have: on random models of width 32 it costs 0.09 to 0.6 of the scale where this costs 0.01 to 0.02, and at width 768 0.035
    where this costs 0.019.

    Args:
        converted: the graph.
        rows: real inputs.
        smoothing: see ``SMOOTHINGS``.
        keep: products that stay in float32, by their names in the model.

    Raises:
        PrecisionError: no rows, or NNCF refuses the graph.
        MissingPackageError: NNCF is not installed.
    """
    if not rows:
        raise PrecisionError(
            f"The calibration set has no rows of graph '{converted.graph}'; expected some. Make it again with "
            "`hero-export calibrate`, from data that this graph reads."
        )
    nncf = _load()
    with _quiet(), _refused(converted.graph, "int8"):
        return nncf.quantize(
            converted.model,
            nncf.Dataset([dict(row) for row in rows[:MOST_ROWS]]),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=min(len(rows), MOST_ROWS),
            ignored_scope=nncf.IgnoredScope(names=list(keep)),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=_range_of_all_rows(),
                smooth_quant_alphas=_smoothing(smoothing),
            ),
        )


def _range_of_all_rows() -> Any:
    ranges = require("nncf.quantization.range_estimator", EXTRA, PURPOSE)
    return ranges.RangeEstimatorParametersSet.MINMAX


def _smoothing(amount: float | None) -> Any:
    parameters = require("nncf.quantization.advanced_parameters", EXTRA, PURPOSE)
    return parameters.AdvancedSmoothQuantParameters(matmul=-1 if amount is None else amount)  # NNCF's way to say no


def compress(converted: Converted, *, keep: Collection[str] = ()) -> openvino.Model:
    """Weights in eight bits, those of tables too, with one scale for each output or row.

    Args:
        converted: the graph.
        keep: products that stay in float32, by their names in the model.

    Raises:
        PrecisionError: NNCF refuses the graph.
        MissingPackageError: NNCF is not installed.
    """
    nncf = _load()
    with _quiet(), _refused(converted.graph, "int8-weights"):
        return nncf.compress_weights(
            converted.model,
            mode=nncf.CompressWeightsMode.INT8_SYM,
            ignored_scope=nncf.IgnoredScope(names=list(keep)),
        )


def check_installed() -> None:
    """See that NNCF is installed.

    Raises:
        MissingPackageError: it is not.
    """
    _load()


def _load() -> ModuleType:
    # OpenVINO's first: it keeps telemetry out, NNCF's too.
    load_openvino()
    return require("nncf", EXTRA, PURPOSE)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """NNCF shows bars and tables on standard output, where a command prints its own result."""
    logger = logging.getLogger("nncf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _refused(graph: str, precision: str) -> Iterator[None]:
    try:
        yield
    except (
        Exception
    ) as error:  # NNCF's exceptions, and those of OpenVINO that it lets through, share no other base class
        raise PrecisionError(
            f"Graph '{graph}' cannot be made {precision} by NNCF: {error} Keep its layers in float32 with --keep, or choose "
            "another precision."
        ) from error
