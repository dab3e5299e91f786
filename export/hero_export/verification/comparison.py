"""Exported graphs against the model: the same inputs through onnxruntime and through PyTorch (float32, eager)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hero_export.errors import VerificationError
from hero_export.report import CaseResult
from hero_export.tolerances import FP32, MAX_RELATIVE_ERROR, MIN_COSINE, Tolerance
from hero_export.verification.cases import Case
from hero_sdk.engines.batching import Arrays, run_in_batches
from hero_sdk.engines.onnxruntime import open_session
from hero_sdk.manifest import FRAME_GRAPH, GraphSpec

CAPTIONS = "captions"
"""Stands for an output whose error is 1 for each caption that differs."""

LOGITS = frozenset({"start", "end", "answer", "truth", "logits", CAPTIONS})
"""Outputs that become probabilities. An error of theirs counts as a share of 1 at least, since probabilities near even odds have
logits near 0, of which rounding is no small share."""


QUANTILES = (0.5, 0.9, 0.99)
"""Of the absolute error that a report has, the median first."""


class GraphRunner:
    """Runs one exported graph as the SDK's engines do: checked against its specification, cut at the maximal batch."""

    def __init__(self, name: str, file: Path, spec: GraphSpec) -> None:
        self.name = name
        self.spec = spec
        self._session = open_session(file, providers=["CPUExecutionProvider"])
        self._outputs = [tensor.name for tensor in spec.outputs]

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """The outputs by name."""
        return run_in_batches(self.spec, self.name, inputs, self._call)

    def _call(self, piece: Arrays) -> Arrays:
        try:
            return dict(zip(self._outputs, self._session.run(self._outputs, piece), strict=True))
        except Exception as error:  # onnxruntime's exceptions share no base class but Exception
            batch = len(next(iter(piece.values())))
            raise VerificationError(
                f"Graph '{self.name}' failed in onnxruntime with a batch of {batch} ({error}); expected any batch up to "
                f"{self.spec.max_batch} to run. Export with the versions that constraints.txt names; if memory ran out, "
                "choose a smaller --max-batch."
            ) from error


def verify_graph(runner: GraphRunner, module: nn.Module, cases: Sequence[Case]) -> list[CaseResult]:
    """Compare a graph with the module that it was exported from.

    Args:
        runner: of the exported graph.
        module: takes the inputs in the order of the graph.
        cases: of this graph.

    Returns:
        One result per case and output.
    """
    results = []
    for case in cases:
        found, expected = runner.run(case.inputs), reference(runner.spec, module, case.inputs)
        results += compare_case(case, runner.spec, found, expected)
    return results


def reference(spec: GraphSpec, module: nn.Module, inputs: Mapping[str, np.ndarray]) -> Arrays:
    """What the model itself computes, by output.

    Args:
        spec: of the graph.
        module: takes the inputs in the order of the graph.
        inputs: by name.
    """
    with torch.no_grad():
        outputs = module(*(torch.from_numpy(inputs[tensor.name]) for tensor in spec.inputs))
    given = outputs if isinstance(outputs, tuple) else (outputs,)
    return {tensor.name: output.numpy() for tensor, output in zip(spec.outputs, given, strict=True)}


def compare_case(
    case: Case, spec: GraphSpec, found: Arrays, expected: Arrays, tolerance: Tolerance = FP32
) -> list[CaseResult]:
    """``compare`` for each output of a graph on one input."""
    batch = len(case.inputs[spec.inputs[0].name])
    return [
        compare(
            case.graph,
            tensor.name,
            case.name,
            batch,
            found[tensor.name],
            expected[tensor.name],
            case.used[tensor.name],
            tolerance,
        )
        for tensor in spec.outputs
    ]


