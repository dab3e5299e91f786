"""Non-strict loading: what fits goes into a model, and everything else is reported with its reason."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hero_sdk.errors import HeroError
from hero_train.errors import CheckpointError
from hero_train.tokenizer import embedding_rows

# Tables with a row for each position; frame order has a class for each.
_POSITION_TABLES = (
    "cross_modal.text.position.weight",
    "cross_modal.frames.position.weight",
    "temporal.position.weight",
    "query.position.weight",
    "decoder.position.weight",
    "order.output.weight",
    "order.output.bias",
)
_WORD_ROWS = ("cross_modal.text.word.weight", "language.bias")
_TYPES = "cross_modal.text.token_type.weight"

# What a part that not every model has is for.
_PURPOSES = {
    "language": "head of masked language modelling and captioning",
    "regression": "head of masked frame modelling",
    "order": "head of frame order modelling",
    "cross_modal_mask": "used in masked frame modelling only",
    "temporal_mask": "used in masked frame modelling only",
    "query": "query encoder of retrieval",
    "moment": "head of moment retrieval",
    "answer_pool": "head of question answering",
    "answer": "head of question answering",
    "span_pool": "head of question answering",
    "span": "head of question answering",
    "truth_pool": "head of judging statements",
    "truth": "head of judging statements",
    "decoder": "caption decoder",
}
_PART = re.compile(r"^(?:v_encoder\.(?:[fc]_encoder\.)?|(?:roberta|cross_modal|temporal)\.)?[^.]+")


@dataclass(frozen=True)
class SourceWeights:
    """The weights of a source, by our names.

    Attributes:
        tensors: our names to tensors.
        names: our names to the source's own, where they differ.
        left_out: names in the source that no model of ours has a place for, with the reason.
    """

    tensors: dict[str, Tensor]
    names: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ImportReport:
    """What an import did with each weight of a source and of the model.

    Attributes:
        loaded: names in the source that found their place.
        left_out: names in the source without a place in the model, with the reason.
        adapted: names in the source that were loaded, but not as they are, with what was done.
        fresh: names in the model that the source does not have; they keep their initial values.
    """

    loaded: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    adapted: dict[str, str] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)

    @property
    def fresh_frames(self) -> bool:
        """Whether the projections that read frames keep their initial values, and are to be fitted to the features."""
        return "cross_modal.frames.linear.weight" in self.fresh

    def describe(self) -> str:
        """The report as lines of text: how many weights were loaded, and each group that was not, with the reason."""
        lines = [f"{len(self.loaded)} weights loaded."]
        lines += describe_group("Changed", self.adapted)
        lines += describe_group("Left out", self.left_out)
        lines += describe_group("Fresh, not in the source", dict.fromkeys(self.fresh, ""))
        return "\n".join(lines)


def describe_group(heading: str, reasons: Mapping[str, str]) -> list[str]:
    """Lines that list names by their reason; those of one part of a model are drawn together."""
    if not reasons:
        return []
    groups: dict[str, list[str]] = defaultdict(list)
    for name, reason in reasons.items():
        groups[reason].append(name)
    lines = [f"{heading}: {len(reasons)}"]
    for reason, names in groups.items():
        lines.append(f"  {', '.join(_parts(names))} ({len(names)}){reason and f': {reason}'}")
    return lines


def _parts(names: Iterable[str]) -> list[str]:
    """The parts of a model that parameters belong to, each named once, and in full where it is one parameter."""
    parts: dict[str, list[str]] = defaultdict(list)
    for name in names:
        parts["".join(_PART.findall(name)[:1])].append(name)
    return [part if len(inside) > 1 else inside[0] for part, inside in parts.items()]


def load_what_fits(
    model: nn.Module,
    source: SourceWeights,
    *,
    resize_positions: bool = False,
    error: type[HeroError] = CheckpointError,
    advice: str = "pass the configuration that goes with the checkpoint, or none to infer it",
) -> ImportReport:
    """Put the weights of a source into a model of any task.

    Three tables may have another number of rows than the model's. Word embeddings are filled up with zeros to a multiple of 8; a
    single type row serves both types; tables of positions give the rows that both have, if that is asked for.

    Args:
        model: keeps its weights where the source has none.
        source: the weights.
        resize_positions: whether tables of positions may have other lengths.
        error: what to raise for a shape that does not fit.
        advice: what to do about it.

    Raises:
        CheckpointError: a weight is not finite, or the source has only some weights of a part of the model.
        error: a tensor of another shape than the model has.

    On an error the model is as it was.
    """
    target = model.state_dict()
    report = ImportReport(left_out=dict(source.left_out))
    missing = set(target) - set(source.tensors)
    for ours, tensor in source.tensors.items():
        name = source.names.get(ours, ours)
        if ours not in target:
            report.left_out[name] = why_no_place(ours, target)
            continue
        check_finite({name: tensor})
        fitted, change = _fit(ours, tensor, target[ours], resize_positions)
        if fitted is None:
            raise error(
                f"{name} is {tuple(tensor.shape)} and {ours} of the configured model is {tuple(target[ours].shape)}; {advice}."
            )
        if change:
            report.adapted[name] = change
        target[ours] = fitted.to(target[ours].dtype)
        report.loaded.append(name)
    _check_whole(set(target) - missing, missing)
    report.fresh.extend(sorted(missing))
    model.load_state_dict(target)
    return report


def _check_whole(found: set[str], missing: set[str]) -> None:
    """Refuse a source that fills a part of the model only half, which would leave random weights among trained ones."""
    if broken := {_unit(name) for name in found} & {_unit(name) for name in missing}:
        absent = sorted(name for name in missing if _unit(name) in broken)
        raise CheckpointError(
            f"The source has only some of the weights of {', '.join(sorted(broken))}: there is no {', '.join(absent[:5])}. "
            "Expected all or none; take a whole checkpoint."
        )


def _unit(name: str) -> str:
    """The part of a model that a weight belongs to and that comes from one source; a RoBERTa has no frames."""
    first, _, rest = name.partition(".")
    return "cross_modal.frames" if first == "cross_modal" and rest.startswith("frames.") else first


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that no run can go on from.

    Raises:
        CheckpointError: a tensor has a value that is no number, or infinite.
    """
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                f"{name} has values that are not finite; expected numbers. The run that wrote it diverged: take an earlier "
                "checkpoint."
            )


