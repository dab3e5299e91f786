"""The graphs of a bundle: what goes in, what comes out, and the module that computes it, for every task.

Names, order and dtypes are the contract with ``hero_sdk``: the inputs are the arrays of ``hero_sdk.rows``, as they are packed. The
batch is in front of every tensor, and something fixed behind it, so that every server can batch it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hero_export.onnx.modules import (
    AnswerGraph,
    CrossModalGraph,
    MomentGraph,
    PrefillGraph,
    QueryGraph,
    StatementGraph,
    StepGraph,
    TemporalGraph,
    TextTemporalGraph,
)
from hero_export.onnx.operators import FusedOperators
from hero_export.rows.geometry import DEFAULT_ANSWERS, DEFAULT_CAPTION_TOKENS
from hero_sdk.manifest import (
    ANSWER_GRAPH,
    CROSS_MODAL_GRAPH,
    MOMENT_GRAPH,
    PREFILL_GRAPH,
    QUERY_GRAPH,
    STATEMENT_GRAPH,
    STEP_GRAPH,
    TEMPORAL_GRAPH,
    TensorSpec,
)
from hero_sdk.rows import RowGeometry
from hero_train.model.answers import HeroForQuestionAnswering, HeroForStatements, HeroWithText
from hero_train.model.captioning import HeroForCaptioning
from hero_train.model.hero import HeroEncoders, HeroModel

BATCH = -1
"""Stands for the batch in a ``TensorSpec``, the only dimension that may vary."""


@dataclass(frozen=True)
class Graph:
    """One graph to export.

    Attributes:
        name: in the manifest.
        module: computes it; in evaluation mode, float32, on the CPU.
        inputs, outputs: in the order of the module.
        fused: the fused operators that the architecture implies; None for a network of which nothing is known.
    """

    name: str
    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    fused: FusedOperators | None = None

    @property
    def file(self) -> str:
        """Path in the bundle."""
        return f"graphs/{self.name}.onnx"

    def example(self, batch: int) -> tuple[Tensor, ...]:
        """Inputs to trace the module with: zeros, which are valid ids everywhere."""
        return tuple(
            torch.zeros((batch, *tensor.shape[1:]), dtype=getattr(torch, tensor.dtype)) for tensor in self.inputs
        )


def graphs_of(
    model: HeroEncoders,
    geometry: RowGeometry,
    *,
    answers: int = DEFAULT_ANSWERS,
    caption_tokens: int = DEFAULT_CAPTION_TOKENS,
) -> dict[str, Graph]:
    """The graphs of a model of any task, all but the frame encoder's, in the order in which a video passes them.

    Args:
        model: is put into evaluation mode, float32, on the CPU.
        geometry: fixed shapes of the rows.
        answers: most answers of a question; only question answering has a use for it.
        caption_tokens: most tokens of a caption, its end included; only captioning has a use for it.
    """
    model = model.eval().float().cpu()
    graphs = [_cross_modal(model, geometry), _temporal(model, geometry)]
    match model:
        case HeroModel():
            graphs += [_query(model, geometry), _moment(model, geometry)]
        case HeroForQuestionAnswering():
            graphs.append(_answer(model, answers))
        case HeroForStatements():
            graphs.append(_statement(model))
        case HeroForCaptioning():
            graphs += [_prefill(model), _step(model, caption_tokens)]
        case _:
            raise TypeError(f"A {type(model).__name__} is of no task that is exported.")
    return {graph.name: graph for graph in graphs}


def _float(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name, "float32", (BATCH, *shape))


def _integers(shape: int, *names: str) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, "int32", (BATCH, shape)) for name in names)


def _mask(name: str, size: int) -> TensorSpec:
    return TensorSpec(name, "bool", (BATCH, size))


def _cross_modal(model: HeroEncoders, geometry: RowGeometry) -> Graph:
    config, layers = model.config, model.config.cross_modal_layers
    return Graph(
        CROSS_MODAL_GRAPH,
        CrossModalGraph(model).eval(),
        inputs=(
            _float("frame_features", geometry.frames, config.feature_dim),
            *_integers(geometry.slots, "frame_index", "token_ids", "position_ids", "segment_ids"),
        ),
        outputs=(_float("hidden", geometry.slots, config.hidden_size),),
        # Beside its layers: the embeddings of text, those of frames, and the frame features, which are no sum.
        fused=FusedOperators(layers, norms=2 * layers + 3, sums=2 * layers + 2, gelus=layers, biased=layers),
    )


def _temporal(model: HeroEncoders, geometry: RowGeometry) -> Graph:
    config, layers, clips = model.config, model.config.temporal_layers, geometry.temporal_slots
    with_text = isinstance(model, HeroWithText)
    ids = ("position_ids", "segment_ids", *(["token_ids"] if with_text else []))
    return Graph(
        TEMPORAL_GRAPH,
        (TextTemporalGraph(model) if isinstance(model, HeroWithText) else TemporalGraph(model)).eval(),
        inputs=(
            _float("frame_features", clips, config.feature_dim),
            *_integers(clips, *ids),
            _float("matched", clips, config.hidden_size),
        ),
        outputs=(_float("clip_embeddings", clips, config.hidden_size),),
        # Beside its layers: the frame features, which are no sum, the embeddings of frames, and those of text.
        fused=FusedOperators(
            layers, norms=2 * layers + 2 + with_text, sums=2 * layers + 1 + with_text, gelus=layers, biased=layers
        ),
    )


def _query(model: HeroModel, geometry: RowGeometry) -> Graph:
    layers, width = model.config.cross_modal_layers, model.config.hidden_size
    return Graph(
        QUERY_GRAPH,
        QueryGraph(model).eval(),
        inputs=_integers(geometry.query_tokens, "token_ids", "segment_ids"),
        outputs=(_float("query_vector", width), _float("span_vector", width)),
        # Beside the cross-modal layers: the embeddings of words, to which a constant is added; the words, their embeddings and
        # the attention of the query encoder.
        fused=FusedOperators(layers + 1, norms=2 * layers + 4, sums=2 * layers + 1, gelus=layers, biased=layers),
    )


def _moment(model: HeroModel, geometry: RowGeometry) -> Graph:
    clips, width = geometry.temporal_slots, model.config.hidden_size
    return Graph(
        MOMENT_GRAPH,
        MomentGraph(model).eval(),
        inputs=(_float("span_vector", width), _float("clips", clips, width), _mask("clip_mask", clips)),
        outputs=(_float("start", clips), _float("end", clips)),
        fused=FusedOperators(),
    )


def _answer(model: HeroForQuestionAnswering, answers: int) -> Graph:
    clips, width = model.config.clip_limit, model.config.hidden_size
    return Graph(
        ANSWER_GRAPH,
        AnswerGraph(model).eval(),
        inputs=(_float("clips", answers, clips, width), _mask("clip_mask", clips), _mask("answer_mask", answers)),
        outputs=(_float("answer", answers), _float("start", clips), _float("end", clips)),
        fused=FusedOperators(norms=2, gelus=2, biased=2),
    )


def _statement(model: HeroForStatements) -> Graph:
    clips, width = model.config.clip_limit, model.config.hidden_size
    return Graph(
        STATEMENT_GRAPH,
        StatementGraph(model).eval(),
        inputs=(_float("clips", clips, width), _mask("clip_mask", clips)),
        outputs=(_float("truth", 1),),
        fused=FusedOperators(norms=1, gelus=1),
    )


def _decoder_state(model: HeroForCaptioning, name: str, places: int) -> TensorSpec:
    """Keys and values of every layer of the decoder."""
    config = model.config
    width = config.hidden_size // config.num_heads
    return _float(name, config.decoder_layers, 2, config.num_heads, places, width)


def _prefill(model: HeroForCaptioning) -> Graph:
    clips = model.config.clip_limit
    return Graph(
        PREFILL_GRAPH,
        PrefillGraph(model).eval(),
        inputs=(_float("clips", clips, model.config.hidden_size),),
        outputs=(_decoder_state(model, "memory", clips),),
        fused=FusedOperators(),
    )


def _step(model: HeroForCaptioning, tokens: int) -> Graph:
    clips, layers = model.config.clip_limit, model.config.decoder_layers
    return Graph(
        STEP_GRAPH,
        StepGraph(model, clips).eval(),
        inputs=(
            *_integers(1, "token_ids", "positions"),
            _decoder_state(model, "cache", tokens),
            _decoder_state(model, "memory", clips),
            _mask("clip_mask", clips),
        ),
        outputs=(_float("logits", model.config.vocab_size), _decoder_state(model, "next_cache", tokens)),
        # A layer attends twice and has three norms; beside the layers there are the embeddings of words and the language head.
        fused=FusedOperators(2 * layers, norms=3 * layers + 2, sums=3 * layers, gelus=layers + 1, biased=layers),
    )
