"""``hero-export tensorrt --dry-run``: all checks, then which plans would be written, and nothing built."""

from __future__ import annotations

from pathlib import Path

from hero_export.bundles.destination import check_destination
from hero_export.dry_run import Plan, PlannedFile
from hero_export.onnx.fusion import graph_bytes, read_model
from hero_export.precision.calibration import read_calibration
from hero_export.reproduce import SCRIPT_FILE
from hero_export.tensorrt.module import find_tensorrt
from hero_export.tensorrt.plans import BUILD_REPORT, PlanRequest, chosen_targets, variant_name
from hero_export.tensorrt.prepare import check_precisions
from hero_sdk.manifest import MANIFEST_FILE, read_bundle
from hero_sdk.signature import PublicKeys
from hero_sdk.variants import VARIANTS_FOLDER

KERNELS = 2_000_000
"""Bytes of the kernels in a plan, about; the rest of it are weights."""


def plan_plans(
    bundle: Path,
    request: PlanRequest,
    *,
    module: str | None = None,
    out: Path | None = None,
    force: bool = False,
    require_signature: PublicKeys | None = None,
) -> Plan:
    """What ``add_plans`` would write; arguments and errors are its own, but for those of building."""
    tensorrt = find_tensorrt(module)
    manifest = read_bundle(bundle, require_signature=require_signature)
    targets = chosen_targets(tensorrt, request, manifest)
    calibration = None if request.calibration is None else read_calibration(request.calibration, manifest)
    check_precisions(request.precisions, calibration)
    place = bundle if out is None else out
    in_place = place.absolute() == bundle.absolute()
    check_destination(place, force=force or in_place)
    sizes = {
        name: graph_bytes(bundle / spec.file, read_model(bundle / spec.file)) for name, spec in manifest.graphs.items()
    }
    files = []
    for precision in request.precisions:
        share = 1 if precision == "fp32" else 2
        for target in targets:
            name = variant_name(tensorrt, precision, target)
            files += [
                PlannedFile(f"{VARIANTS_FOLDER}/{name}/{graph}.plan", size // share + KERNELS)
                for graph, size in sizes.items()
            ]
            files += [PlannedFile(f"reports/{VARIANTS_FOLDER}/{name}/{file}") for file in (BUILD_REPORT, SCRIPT_FILE)]
    files.append(PlannedFile(MANIFEST_FILE))
    return Plan(str(place), place.is_dir() and any(place.iterdir()), tuple(files))
