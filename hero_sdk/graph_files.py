"""The graphs of a bundle against its manifest, before an engine opens one: where their weights lie, what they take and give."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from hero_sdk.bundle_files import FILE_NAME_PATTERN
from hero_sdk.errors import BundleError, FingerprintError
from hero_sdk.onnx_file import Outline, Port, read_outline

if TYPE_CHECKING:
    from hero_sdk.manifest import GraphSpec, Manifest, TensorSpec

ONNX_SUFFIX = ".onnx"

_ROW, _CLIPS, _QUERY, _VIDEO = ("slots",), ("temporal_slots",), ("query_tokens",), ("clip_limit",)

SIZES: dict[str, dict[str, tuple[str | None, ...]]] = {
    "frames": {"images": ("image_size", "image_size"), "features": ("feature_dim",)},
    "cross_modal": {
        "frame_features": ("frames", "feature_dim"),
        "hidden": (*_ROW, "hidden_size"),
        **dict.fromkeys(("frame_index", "token_ids", "position_ids", "segment_ids"), _ROW),
    },
    "temporal": {
        "frame_features": (*_CLIPS, "feature_dim"),
        "matched": (*_CLIPS, "hidden_size"),
        "clip_embeddings": (*_CLIPS, "hidden_size"),
        **dict.fromkeys(("position_ids", "segment_ids", "token_ids"), _CLIPS),
    },
    "query": {
        "query_vector": ("hidden_size",),
        "span_vector": ("hidden_size",),
        **dict.fromkeys(("token_ids", "segment_ids"), _QUERY),
    },
    "moment": {
        "span_vector": ("hidden_size",),
        "clips": (*_CLIPS, "hidden_size"),
        **dict.fromkeys(("clip_mask", "start", "end"), _CLIPS),
    },
    "answer": {
        "clips": (None, *_VIDEO, "hidden_size"),
        **dict.fromkeys(("clip_mask", "start", "end"), _VIDEO),
        **dict.fromkeys(("answer_mask", "answer"), ()),
    },
    "statement": {"clips": (*_VIDEO, "hidden_size"), "clip_mask": _VIDEO, "truth": ()},
    "caption_prefill": {"clips": (*_VIDEO, "hidden_size"), "memory": (None, None, None, *_VIDEO)},
    "caption_step": {
        "memory": (None, None, None, *_VIDEO),
        "clip_mask": _VIDEO,
        **dict.fromkeys(("token_ids", "positions", "cache", "logits", "next_cache"), ()),
    },
}
"""By graph and tensor, which sizes of the manifest its dimensions behind the batch must have: rows are packed to the one and go
into the other. None where the manifest has no such size elsewhere."""


def check_graphs(bundle: Path, manifest: Manifest) -> None:
    """Check every ONNX file of a bundle, the weights left unread.

    Args:
        bundle: the folder; its files have been compared with the manifest.
        manifest: of the bundle.

    Raises:
        BundleError: a file that is not whole, that keeps weights outside of the bundle or beyond the end of a file, or that has
            other tensors than the manifest says; sizes of the manifest that contradict one another.
        FingerprintError: another frame encoder than the one that the manifest names.
    """
    outlines = {name: read_outline(bundle, name) for name in manifest.files if name.endswith(ONNX_SUFFIX)}
    for name, outline in outlines.items():
        _check_external(bundle, name, outline, manifest)
    for graph, spec in manifest.graphs.items():
        others = (variant.graphs[graph].file for variant in manifest.variants.values() if graph in variant.graphs)
        for file in (spec.file, *others):
            if file in outlines:
                _check_ports(bundle / file, spec.inputs, outlines[file].inputs)
                _check_ports(bundle / file, spec.outputs, outlines[file].outputs)
        _check_sizes(graph, spec, manifest)
        if graph == "frames":
            _check_frame_encoder(bundle, spec, manifest)


def _check_external(bundle: Path, name: str, outline: Outline, manifest: Manifest) -> None:
    folder = PurePosixPath(name).parent
    for tensor in outline.tensors:
        external = tensor.external
        if external is None:
            continue
        found = f"{bundle / name} keeps the weight '{tensor.name}' in {external.location!r}"
        if "/" in external.location or not re.fullmatch(FILE_NAME_PATTERN, external.location):
            raise BundleError(
                f"{found}, which is no plain name; expected a file beside the graph. Do not use this bundle."
            )
        beside = (folder / external.location).as_posix()
        if beside not in manifest.files:
            raise BundleError(f"{found}, which the manifest does not list. Export the bundle again.")
        size = manifest.files[beside].bytes
        end = external.offset + (external.length or 0)
        if end > size:
            raise BundleError(f"{found} up to byte {end}, and that file has {size} bytes. Export the bundle again.")


def _check_ports(path: Path, tensors: tuple[TensorSpec, ...], ports: tuple[Port, ...]) -> None:
    found = {port.name: port for port in ports}
    expected = {tensor.name: tensor for tensor in tensors}
    if found.keys() == expected.keys() and all(_fits(found[name], expected[name]) for name in expected):
        return
    shown = [f"{port.name} {port.dtype} {port.shape}" for port in ports]
    wanted = [f"{tensor.name} {tensor.dtype} {tensor.shape}" for tensor in tensors]
    raise BundleError(
        f"{path} has the tensors {shown}; its manifest says {wanted}. It is another graph, or the manifest was edited: "
        "copy the bundle again, or export it again."
    )


def _fits(port: Port, tensor: TensorSpec) -> bool:
    """Whether a graph can take or give what the manifest says; a dimension that the graph leaves open fits every size."""
    return (
        port.dtype == tensor.dtype
        and port.shape is not None
        and len(port.shape) == len(tensor.shape)
        and all(size is None or size == want for size, want in zip(port.shape, tensor.shape, strict=True))
    )


def _check_sizes(graph: str, spec: GraphSpec, manifest: Manifest) -> None:
    sizes = {**vars(manifest.model), **vars(manifest.geometry), "image_size": manifest.frame_encoder.image_size}
    for tensor in (*spec.inputs, *spec.outputs):
        names = SIZES.get(graph, {}).get(tensor.name, ())
        found = tensor.shape[1 : len(names) + 1]
        if len(found) < len(names) or any(
            name is not None and size != sizes[name] for name, size in zip(names, found, strict=True)
        ):
            wanted = ", ".join(f"{name} {sizes[name]}" for name in names if name is not None)
            raise BundleError(
                f"The manifest says that tensor '{tensor.name}' of graph '{graph}' has the shape {tensor.shape}, and elsewhere "
                f"{wanted}. It was edited: copy the bundle again, or export it again."
            )
    if manifest.model.feature_dim != manifest.frame_encoder.feature_dim:
        raise BundleError(
            f"The manifest says that the model reads features of width {manifest.model.feature_dim} and that its frame encoder "
            f"gives {manifest.frame_encoder.feature_dim}. It was edited: copy the bundle again, or export it again."
        )


def _check_frame_encoder(bundle: Path, spec: GraphSpec, manifest: Manifest) -> None:
    found, expected = manifest.files[spec.file].sha256, manifest.frame_encoder.fingerprint
    if spec.file.endswith(ONNX_SUFFIX) and found != expected:
        raise FingerprintError(
            f"{bundle / spec.file} has the fingerprint {found[:12]}, and the manifest names the frame encoder "
            f"'{manifest.frame_encoder.name}' with {expected[:12]}. Features of another network cannot be searched: export the "
            "bundle again with the frame encoder that the model was trained with."
        )
