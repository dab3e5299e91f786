"""Where the report of a verification goes: written beside its place, and moved there when it is whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hero_export.errors import ExportError
from hero_export.report import tool_versions
from hero_export.reproduce import SCRIPT_FILE, Variable, Word, reproduce_script
from hero_export.verification.pages import to_html, to_markdown
from hero_export.verification.report import VerificationReport
from hero_sdk.manifest import MANIFEST_FILE, sha256_of
from hero_train import staging

REPORT_JSON, REPORT_HTML, REPORT_TEXT = "report.json", "report.html", "report.md"


def default_place(bundle: Path) -> Path:
    """Beside the bundle, and not in it, which its manifest and its signature have closed."""
    whole = bundle.absolute()
    return whole.with_name(f"{whole.name}-verification")


def check_place(place: Path) -> None:
    """Refuse a place that holds something else than an earlier report.

    Raises:
        ExportError: ``place`` is no folder that a report may go to.
    """
    if not place.exists() and not place.is_symlink():
        return
    if place.is_dir() and not place.is_symlink() and (not any(place.iterdir()) or _is_report(place)):
        return
    raise ExportError(
        f"{place} exists and is no report of a verification; expected a new folder, an empty one or an earlier report to "
        "replace. Choose another --report, or remove it yourself."
    )


def _is_report(folder: Path) -> bool:
    try:
        content = json.loads((folder / REPORT_JSON).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and {"version", "bundle", "worst", "stages"} <= content.keys()


@contextmanager
def staged_report(place: Path) -> Iterator[Path]:
    """A folder that takes the place of the report at the end of the block.

    Raises:
        ExportError: see ``check_place``, or it cannot be written.
    """
    check_place(place)
    with staging.staged(place, mark="", check=lambda: check_place(place.absolute()), error=ExportError) as folder:
        yield folder


def write_report(folder: Path, report: VerificationReport, bundle: Path, words: list[Word]) -> None:
    """Write the report in its three forms, and the script that verifies again.

    Args:
        folder: where to.
        report: of ``verify_bundle``.
        bundle: that was verified; the script expects its manifest.
        words: options of the command.
    """
    (folder / REPORT_JSON).write_text(report.to_json(), encoding="utf-8")
    (folder / REPORT_HTML).write_text(to_html(report), encoding="utf-8")
    (folder / REPORT_TEXT).write_text(to_markdown(report), encoding="utf-8")
    variables = {
        "BUNDLE": "the folder of the bundle",
        "CHECKPOINT": "the folder of the checkpoint",
        "OUT": "the folder to write the report to",
    }
    if report.split is not None:
        variables["DATA"] = "the configuration of the run"
    command: list[Word] = ["hero-export", "verify", Variable("BUNDLE"), "--checkpoint", Variable("CHECKPOINT")]
    if report.split is not None:
        command += ["--data", Variable("DATA")]
    script = reproduce_script(
        [*command, "--report", Variable("OUT"), *words],
        variables=variables,
        inputs={Variable("BUNDLE", MANIFEST_FILE): sha256_of(bundle / MANIFEST_FILE)},
        tools=tool_versions(),
    )
    (folder / SCRIPT_FILE).write_text(script, encoding="utf-8")
