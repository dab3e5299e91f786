"""Weights folded into one another where the result is a constant, so that no engine computes it again for every row.

- The scale of an attention goes into the projection of its queries.
- The type embedding, one vector for all tokens and frames, goes into the table of positions, or into the positions themselves where
  they are always the same.

What a graph never reads (the heads of other tasks, poolers, mask embeddings) does not enter it in the first place.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript.rewriter import pattern


def fold_weights(model: onnx_ir.Model) -> None:
    """Fold weights of an exported graph, in place. It computes the same, to rounding."""
    rules = [_ScaleIntoQuery.rule(), _ConstantIntoTable.rule(), _ConstantIntoConstant.rule()]
    pattern.RewriteRuleSet(rules).apply_to_model(model)
    RemoveUnusedNodesPass()(model)


def is_constant(*values: onnx_ir.Value | None) -> bool:
    """Whether all of these are weights that the graph stores."""
    return all(value is not None and value.is_initializer() for value in values)


def array_of(value: onnx_ir.Value) -> np.ndarray:
    """A weight that the graph stores."""
    assert value.const_value is not None
    return value.const_value.numpy()


class _ScaleIntoQuery(pattern.RewriteRuleClassBase):
    """Attention of ``x W + b``, divided by the root of the heads' width, is that of ``x W' + b'`` with the quotient in them."""

    def pattern(self, op: Any, x: Any, weight: Any, bias: Any, shape: Any, key: Any, value: Any, mask: Any) -> Any:
        product = op.MatMul(x, weight, _outputs=["product"])
        projected = op.Reshape(op.Add(product, bias), shape, _outputs=["heads"])
        query = op.Transpose(projected, perm=[0, 2, 1, 3])
        return op.Attention(query, key, value, mask, _allow_other_attributes=True, _outputs=["attention"])

    def check(self, context: Any, weight: Any, bias: Any, shape: Any, attention: Any, **_: Any) -> bool:
        return is_constant(weight, bias, shape) and attention.producer().attributes.get("scale") is None

    def rewrite(
        self,
        op: Any,
        x: Any,
        weight: Any,
        bias: Any,
        shape: Any,
        key: Any,
        value: Any,
        mask: Any,
        product: Any,
        heads: Any,
        attention: Any,
    ) -> Any:
        scale = np.float32(1 / math.sqrt(int(array_of(shape)[-1])))
        scaled = [
            op.initializer(onnx_ir.tensor(array_of(part) * scale), name=f"{attention.name}.query.{name}")
            for part, name in ((weight, "weight"), (bias, "bias"))
        ]
        made = _in_place_of(product, op.MatMul(x, scaled[0]))
        projected = op.Reshape(op.Add(made, scaled[1]), shape, **heads.producer().attributes)
        query = op.Transpose(projected, perm=[0, 2, 1, 3])
        attributes = {**attention.producer().attributes, "scale": 1.0}
        return _in_place_of(attention, op.Attention(query, key, value, mask, **attributes))


def _in_place_of(old: Any, new: Any) -> Any:
    """A node that stands for another comes from the same module, by which layers are named."""
    new.producer().metadata_props.update(old.producer().metadata_props)
    return new


class _ConstantIntoTable(pattern.RewriteRuleClassBase):
    """A constant that is added to every row that is looked up in a table can stand in the table."""

    def pattern(self, op: Any, other: Any, table: Any, ids: Any, constant: Any) -> Any:
        return op.Add(op.Add(other, op.Gather(table, ids, axis=0)), constant)

    def check(self, context: Any, table: Any, constant: Any, **_: Any) -> bool:
        return is_constant(table, constant) and len(table.uses()) == 1 and len(constant.shape) == 1

    def rewrite(self, op: Any, other: Any, table: Any, ids: Any, constant: Any) -> Any:
        summed = op.initializer(onnx_ir.tensor(array_of(table) + array_of(constant)), name=f"{table.name}.typed")
        return op.Add(other, op.Gather(summed, ids, axis=0))


class _ConstantIntoConstant(pattern.RewriteRuleClassBase):
    """The same where the rows of the table are constant themselves: the positions of a query count from 0."""

    def pattern(self, op: Any, table: Any, ids: Any, rows: Any, constant: Any) -> Any:
        return op.Add(op.Add(op.Gather(table, ids, axis=0), rows), constant)

    def check(self, context: Any, rows: Any, constant: Any, **_: Any) -> bool:
        return is_constant(rows, constant)

    def rewrite(self, op: Any, table: Any, ids: Any, rows: Any, constant: Any) -> Any:
        summed = op.initializer(onnx_ir.tensor(array_of(rows) + array_of(constant)), name=f"{rows.name}.typed")
        return op.Add(op.Gather(table, ids, axis=0), summed)