def compare(
    graph: str,
    output: str,
    case: str,
    batch: int,
    found: np.ndarray,
    expected: np.ndarray,
    used: np.ndarray,
    tolerance: Tolerance = FP32,
) -> CaseResult:
    """Measure how far an output lies from the model's.

    Args:
        graph, output, case: names for the report.
        batch: rows that went in.
        found, expected: (..., width); (...) logits.
        used: (...) bool, which vectors, or which logits, are compared. The others must only be finite.
        tolerance: of the graph's precision.
    """
    compared, wanted = found[used].astype(np.float64), expected[used].astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinity beside infinity is a finding, not a mishap
        error = np.abs(compared - wanted)
        norms = np.linalg.norm(compared, axis=-1) * np.linalg.norm(wanted, axis=-1)
        cosine = (compared * wanted).sum(axis=-1) / np.maximum(norms, np.finfo(np.float64).tiny)
        required = error / (1.0 + np.abs(wanted))
    scale = float(np.abs(wanted).max())
    if output in LOGITS:
        scale = max(scale, 1.0)
    result = CaseResult(
        graph=graph,
        output=output,
        case=case,
        batch=batch,
        vectors=int(used.sum()),
        max_error=float(error.max()),
        mean_error=float(error.mean()),
        quantiles={f"{share:g}": float(np.quantile(error, share)) for share in QUANTILES},
        required_tolerance=float(required.max()),
        scale=scale,
        cosine=float(cosine.min()),
        finite=bool(np.isfinite(found).all()),
        passed=False,
        # Written so that a NaN is stray, and fails: every comparison with it is false.
        stray=0 if output in LOGITS else int((~(cosine >= tolerance.min_cosine)).sum()),
    )
    near = result.finite and result.max_error <= tolerance.max_relative_error * scale
    return result.judged(near and result.stray <= tolerance.stray * result.vectors)


def require_passed(results: Sequence[CaseResult]) -> None:
    """Refuse an export with a case beyond the tolerance.

    Raises:
        VerificationError: names the worst cases with their numbers.
    """
    failed = [result for result in results if not result.passed]
    if not failed:
        return
    failed.sort(key=lambda result: result.relative_error if result.finite else np.inf, reverse=True)
    lines = [
        f"  {result.graph} -> {result.output}, {result.case} (batch {result.batch}): max error {result.max_error:.2e} of scale "
        f"{result.scale:.2e}, cosine {result.cosine:.6f}{'' if result.finite else ', not finite'}"
        for result in failed[:5]
    ]
    more = f"\n  and {len(failed) - 5} more" if len(failed) > 5 else ""
    raise VerificationError(
        f"{len(failed)} of {len(results)} comparisons with the model failed; expected a max error of at most "
        f"{MAX_RELATIVE_ERROR:g} of the scale, a cosine of at least {MIN_COSINE} and finite outputs:\n"
        + "\n".join(lines)
        + more
        + "\nNothing was written. Export with the versions that constraints.txt names, and report the numbers if it stays."
    )


def check_frame_graph(runner: GraphRunner, seed: int = 0) -> None:
    """Run the frame encoder on random images, alone and in a batch. Its numbers are verified where it is exported.

    Raises:
        VerificationError: an output is not finite, or an image's feature depends on the images beside it.
    """
    images = runner.spec.inputs[0]
    shape = (runner.spec.max_batch, *images.shape[1:])
    batch = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    features = runner.spec.outputs[0].name
    together = runner.run({images.name: batch})[features]
    alone = runner.run({images.name: batch[:1]})[features]
    if not np.isfinite([*together, *alone]).all():
        raise VerificationError(
            f"The frame encoder (graph '{FRAME_GRAPH}') gives features that are not finite on random images; expected numbers. "
            "Use the frame encoder that the model's features came from, or export it again."
        )
    error = float(np.abs(alone - together[:1]).max())
    scale = float(np.abs(together).max())
    if error > MAX_RELATIVE_ERROR * scale:
        raise VerificationError(
            f"The frame encoder (graph '{FRAME_GRAPH}') gives an image another feature alone than in a batch of {len(batch)}: "
            f"max error {error:.2e} of scale {scale:.2e}, expected at most {MAX_RELATIVE_ERROR:g} of the scale. "
            "Export the frame encoder in evaluation mode, with a dynamic batch."
        )
