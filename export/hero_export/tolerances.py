"""How far the outputs of a graph may lie from the model's, and how much of a task's metric may be lost, by precision."""

from __future__ import annotations

from dataclasses import dataclass, replace

MAX_RELATIVE_ERROR = 1e-4
"""Largest absolute error, as a share of the largest output.

Measured: rounding gives 3e-7 in a model of two layers of width 32, 1e-6 at the paper's size, and 4e-6 there with weights three
times as large. Weights rounded to half precision give 3e-4 and more, a wrong mask 3e-3, a wrong position or type 3e-2. Below it lie
errors that hardly move a vector: a norm's epsilon of 1e-5 for 1e-12 (5e-6) and, in small models, GELU's tanh approximation (2e-5
at most), which ``check_fusion`` looks for in the graph.
"""

MIN_COSINE = 0.999999
"""Smallest cosine between an output vector and the model's, for retrieval ranks by cosine.

A vector much shorter than the others fails it, whose error is small beside the scale. Rounding leaves 1 - cosine below 1e-10.
Logits are no vectors, and are not compared by it.
"""


@dataclass(frozen=True)
class Tolerance:
    """What a precision may cost.

    Attributes:
        max_relative_error: largest absolute error of a single element, as a share of the largest output; for logits in fp32 and
            for sanity elsewhere.
        min_cosine: smallest cosine between an output vector and the model's.
        stray: share of the vectors whose cosine may be smaller. Of rounding the smallest of all vectors is a matter of how many one
            looks at; a slot that a graph gets wrong in every row is one of the 128 or so that a row has.
        budget: points (hundredths) of a task's metric that may be lost.
        reason: why these.
        calibrated: whether activations have ranges that real inputs have shown, so that only on real inputs there is something to
            be judged: on random ones, which lie outside, a graph with such ranges must only give numbers.
    """

    max_relative_error: float
    min_cosine: float
    budget: float
    reason: str
    calibrated: bool = False
    stray: float = 0.0


STRAY = 0.001
"""Share of stray vectors in precisions below fp32. Measured in int8 on a model of statements, over 15,233 vectors of stage 1: the
mean cosine is 0.9999, one vector in a hundred is below 0.9995 and one in a thousand below 0.9961; the smallest of all is 0.961.
"""

FP32 = Tolerance(
    MAX_RELATIVE_ERROR,
    MIN_COSINE,
    0.1,
    "the same numbers to rounding; with fewer than a thousand queries not one may be answered differently",
)

TOLERANCES = {
    "fp32": FP32,
    "fp16": Tolerance(
        0.02,
        0.999,
        0.5,
        "11 bits of mantissa in every product; elements are not judged one by one, the task is",
        stray=STRAY,
    ),
    "bf16": Tolerance(
        0.15,
        0.99,
        0.5,
        "8 bits of mantissa in every product; elements are not judged one by one, the task is",
        stray=STRAY,
    ),
    "int8": Tolerance(
        0.25,
        0.98,
        1.0,
        "256 steps for weights and activations; elements are not judged one by one, the task is",
        stray=STRAY,
    ),
}
"""By precision. What is below fp32 is judged on its task; the rest is there to tell a broken graph from a coarse one.

Measured on the demo's retrieval, the largest error as a share of the largest output and the smallest cosine: fp16 0.0013 and
0.999999 (frame encoder 0.003 and 0.99998); bf16 0.009 and 0.99994 (rounded by hand, the frame encoder has 0.08); int8 on rows of
the split 0.025 and 0.9993, and on random inputs, which its ranges do not reach, 0.7 and 0.58.
"""

UNJUDGED = Tolerance(float("inf"), -float("inf"), 0.0, "outside the ranges of the calibration; must be numbers")

CALIBRATED = frozenset({"int8", "fp8"})
"""Precisions whose activations have ranges from a calibration; those of "int8-dynamic" and of weights alone have none."""

SMALLER = {"fp8": "int8", "int4": "int8", "nf4": "int8", "fp4": "int8"}
"""Precisions without a line of their own, by the one whose tolerances they have."""


def tolerance_of(precision: str) -> Tolerance:
    """The tolerances of a precision, of which only the number format counts: those of "int8-dynamic" are int8's.

    What is not known is held to fp32's: a new precision has to be entered before it may be coarser.
    """
    kind, _, _ = precision.partition("-")
    found = TOLERANCES.get(SMALLER.get(kind, kind), FP32)
    return replace(found, calibrated=True) if precision in CALIBRATED else found
