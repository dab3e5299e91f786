"""Plans cached by content: what was built once from the same graph, by the same builder, for the same target, is not built again.

A plan lies in a folder whose name is the hash over everything that it was built from, with a JSON file that says what that was
and the plan's own sha256. The folder appears whole, by one renaming. A plan is code: one that was altered, that lies under another
name, or that no such file describes is refused, and not built over, for somebody or something put it there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hero_export.errors import ExportError
from hero_export.onnx.fusion import read_model
from hero_export.tensorrt.build import Plan
from hero_export.tensorrt.module import PlanOptions
from hero_sdk.errors import BundleError, FingerprintError
from hero_sdk.manifest import sha256_of

PLAN_FILE, ENTRY_FILE = "engine.plan", "entry.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class PlanKey:
    """All that decides what a plan holds.

    Attributes:
        graph: sha256 over the ONNX file that is built and the files that its weights lie in.
        builder: module and version.
        precision: that its products must have.
        options: target, profile and compatibility.
        excused: layers that may be in a higher precision.
    """

    graph: str
    builder: str
    precision: str
    options: PlanOptions
    excused: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """The key as sha256."""
        text = json.dumps({"format_version": FORMAT_VERSION, **dataclasses.asdict(self)}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def graph_digest(path: Path) -> str:
    """sha256 over an ONNX file and the files beside it that its weights lie in, in the order of their names."""
    weights = read_model(path).graph.initializer
    names = sorted({entry.value for weight in weights for entry in weight.external_data if entry.key == "location"})
    sums = [sha256_of(path), *(sha256_of(path.parent / name) for name in names)]
    return sums[0] if not names else hashlib.sha256("".join(sums).encode()).hexdigest()


class PlanCache:
    """A folder of plans.

    Args:
        folder: is made if need be.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: PlanKey) -> Plan | None:
        """The plan of a key; None where it was never built.

        Raises:
            BundleError: the plan was altered, or nothing describes it.
            FingerprintError: what lies there was built from something else.
        """
        place = self._folder / key.digest
        if not place.exists():
            return None
        entry = self._entry(place, key)
        data = self._read(place / PLAN_FILE)
        found = hashlib.sha256(data).hexdigest()
        if found != entry["sha256"]:
            raise BundleError(
                f"{place / PLAN_FILE} is not the plan that was cached: found sha256 {found[:16]}..., expected "
                f"{entry['sha256'][:16]}... {_advice(place)}"
            )
        return Plan(
            data=data,
            products={str(name): int(count) for name, count in entry["products"].items()},
            precision=str(entry["precision"]),
            unfused=tuple(entry["unfused"]),
            warnings=tuple(entry["warnings"]),
            seconds=0.0,
        )

    def put(self, key: PlanKey, plan: Plan) -> None:
        """Keep a plan; the same one that another process kept meanwhile stays.

        Raises:
            ExportError: the folder cannot be written.
        """
        place = self._folder / key.digest
        partial = self._folder / f".{key.digest[:16]}.{uuid.uuid4().hex[:8]}"
        entry = {
            "key": {"format_version": FORMAT_VERSION, **dataclasses.asdict(key)},
            "sha256": hashlib.sha256(plan.data).hexdigest(),
            "products": plan.products,
            "precision": plan.precision,
            "unfused": plan.unfused,
            "warnings": plan.warnings,
        }
        try:
            partial.mkdir(parents=True)
            (partial / PLAN_FILE).write_bytes(plan.data)
            (partial / ENTRY_FILE).write_text(json.dumps(entry, indent=2) + "\n", encoding="utf-8")
            if not place.exists():
                partial.rename(place)
        except OSError as error:
            if not place.exists():
                raise ExportError(
                    f"The plan cannot be kept in {self._folder} ({error}). See that there is room on the disk and that the folder "
                    "may be written to, or leave --cache out."
                ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _entry(self, place: Path, key: PlanKey) -> dict[str, Any]:
        """What is said of a plan, checked against what was asked for."""
        try:
            entry = json.loads(self._read(place / ENTRY_FILE))
            said, _ = (
                entry["key"],
                (entry["sha256"], entry["products"], entry["precision"], entry["unfused"], entry["warnings"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(
                f"{place / ENTRY_FILE} does not describe a plan ({error}); a plan is never used without that. {_advice(place)}"
            ) from error
        # Through JSON, as it was written: a tuple is a list there.
        wanted = json.loads(json.dumps({"format_version": FORMAT_VERSION, **dataclasses.asdict(key)}))
        if said != wanted:
            differing = sorted(name for name in wanted if not isinstance(said, dict) or said.get(name) != wanted[name])
            raise FingerprintError(
                f"{place / PLAN_FILE} was built from something else than its name says: its {', '.join(differing) or 'key'} "
                f"differs from that of {key.digest[:16]}. {_advice(place)}"
            )
        return dict(entry)

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise BundleError(
                f"{path} cannot be read ({error}); a plan is used only together with what describes it. {_advice(path.parent)}"
            ) from error


def _advice(place: Path) -> str:
    return f"Remove {place} and build again, or use another --cache; and find out who wrote there."
