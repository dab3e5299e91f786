"""Reading the reports of a bundle: whether it was verified, and the numbers that stand in them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from hero_export.errors import ExportError
from hero_export.report import REPORT_JSON, CaseResult
from hero_sdk.bundle_files import MAX_BYTES, read_file
from hero_sdk.manifest import Manifest

REPORT_FOLDER = "reports/"


def json_reports(manifest: Manifest) -> list[str]:
    """The names of the reports that are written for programs."""
    return [name for name in manifest.files if name.startswith(REPORT_FOLDER) and name.endswith(".json")]


def read_report(bundle: Path, name: str) -> dict[str, Any]:
    """A report, an object of JSON.

    Raises:
        ExportError: it is none.
    """
    try:
        content = json.loads(read_file(bundle, name, MAX_BYTES[".json"]))
    except (ValueError, RecursionError) as error:
        raise ExportError(f"{name} of {bundle} is not JSON ({error}). Export the checkpoint again.") from error
    if not isinstance(content, dict):
        raise ExportError(f"{name} of {bundle} is {type(content).__name__}; expected an object. Export it again.")
    return content


def passed_cases(bundle: Path, manifest: Manifest) -> list[CaseResult]:
    """The comparisons with the model that the export made, all of which passed.

    Raises:
        ExportError: no report of them, one of another model, or a comparison that failed.
    """
    if REPORT_JSON not in manifest.files:
        raise ExportError(
            f"{bundle} was never verified: it has no {REPORT_JSON}; expected the report that `hero-export onnx` writes. "
            "Export the checkpoint again."
        )
    report = read_report(bundle, REPORT_JSON)
    try:
        cases = [CaseResult(**case) for case in report["cases"]]
    except (KeyError, TypeError) as error:
        raise ExportError(
            f"{REPORT_JSON} of {bundle} cannot be read ({error}). Export the checkpoint again."
        ) from error
    if report.get("fingerprint") != manifest.fingerprint or not cases:
        raise ExportError(f"{REPORT_JSON} of {bundle} is not the report of this model. Export the checkpoint again.")
    if failed := [case for case in cases if case.passed is not True]:
        raise ExportError(
            f"{REPORT_JSON} of {bundle} has {len(failed)} of {len(cases)} comparisons that did not pass, such as "
            f"{failed[0].graph}, {failed[0].case}; expected none. Export the checkpoint again."
        )
    return cases


def numbers(value: object, path: str = "") -> dict[str, float]:
    """Every finite number inside a JSON value, by the names that lead to it joined by ``/``.

    An element of a list is named by the texts that it holds, when these tell the elements apart, and by its place otherwise.
    """
    if isinstance(value, (int, float)):
        # Truth values are no numbers, and one that is not finite cannot be written down in JSON.
        return {path: float(value)} if not isinstance(value, bool) and math.isfinite(value) else {}
    items: list[tuple[str, object]] = []
    if isinstance(value, dict):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list):
        texts = ["/".join(_texts(item)) for item in value]
        named = all(texts) and len(set(texts)) == len(texts)
        items = list(zip(texts if named else map(str, range(len(value))), value, strict=True))
    inner = [numbers(item, f"{path}/{key}" if path else key) for key, item in items]
    return {name: number for found in inner for name, number in found.items()}


def _texts(item: object) -> list[str]:
    return [text for text in item.values() if isinstance(text, str)] if isinstance(item, dict) else []
