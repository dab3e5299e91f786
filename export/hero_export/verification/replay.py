"""The worst input of a graph, kept as a file and run again by itself."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hero_export.errors import ExportError
from hero_export.onnx.graphs import graphs_of
from hero_export.report import CaseResult
from hero_export.tolerances import UNJUDGED, tolerance_of
from hero_export.verification.comparison import compare_case, reference
from hero_export.verification.head_cases import Case
from hero_export.verification.model import bundle_limits, load_bundle_model
from hero_export.verification.report import BASE
from hero_export.verification.rows import NAME as ROWS
from hero_export.verification.variants import NotRun, open_variant
from hero_sdk.manifest import FRAME_GRAPH, read_bundle
from hero_sdk.signature import PublicKeys

INPUT, USED = "input.", "used."
FORMAT = "hero-export worst input 1"


@dataclass(frozen=True)
class Replay:
    """An input that was run again.

    Attributes:
        variant, graph, case: what it is an input of.
        recorded: what the verification found for the output that was worst.
        results: what was found now, for every output.
    """

    variant: str
    graph: str
    case: str
    recorded: CaseResult
    results: tuple[CaseResult, ...]

    @property
    def again(self) -> CaseResult:
        """The output that was worst, now."""
        return next(result for result in self.results if result.output == self.recorded.output)

    @property
    def same(self) -> bool:
        """Whether the number is the one that was recorded."""
        return self.again.required_tolerance == self.recorded.required_tolerance

    def to_json(self) -> str:
        """As text for programs."""
        return json.dumps(dataclasses.asdict(self) | {"same": self.same}, indent=2)


def save_worst(path: Path, case: Case, result: CaseResult, *, variant: str, fingerprint: str, threads: int) -> None:
    """Keep an input with what was found on it."""
    tensors = {f"{INPUT}{name}": np.ascontiguousarray(array) for name, array in case.inputs.items()}
    tensors |= {f"{USED}{name}": np.ascontiguousarray(array) for name, array in case.used.items()}
    about = {
        "format": FORMAT,
        "variant": variant,
        "fingerprint": fingerprint,
        "threads": threads,
        "result": dataclasses.asdict(result),
    }
    save_file(tensors, str(path), metadata={"about": json.dumps(about)})


def _read(path: Path) -> tuple[dict[str, Any], Case]:
    if not path.is_file():
        raise ExportError(f"There is no file {path}; expected one of the inputs that `hero-export verify` kept.")
    try:
        with safe_open(str(path), framework="np") as file:
            about = json.loads((file.metadata() or {})["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
        if about["format"] != FORMAT:
            raise KeyError(about["format"])
        result = CaseResult(**about["result"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ExportError(
            f"{path} is no input that this version of `hero-export verify` kept ({error!r}). Verify the bundle again."
        ) from error
    parts = {
        kind: {name.removeprefix(kind): array for name, array in tensors.items() if name.startswith(kind)}
        for kind in (INPUT, USED)
    }
    return about | {"result": result}, Case(result.graph, result.case, parts[INPUT], parts[USED])


def replay(file: Path, bundle: Path, checkpoint: str | Path, *, require_signature: PublicKeys | None = None) -> Replay:
    """Run an input that ``hero-export verify`` kept through the model and through the graph that it was worst for.

    Args:
        file: in the report's folder.
        bundle: the folder.
        checkpoint: that the bundle was made from.
        require_signature: public keys of which one must have signed the bundle; None asks for no signature.

    Raises:
        ExportError: no such file, of another bundle, or a graph that does not run here.
        BundleError, CheckpointError, FingerprintError: as for ``verify_bundle``.
    """
    about, case = _read(file)
    manifest = read_bundle(bundle, require_signature=require_signature)
    variant, recorded = about["variant"], about["result"]
    if about["fingerprint"] != manifest.fingerprint:
        raise ExportError(
            f"{file} is an input of a bundle with the fingerprint {about['fingerprint'][:12]}; {bundle} has "
            f"{manifest.fingerprint[:12]}. Name the bundle that was verified."
        )
    if variant != BASE:
        manifest.variant(variant)
    with torch_threads(about["threads"]):
        opened = open_variant(bundle, manifest, variant, about["threads"])
        if isinstance(opened, NotRun):
            raise ExportError(f"The variant {variant} does not run here: {opened.why}")
        spec = manifest.graphs[case.graph]
        if case.graph == FRAME_GRAPH:
            base = open_variant(bundle, manifest, BASE, about["threads"])
            assert not isinstance(base, NotRun)
            expected = base.engine.run(case.graph, case.inputs)
        else:
            model = load_bundle_model(bundle, manifest, checkpoint)
            module = graphs_of(model, manifest.geometry, **bundle_limits(manifest))[case.graph].module
            expected = reference(spec, module, case.inputs)
        found = opened.engine.run(case.graph, case.inputs)
        tolerance = tolerance_of(opened.precision_of(case.graph))
        judged = case.name == ROWS or not tolerance.calibrated
        results = compare_case(case, spec, found, expected, tolerance if judged else UNJUDGED)
    return Replay(variant, case.graph, case.name, recorded, tuple(results))


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Give PyTorch as many threads as the engines have, for the same sums in the same order and for times that can be compared."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
