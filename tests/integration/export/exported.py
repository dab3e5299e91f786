"""What the tests of ``hero-export onnx`` share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hero_sdk.manifest import CAPTIONING, QUESTION_ANSWERING, STATEMENTS
from tests.tiny_checkpoint import GEOMETRY, MAX_BATCH

OPERATORS = {QUESTION_ANSWERING: "standard", STATEMENTS: "onnxruntime", CAPTIONING: "auto"}
"""Each task in another form, so that all forms are exported."""

GRAPHS = ("cross_modal", "temporal", "query", "moment")
OPTIONS = [
    *("--slots", str(GEOMETRY.slots), "--frames", str(GEOMETRY.frames)),
    *("--temporal-slots", str(GEOMETRY.temporal_slots), "--query-tokens", str(GEOMETRY.query_tokens)),
    *("--max-batch", str(MAX_BATCH), "--json"),
]


@dataclass(frozen=True)
class Exported:
    """What one run of the command read, wrote and said."""

    checkpoint: Path
    bundle: Path
    report: dict
    stages: str


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }
