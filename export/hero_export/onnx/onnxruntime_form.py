"""A graph with ONNX Runtime's own fused operators, made from one with the standard's.

``MultiHeadAttention`` takes the projections of queries, keys and values as they leave their products, with their biases, so that
nothing is transposed in the graph; ``SkipLayerNormalization`` takes the sum before a norm, ``BiasGelu`` the bias before a GELU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    DeduplicateInitializersPass,
    RemoveUnusedNodesPass,
    ShapeInferencePass,
)
from onnxscript.rewriter import pattern
from onnxscript.rewriter.ort_fusions.bias_gelu import bias_gelu_rules
from onnxscript.rewriter.ort_fusions.skip_normalization import skip_layer_normalization_ruleset

from hero_export.onnx.folding import array_of, is_constant

DOMAIN = "com.microsoft"

LOWEST = -1e4
"""Added to the scores of what may not be seen; the exponential of it is 0 in every precision, and its sums are finite in half."""


def fuse_for_onnxruntime(model: onnx_ir.Model) -> None:
    """Replace the standard's fused operators by ONNX Runtime's, in place."""
    ShapeInferencePass()(model)
    for rules in (
        pattern.RewriteRuleSet([_ProjectedAttention.rule(), _CachedAttention.rule()]),
        skip_layer_normalization_ruleset,
        bias_gelu_rules,
    ):
        rules.apply_to_model(model)
    for node in model.graph:
        if node.op_type == "SkipLayerNormalization":
            node.resize_outputs(1)  # the sum, which no post-norm layer reads again, would be written out
    # One mask for all layers.
    DeduplicateInitializersPass()(model)
    CommonSubexpressionEliminationPass()(model)
    RemoveUnusedNodesPass()(model)


class _MultiHead(pattern.RewriteRuleClassBase):
    """What both rules have in common."""

    def check(self, context: Any, **matched: Any) -> bool:
        constants = [value for name, value in matched.items() if name.endswith(("bias", "shape"))]
        return is_constant(*constants)

    @staticmethod
    def attend(op: Any, inputs: list[Any], mask: Any, shape: Any, attention: Any) -> Any:
        """The operator; ``inputs`` are query, key, value and biases, ``shape`` that of the queries' heads."""
        added = [
            op.initializer(onnx_ir.tensor(np.float32(value)), name=f"{attention.name}.{name}")
            for name, value in (("seen", 0.0), ("unseen", LOWEST))
        ]
        attributes = attention.producer().attributes
        return op.MultiHeadAttention(
            *inputs,
            None,
            op.Where(mask, *added),
            num_heads=int(array_of(shape)[2]),
            **{"scale": attributes["scale"]} if "scale" in attributes else {},
            _domain=DOMAIN,
        )


def _projected(op: Any, product: Any, bias: Any, shape: Any) -> Any:
    """A projection, cut into heads."""
    return op.Transpose(op.Reshape(op.Add(product, bias), shape), perm=[0, 2, 1, 3])


def _joined(op: Any, attention: str, heads: list[Any], mask: Any) -> Any:
    """Attention of queries, keys and values, its heads side by side again."""
    attended = op.Attention(*heads, mask, _allow_other_attributes=True, _outputs=[attention])
    return op.Transpose(attended, perm=[0, 2, 1, 3])


class _ProjectedAttention(_MultiHead):
    """Queries, keys and values are projections of this graph."""

    def pattern(
        self,
        op: Any,
        query: Any,
        key: Any,
        value: Any,
        query_bias: Any,
        key_bias: Any,
        value_bias: Any,
        query_shape: Any,
        key_shape: Any,
        value_shape: Any,
        mask: Any,
        joined_shape: Any,
    ) -> Any:
        heads = [
            _projected(op, *part)
            for part in ((query, query_bias, query_shape), (key, key_bias, key_shape), (value, value_bias, value_shape))
        ]
        return op.Reshape(_joined(op, "attention", heads, mask), joined_shape)

    def rewrite(self, op: Any, **matched: Any) -> Any:
        biases = np.concatenate([array_of(matched[f"{part}_bias"]) for part in ("query", "key", "value")])
        attention = matched["attention"]
        bias = op.initializer(onnx_ir.tensor(biases), name=f"{attention.name}.bias")
        inputs = [matched["query"], matched["key"], matched["value"], bias]
        return self.attend(op, inputs, matched["mask"], matched["query_shape"], attention)


class _CachedAttention(_MultiHead):
    """Only the queries are a projection of this graph; keys and values, cut into heads, come from a cache."""

    def pattern(
        self, op: Any, query: Any, query_bias: Any, query_shape: Any, key: Any, value: Any, mask: Any, joined_shape: Any
    ) -> Any:
        heads = _projected(op, query, query_bias, query_shape)
        return op.Reshape(_joined(op, "attention", [heads, key, value], mask), joined_shape)

    def rewrite(self, op: Any, **matched: Any) -> Any:
        query = op.Add(matched["query"], matched["query_bias"])
        inputs = [query, matched["key"], matched["value"], None]
        return self.attend(op, inputs, matched["mask"], matched["query_shape"], matched["attention"])
