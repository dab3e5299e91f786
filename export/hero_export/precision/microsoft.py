"""What ONNX Runtime's own operators give, told to ONNX's type inference, which knows nothing of them and stops there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import onnx
from onnx.defs import OpSchema
from onnx.shape_inference import InferenceContext

DOMAIN = "com.microsoft"

_FLOATS = ["tensor(float)", "tensor(float16)", "tensor(bfloat16)", "tensor(double)"]
_ANY = [*_FLOATS, *(f"tensor({kind})" for kind in ("int8", "uint8", "int16", "uint16", "int32", "int64", "bool"))]
_MANY = OpSchema.FormalParameterOption.Variadic


def _like(source: int) -> Callable[[InferenceContext], None]:
    """The first output is as an input is."""

    def infer(context: InferenceContext) -> None:
        if (kind := _type(context, source)) is not None:
            context.set_output_type(0, kind)

    return infer


def _attention(context: InferenceContext) -> None:
    """(batch, places, hidden), as the queries are; values of another width are not ours."""
    _like(0)(context)


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


_INFERENCES: dict[str, Callable[[InferenceContext], None]] = {
    "MultiHeadAttention": _attention,
    **dict.fromkeys(("SkipLayerNormalization", "BiasGelu", "FastGelu", "QuickGelu"), _like(0)),
    **dict.fromkeys(("FusedMatMul", "MatMulNBits", "DynamicQuantizeMatMul"), _product(0)),
    "MatMulIntegerToFloat": _product(2),
}


@contextmanager
def known_to_onnx() -> Iterator[None]:
    """While the block runs, ONNX infers the types of these operators."""
    made = []
    try:
        for name, infer in _INFERENCES.items():
            schema = OpSchema(
                name,
                DOMAIN,
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
            made.append(name)
        yield
    finally:
        for name in made:
            onnx.defs.deregister_schema(name, 1, DOMAIN)
