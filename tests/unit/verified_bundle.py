"""Bundles with the report of an export, as the tests of the hub send them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from hero_export.report import CaseResult, ExportReport
from hero_sdk.manifest import Manifest
from tests.tiny_bundle import seal


def verified(bundle: Path, **changes: object) -> Path:
    """Give a bundle the report of an export."""
    manifest = Manifest.from_json((bundle / "manifest.json").read_text(encoding="utf-8"))
    case = CaseResult("query", "query_vector", "batch of one", 1, 1, 2e-7, 1e-8, {}, 1e-7, 2.0, 0.9999999, True, True)
    case = dataclasses.replace(case, **changes)  # type: ignore[arg-type]
    report = ExportReport(manifest.fingerprint, {"max_relative_error": 1e-4}, (), (case,), {"torch": "2.9"})
    (bundle / "reports").mkdir(exist_ok=True)
    (bundle / "reports" / "export.json").write_text(report.to_json(), encoding="utf-8")
    metrics = {"metrics": {"VCMR": {"R@1": 0.25}}, "seconds": 3}
    (bundle / "reports" / "task.json").write_text(json.dumps(metrics), encoding="utf-8")
    seal(bundle, manifest)
    return bundle


def content(bundle: Path) -> dict[str, bytes]:
    return {path.relative_to(bundle).as_posix(): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
