"""What ONNX Runtime's own operators give, told to ONNX's type inference, which knows nothing of them and stops there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import onnx
from onnx.defs import OpSchema
from onnx.shape_inference import InferenceContext

DOMAIN = "com.microsoft"
BLOCKED = "com.microsoft.nchwc"

_FLOATS = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)", "tensor(double)"]
_ANY = [*_FLOATS, *(f"tensor({kind})" for kind in ("int8", "uint8", "int16", "uint16", "int32", "int64", "bool"))]
_MANY = OpSchema.FormalParameterOption.Variadic


def _like(source: int) -> Callable[[InferenceContext], None]:
    """The first output is as an input is."""

    def infer(context: InferenceContext) -> None:
        if (kind := _type(context, source)) is not None:
            context.set_output_type(0, kind)

    return infer


def _typed(context: InferenceContext) -> None:
    """The first output has the type of the first input, and a shape that nobody asks for."""
    if (kind := _type(context, 0)) is not None:
        result = onnx.TypeProto()
        result.tensor_type.elem_type = kind.tensor_type.elem_type
        context.set_output_type(0, result)


def _product(typed: int) -> Callable[[InferenceContext], None]:
    """A matrix product whose result has the type of an input: (..., K) by (K, N)."""

    def infer(context: InferenceContext) -> None:
        left, right, kind = _type(context, 0), _type(context, 1), _type(context, typed)
        if kind is None:
            return
        result = onnx.TypeProto()
        result.tensor_type.elem_type = kind.tensor_type.elem_type
        width = context.get_attribute("N")
        if left is not None and left.tensor_type.HasField("shape"):
            for size in left.tensor_type.shape.dim[:-1]:
                result.tensor_type.shape.dim.append(size)
            last = result.tensor_type.shape.dim.add()
            if width is not None:
                last.dim_value = width.i
            elif right is not None and right.tensor_type.shape.dim:
                last.CopyFrom(right.tensor_type.shape.dim[-1])
        context.set_output_type(0, result)

    return infer


def _type(context: InferenceContext, number: int) -> onnx.TypeProto | None:
    return context.get_input_type(number) if number < context.get_num_inputs() else None


_LIKE = ("MultiHeadAttention", "SkipLayerNormalization", "BiasGelu", "FastGelu", "QuickGelu")
_INFERENCES: dict[tuple[str, str], Callable[[InferenceContext], None]] = {
    **{
        (DOMAIN, name): _like(0) for name in _LIKE
    },  # an attention gives what its queries are like, (batch, places, hidden)
    **{(DOMAIN, name): _product(0) for name in ("FusedMatMul", "MatMulNBits", "DynamicQuantizeMatMul")},
    (DOMAIN, "MatMulIntegerToFloat"): _product(2),
    (DOMAIN, "FusedConv"): _typed,
    # What onnxruntime makes of convolutions for the processor that it runs on.
    **{(BLOCKED, name): _typed for name in ("Conv", "ReorderInput", "ReorderOutput", "MaxPool", "AveragePool")},
    **{(BLOCKED, name): _typed for name in ("GlobalMaxPool", "GlobalAveragePool", "Upsample")},
}


@contextmanager
def known_to_onnx() -> Iterator[None]:
    """While the block runs, ONNX infers the types of these operators."""
    made = []
    try:
        for (domain, name), infer in _INFERENCES.items():
            schema = OpSchema(
                name,
                domain,
                1,
                inputs=[
                    OpSchema.FormalParameter("inputs", "Any", param_option=_MANY, is_homogeneous=False, min_arity=0)
                ],
                outputs=[
                    OpSchema.FormalParameter("outputs", "Any", param_option=_MANY, is_homogeneous=False, min_arity=0)
                ],
                type_constraints=[("Any", _ANY, "")],
            )
            schema.set_type_and_shape_inference_function(infer)
            onnx.defs.register_schema(schema)
            made.append((name, domain))
        yield
    finally:
        for name, domain in made:
            onnx.defs.deregister_schema(name, 1, domain)
