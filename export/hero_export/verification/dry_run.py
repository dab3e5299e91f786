"""``--dry-run`` of verify and mix: whether bundle, checkpoint and calibration go together, and what would be written."""

from __future__ import annotations

from pathlib import Path

from hero_export.bundles.variants import REPORTS_FOLDER
from hero_export.dry_run import Plan, PlannedFile
from hero_export.precision.calibration import read_calibration
from hero_export.precision.search import Mixable
from hero_export.reproduce import SCRIPT_FILE
from hero_export.verification.destination import REPORT_HTML, REPORT_JSON, REPORT_TEXT
from hero_export.verification.mixing import SEARCH_REPORT, maker
from hero_export.verification.model import load_bundle_model
from hero_export.verification.report import BASE
from hero_export.verification.verifying import INPUTS_FOLDER, Options
from hero_sdk.manifest import FRAME_GRAPH, read_bundle
from hero_sdk.signature import PublicKeys
from hero_sdk.variants import ENGINE_SUFFIXES, VARIANTS_FOLDER, Variant


def plan_verification(
    bundle: Path,
    checkpoint: str | Path,
    place: Path,
    options: Options,
    *,
    require_signature: PublicKeys | None = None,
) -> Plan:
    """What ``verify_bundle`` would leave; errors are its own, but for those of running graphs. Which variants run is not tried."""
    manifest = read_bundle(bundle, require_signature=require_signature)
    load_bundle_model(bundle, manifest, checkpoint)
    graphs = {BASE: [graph for graph in manifest.graphs if graph != FRAME_GRAPH]}
    for name in manifest.variants if options.variants is None else options.variants:
        graphs[name] = list(manifest.variant(name).graphs)
    names = [REPORT_JSON, REPORT_HTML, REPORT_TEXT, SCRIPT_FILE]
    names += [f"{INPUTS_FOLDER}/{name}-{graph}.safetensors" for name, own in graphs.items() for graph in own]
    return Plan(str(place), place.is_dir() and any(place.iterdir()), tuple(map(PlannedFile, names)))


def plan_mix(
    bundle: Path,
    checkpoint: str | Path,
    calibration: Path,
    engine: str,
    precision: Mixable,
    *,
    require_signature: PublicKeys | None = None,
) -> Plan:
    """What ``mix_precision`` would put into a bundle; errors are its own, but for those of making and judging candidates."""
    manifest = read_bundle(bundle, require_signature=require_signature)
    maker(bundle, calibration, engine, precision)
    load_bundle_model(bundle, manifest, checkpoint)
    graphs = read_calibration(calibration, manifest).record.graphs
    name = Variant(engine, precision, {}).name
    files = [f"{VARIANTS_FOLDER}/{name}/{graph}{ENGINE_SUFFIXES[engine]}" for graph in graphs]
    files.append(f"{REPORTS_FOLDER}/{VARIANTS_FOLDER}/{name}/{SEARCH_REPORT}")
    return Plan(str(bundle), True, tuple(map(PlannedFile, files)))
