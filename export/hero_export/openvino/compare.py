"""Models of OpenVINO against the ONNX graphs that they were made from: on the cases of an export, and on rows of a calibration set
where activations have ranges, which say nothing of inputs outside of them.

How far they may lie apart stands in ``hero_export.tolerances``. Measured as error and cosine, over all graphs of tiny random models
of every task, and at width 768 with two layers (error alone):

- fp32: 4e-7 and 1.000000; 1e-6.
- fp16: 7e-4 and 1.000000, of the stored weights alone.
- bf16: 0.017 and 0.99995; 0.005.
- int8-dynamic: 0.019 and 0.9999; 0.016.
- int8-weights: 0.016 and 0.9999; 0.011.
- int8, on the rows that it was calibrated on: 0.02 and 0.9998; 0.019.

A weight with the wrong sign, or rows in another order, are 0.5 and more away.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hero_export.errors import VerificationError
from hero_export.precision.calibration import CalibrationSet
from hero_export.report import CaseResult
from hero_export.tolerances import tolerance_of
from hero_export.verification.comparison import GraphRunner, compare
from hero_export.verification.head_cases import Case
from hero_export.verification.rows import used_of
from hero_sdk.engines.batching import Arrays, run_in_batches
from hero_sdk.engines.openvino import OpenVinoSession, compile_model
from hero_sdk.errors import EngineError
from hero_sdk.manifest import GraphSpec

ROWS = 16
"""Rows of a calibration set that a graph is compared on."""


def calibrated_cases(calibration: CalibrationSet, graph: str, spec: GraphSpec) -> list[Case]:
    """Rows of a calibration set as one case; none where the set has no rows of the graph."""
    if graph not in calibration.record.graphs:
        return []
    inputs = {name: array[:ROWS] for name, array in calibration.arrays(graph).items()}
    used = {tensor.name: used_of(spec, tensor, inputs) for tensor in spec.outputs}
    return [Case(graph, "rows of the calibration set", inputs, used)]


class Reference:
    """The outputs of an ONNX graph on its cases, in onnxruntime on the CPU, each computed once.

    Args:
        name: of the graph.
        file: the ONNX file.
        spec: of the graph.
        cases: of the graph.
    """

    def __init__(self, name: str, file: Path, spec: GraphSpec, cases: Sequence[Case]) -> None:
        runner = GraphRunner(name, file, spec)
        self.name = name
        self.spec = spec
        self.cases = [(case, runner.run(case.inputs)) for case in cases]

    def compare(self, session: OpenVinoSession, precision: str) -> list[CaseResult]:
        """Run a model on all cases.

        Args:
            session: of the model.
            precision: that it was made in.

        Raises:
            VerificationError: it has other inputs or outputs, or cannot run one of them.
        """
        for tensors, there in ((self.spec.inputs, session.inputs), (self.spec.outputs, session.outputs)):
            if (wanted := {tensor.name for tensor in tensors}) != set(there):
                raise VerificationError(
                    f"Graph '{self.name}' has the tensors {sorted(there)} in OpenVINO; its ONNX graph has {sorted(wanted)}. Use "
                    "the version of OpenVINO that constraints.txt names."
                )
        tolerance = tolerance_of(precision)
        results = []
        for case, expected in self.cases:
            found = run(session, self.name, self.spec, case.inputs)
            for tensor in self.spec.outputs:
                used, batch = case.used[tensor.name], len(next(iter(case.inputs.values())))
                pair = found[tensor.name], expected[tensor.name]
                results.append(compare(self.name, tensor.name, case.name, batch, *pair, used, tolerance))
        return results


def run(session: OpenVinoSession, name: str, spec: GraphSpec, inputs: Arrays) -> Arrays:
    """The outputs of a model by name, cut at the largest batch as the SDK does.

    Raises:
        VerificationError: OpenVINO fails.
    """
    names = [tensor.name for tensor in spec.outputs]

    def call(piece: Arrays) -> Arrays:
        try:
            return dict(zip(names, session.run(names, piece), strict=True))
        except Exception as error:  # OpenVINO's exceptions share no base class but Exception
            raise VerificationError(
                f"Graph '{name}' failed in OpenVINO ({error}); expected any batch up to {spec.max_batch} to run. Use the version "
                "of OpenVINO that constraints.txt names."
            ) from error

    try:
        return run_in_batches(spec, name, inputs, call)
    except EngineError as error:
        raise VerificationError(f"Graph '{name}' is another one in OpenVINO: {error}") from error


def quantises_at_run_time(session: OpenVinoSession, reference: Reference) -> bool:
    """Whether a model that was told to quantise its activations at run time does: whether its numbers differ from those without.

    A compiled graph says nothing of it.
    """
    case, _ = reference.cases[0]
    names = [tensor.name for tensor in reference.spec.outputs]
    plain = compile_model(session.model, "int8-weights", threads=1)(case.inputs)
    found = session.run(names, case.inputs)
    return any(not np.array_equal(plain[name], array) for name, array in zip(names, found, strict=True))


def require_near(results: Sequence[CaseResult], precision: str) -> None:
    """Refuse a model that is too far from its ONNX graph.

    Raises:
        VerificationError: names the worst cases with their numbers.
    """
    failed = [result for result in results if not result.passed]
    if not failed:
        return
    failed.sort(key=lambda result: result.relative_error if result.finite else np.inf, reverse=True)
    tolerance = tolerance_of(precision)
    lines = [
        f"  {result.graph} -> {result.output}, {result.case} (batch {result.batch}): max error {result.relative_error:.2e} of the "
        f"scale, cosine {result.cosine:.6f}, {result.stray} of {result.vectors} vectors astray"
        f"{'' if result.finite else ', not finite'}"
        for result in failed[:5]
    ]
    raise VerificationError(
        f"{len(failed)} of {len(results)} comparisons of OpenVINO's {precision} with the ONNX graphs failed; expected an error of "
        f"at most {tolerance.max_relative_error:g} of the scale, a cosine of at least {tolerance.min_cosine:g} for all "
        f"but {tolerance.stray:g} of the vectors, and finite outputs:\n"
        + "\n".join(lines)
        + "\nNothing was written. Keep the layers that cost most in float32 with --keep, calibrate on more rows, or choose another "
        "precision."
    )
