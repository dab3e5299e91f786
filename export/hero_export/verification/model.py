"""The model that a bundle was made from: the checkpoint, shown to be the one by the bundle's fingerprint."""

from __future__ import annotations

from pathlib import Path

from hero_export.bundles.export import load_model
from hero_export.bundles.sources import Sources
from hero_export.rows.geometry import DEFAULT_ANSWERS, DEFAULT_CAPTION_TOKENS
from hero_sdk.errors import FingerprintError
from hero_sdk.manifest import ANSWER_GRAPH, STEP_GRAPH, Manifest
from hero_train.checkpoint import FRAME_ENCODER_FOLDER, resolve_folder
from hero_train.model.hero import HeroEncoders
from hero_train.model.tasks import model_class_of


def load_bundle_model(bundle: Path, manifest: Manifest, checkpoint: str | Path) -> HeroEncoders:
    """The model of a checkpoint, float32, when the bundle was made from it.

    Args:
        bundle: the folder, whose tokenizer and frame encoder go with the model.
        manifest: of it.
        checkpoint: a folder, or the hub id of one.

    Raises:
        FingerprintError: the bundle was made from another checkpoint.
        CheckpointError, ConfigError: no checkpoint, or one that cannot be read.
    """
    folder = resolve_folder(checkpoint)
    kind = model_class_of(folder)
    sources = Sources(
        checkpoint=folder,
        model_class=kind,
        config=kind.config_class.load(folder),
        tokenizer=bundle / manifest.tokenizer,
        frame_encoder=bundle / FRAME_ENCODER_FOLDER,
        frames=manifest.frame_encoder,
    )
    found = sources.fingerprint()
    if found != manifest.fingerprint:
        raise FingerprintError(
            f"{checkpoint}, with the tokenizer and the frame encoder of {bundle}, has the fingerprint {found[:12]}; the bundle "
            f"says {manifest.fingerprint[:12]}. It was made from another checkpoint; name that one with --checkpoint."
        )
    return load_model(sources)


def bundle_limits(manifest: Manifest) -> dict[str, int]:
    """The most answers of a question and tokens of a caption that a bundle was exported for, as ``graphs_of`` takes them."""

    def size(graph: str, tensor: str, axis: int, default: int) -> int:
        if graph not in manifest.graphs:
            return default
        return next(one for one in manifest.graphs[graph].inputs if one.name == tensor).shape[axis]

    return {
        "answers": size(ANSWER_GRAPH, "answer_mask", 1, DEFAULT_ANSWERS),
        "caption_tokens": size(STEP_GRAPH, "cache", 4, DEFAULT_CAPTION_TOKENS),
    }
