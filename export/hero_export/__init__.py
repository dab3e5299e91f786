"""Export: from a checkpoint to a verified bundle, and from a bundle to what a server runs.

Names are resolved when they are first used, so that ``import hero_export`` imports neither torch nor onnxruntime.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hero_export.errors import (
    BudgetError,
    BuildError,
    CalibrationError,
    ExportError,
    FusionError,
    GeometryError,
    PrecisionError,
    VerificationError,
)

if TYPE_CHECKING:
    from hero_export.bundles.diff import diff_bundles
    from hero_export.bundles.export import export_bundle
    from hero_export.bundles.hub import pull_bundle, push_bundle
    from hero_export.bundles.inspection import inspect_bundle
    from hero_export.bundles.signing import make_keys, sign_bundle
    from hero_export.frame_encoder import export_frame_encoder
    from hero_export.openvino.export import add_openvino
    from hero_export.precision.calibrating import calibrate_bundle
    from hero_export.precision.making import add_precisions
    from hero_export.report import ExportReport
    from hero_export.tensorrt.plans import add_plans
    from hero_export.triton import write_repository
    from hero_export.verification.mixing import mix_precision
    from hero_export.verification.verifying import verify_bundle

__all__ = [
    "BudgetError",
    "BuildError",
    "CalibrationError",
    "ExportError",
    "ExportReport",
    "FusionError",
    "GeometryError",
    "PrecisionError",
    "VerificationError",
    "add_openvino",
    "add_plans",
    "add_precisions",
    "calibrate_bundle",
    "diff_bundles",
    "export_bundle",
    "export_frame_encoder",
    "inspect_bundle",
    "make_keys",
    "mix_precision",
    "pull_bundle",
    "push_bundle",
    "sign_bundle",
    "verify_bundle",
    "write_repository",
]

_HOMES = {
    "ExportReport": "hero_export.report",
    "add_openvino": "hero_export.openvino.export",
    "add_plans": "hero_export.tensorrt.plans",
    "add_precisions": "hero_export.precision.making",
    "calibrate_bundle": "hero_export.precision.calibrating",
    "diff_bundles": "hero_export.bundles.diff",
    "export_bundle": "hero_export.bundles.export",
    "export_frame_encoder": "hero_export.frame_encoder",
    "inspect_bundle": "hero_export.bundles.inspection",
    "make_keys": "hero_export.bundles.signing",
    "mix_precision": "hero_export.verification.mixing",
    "pull_bundle": "hero_export.bundles.hub",
    "push_bundle": "hero_export.bundles.hub",
    "sign_bundle": "hero_export.bundles.signing",
    "verify_bundle": "hero_export.verification.verifying",
    "write_repository": "hero_export.triton",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hero_export' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
