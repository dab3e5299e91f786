"""The model card of a bundle on the hub: what it is, how large, how exact, how to use it, from its manifest and reports."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from hero_export.bundles.reports import json_reports, numbers, passed_cases, read_report
from hero_export.report import CaseResult, markdown_table
from hero_sdk.bundle_files import SIGNATURE_FILE
from hero_sdk.errors import require
from hero_sdk.hub import EXTRA, LIBRARY, PURPOSE, HubReference
from hero_sdk.manifest import Manifest

CARD_FILE = "README.md"

MARK = "<!-- Written by hero-export push, which writes it again. Remove this line to keep the card as it is. -->"
"""By this line a card is recognised as one that may be replaced."""

TAGS = ["hero", "video-retrieval", "moment-retrieval", "onnx"]


def model_card(bundle: Path, manifest: Manifest, reference: HubReference) -> str:
    """The card as the text of ``README.md``.

    Args:
        bundle: the folder, already checked.
        manifest: of it.
        reference: where the bundle goes.

    Raises:
        ExportError: the bundle was not verified.
    """
    hub: Any = require("huggingface_hub", EXTRA, PURPOSE)
    data = hub.ModelCardData(library_name=LIBRARY, tags=[*TAGS, manifest.task.replace(" ", "-")])
    name = reference.repository.split("/")[1]
    model, moment = manifest.model, manifest.moment
    facts: dict[str, str] = {
        "task": manifest.task,
        "embeddings": f"{model.hidden_size} wide, one per {model.clip_interval:g} s",
        "frame encoder": f"{manifest.frame_encoder.name}, {model.feature_dim} wide",
        "fingerprint": f"`{manifest.fingerprint}`",
        "format version": str(manifest.format_version),
        "size": f"{sum(file.bytes for file in manifest.files.values()) / 1e6:.1f} MB",
        "signed": f"yes, `{SIGNATURE_FILE}`" if (bundle / SIGNATURE_FILE).exists() else "no",
    }
    if moment is not None:
        facts["moments"] = f"{moment.min_clips * model.clip_interval:g} to {moment.max_clips * model.clip_interval:g} s"
    graphs = [
        [graph, spec.precision, str(spec.max_batch), f"{_graph_bytes(manifest, spec.file) / 1e6:.1f}"]
        for graph, spec in manifest.graphs.items()
    ]
    cases = passed_cases(bundle, manifest)
    sections = [
        f"---\n{data.to_yaml()}\n---\n\n{MARK}",
        f"# {name}",
        "A bundle of HERO (Li et al., EMNLP 2020), a model that reads a video together with its subtitles.",
        "## Use",
        _commands(reference, search=moment is not None),
        f'```python\nimport hero_sdk\n\nhero = hero_sdk.load("hub:{reference}")\n```',
        "## Model",
        markdown_table(("what", "value"), [list(item) for item in facts.items()]),
        "## Graphs",
        markdown_table(("graph", "precision", "largest batch", "MB"), graphs),
        *_variants(manifest),
        "## Verification",
        "Each graph in onnxruntime against the model in PyTorch (float32), on inputs from one token to full rows.",
        markdown_table(
            ("graph", "output", "comparisons", "largest error, share of the scale", "smallest cosine"), _cases(cases)
        ),
    ]
    if metrics := _metrics(bundle, manifest):
        sections += ["## Metrics", markdown_table(("report", "metric", "value"), metrics)]
    return "\n\n".join(sections) + "\n"


def _variants(manifest: Manifest) -> list[str]:
    if not manifest.variants:
        return []
    rows = [
        [
            f"`{name}`",
            ", ".join(variant.graphs),
            variant.builder or "",
            f"{sum(_graph_bytes(manifest, graph.file) for graph in variant.graphs.values()) / 1e6:.1f}",
        ]
        for name, variant in manifest.variants.items()
    ]
    return [
        "## Variants",
        "The same graphs for other engines and in other precisions. Other graphs run as above.",
        markdown_table(("variant", "graphs", "built by", "MB"), rows),
    ]


def _commands(reference: HubReference, *, search: bool) -> str:
    lines = ['pip install "hero-video-sdk[hub,local,video]"']
    if search:
        lines += [
            f"hero index videos --corpus corpus --bundle hub:{reference}",
            f'hero search "the robot takes the red gem" --corpus corpus --bundle hub:{reference}',
        ]
    return "\n".join(["```sh", *lines, "```"])


def _graph_bytes(manifest: Manifest, graph: str) -> int:
    """A graph with the weights beside it, whose names begin as its own does."""
    beginning = f"{PurePosixPath(graph).with_suffix('')}."
    return sum(file.bytes for name, file in manifest.files.items() if name.startswith(beginning))


def _cases(cases: list[CaseResult]) -> list[list[str]]:
    rows: dict[tuple[str, str], list[CaseResult]] = {}
    for case in cases:
        rows.setdefault((case.graph, case.output), []).append(case)
    return [
        [
            graph,
            output,
            str(len(group)),
            f"{max(case.relative_error for case in group):.1e}",
            f"{min(case.cosine for case in group):.7f}",
        ]
        for (graph, output), group in rows.items()
    ]


def _metrics(bundle: Path, manifest: Manifest) -> list[list[str]]:
    """What the reports have under ``metrics``."""
    return [
        [Path(name).stem, path, f"{value:.6g}"]
        for name in json_reports(manifest)
        for path, value in numbers(read_report(bundle, name).get("metrics")).items()
    ]