def why_no_place(ours: str, target: Iterable[str]) -> str:
    """Why a model, of which ``target`` are the weights, has no place for a weight that another of our models has."""
    start = ours.split(".")[0] + "."
    layer = re.match(r"\w+\.layers\.\d+\.", ours)
    if layer and any(name.startswith(start) for name in target):
        start = layer[0]
    if any(name.startswith(start) for name in target):
        return "unknown to this model"
    return _PURPOSES.get(start[:-1], "a layer more than the model has" if layer else "unknown to this model")


def _fit(ours: str, tensor: Tensor, target: Tensor, resize_positions: bool) -> tuple[Tensor | None, str]:
    """A tensor in the shape of its target and what was done for it, or None where nothing may be done."""
    if tensor.shape == target.shape:
        return tensor, ""
    rows, wanted = (len(one) if one.dim() else 0 for one in (tensor, target))
    if tensor.shape[1:] != target.shape[1:] or not rows:
        return None, ""
    if ours == _TYPES and rows == 1:
        return tensor.expand(target.shape), "its single row serves both types"
    if ours in _WORD_ROWS and wanted == embedding_rows(rows):
        padding = (0,) * (2 * (tensor.dim() - 1)) + (0, wanted - rows)
        return F.pad(tensor, padding), f"{rows} rows filled up with zeros to {wanted}"
    if ours in _POSITION_TABLES and resize_positions:
        both = min(rows, wanted)
        resized = target.clone()
        resized[:both] = tensor[:both]
        return resized, f"{rows} rows, of which the first {both} were taken for {wanted}"
    return None, ""
