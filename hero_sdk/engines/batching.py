"""Checking and cutting a batch: the one way in which every engine runs a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from hero_sdk.errors import EngineError, InputError
from hero_sdk.manifest import GraphSpec, TensorSpec

Arrays = dict[str, np.ndarray]


def run_in_batches(
    spec: GraphSpec, name: str, inputs: Mapping[str, np.ndarray], call: Callable[[Arrays], Mapping[str, np.ndarray]]
) -> Arrays:
    """Run a graph on a batch of any size.

    The inputs are checked against the manifest, cut along the batch into pieces of at most ``spec.max_batch``, and the
    outputs of the pieces are joined in order.

    Args:
        spec: the graph in the manifest.
        name: of the graph, for messages.
        inputs: the arrays by input name, all with the same batch size (at least 1) in front.
        call: runs one piece. It gets contiguous arrays in the order of ``spec.inputs`` and returns at least the outputs
            that the manifest names. It is called from this thread, one piece after the other.

    Returns:
        The outputs of the manifest by name, each with the batch size of the inputs in front.

    Raises:
        InputError: a missing or unknown input, another dtype or shape than the manifest's, an empty batch, or inputs of
            different batch sizes.
        EngineError: the engine returned something else than the manifest says.
    """
    batch = _check_inputs(spec, name, inputs)
    parts = []
    for start in range(0, batch, spec.max_batch):
        stop = min(start + spec.max_batch, batch)
        piece = {tensor.name: np.ascontiguousarray(inputs[tensor.name][start:stop]) for tensor in spec.inputs}
        outputs = call(piece)
        _check_outputs(spec, name, outputs, stop - start)
        parts.append(outputs)
    if len(parts) == 1:
        return {tensor.name: parts[0][tensor.name] for tensor in spec.outputs}
    return {tensor.name: np.concatenate([part[tensor.name] for part in parts]) for tensor in spec.outputs}


def _check_inputs(spec: GraphSpec, name: str, inputs: Mapping[str, np.ndarray]) -> int:
    """Check the inputs of a graph and return their batch size."""
    expected = [tensor.name for tensor in spec.inputs]
    if set(inputs) != set(expected):
        missing, unknown = sorted(set(expected) - set(inputs)), sorted(set(inputs) - set(expected))
        raise InputError(
            f"Graph '{name}' was called without inputs {missing} and with unknown inputs {unknown}; it takes {expected}."
        )
    batch = None
    for tensor in spec.inputs:
        array = inputs[tensor.name]
        if problem := mismatch(tensor, array):
            raise InputError(f"Input '{tensor.name}' of graph '{name}' is {problem}. Convert or reshape it first.")
        if batch is None:
            batch = len(array)
        elif len(array) != batch:
            raise InputError(
                f"Input '{tensor.name}' of graph '{name}' has a batch of {len(array)} and '{expected[0]}' one of {batch}; "
                "all inputs of one call need the same batch size."
            )
    if not batch:
        raise InputError(f"Graph '{name}' was called with an empty batch; pass at least one row.")
    return batch


def _check_outputs(spec: GraphSpec, name: str, outputs: Mapping[str, np.ndarray], batch: int) -> None:
    for tensor in spec.outputs:
        if tensor.name not in outputs:
            raise EngineError(
                f"Graph '{name}' returned {sorted(outputs)} and not '{tensor.name}', which the manifest promises. "
                "Export the bundle again, and write the model repository from it again if a server runs it."
            )
        array = outputs[tensor.name]
        problem = mismatch(tensor, array)
        if problem is None and len(array) != batch:
            problem = f"a batch of {len(array)}; expected {batch}, the batch that went in"
        if problem:
            raise EngineError(f"Output '{tensor.name}' of graph '{name}' is {problem}. Export the bundle again.")


def mismatch(tensor: TensorSpec, array: np.ndarray) -> str | None:
    """How an array differs from what the manifest says, as words that follow "is", or None when it does not."""
    if not isinstance(array, np.ndarray):
        return f"a {type(array).__name__}; expected a numpy array of {tensor.dtype}"
    fits = array.ndim == len(tensor.shape) and all(
        want in (-1, found) for want, found in zip(tensor.shape, array.shape, strict=True)
    )
    if array.dtype != np.dtype(tensor.dtype) or not fits:
        want = "(" + ", ".join("batch" if size == -1 else str(size) for size in tensor.shape) + ")"
        return f"{array.dtype} of shape {array.shape}; expected {tensor.dtype} of shape {want}"
    return None
