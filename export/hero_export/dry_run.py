"""``--dry-run``: all checks of a command, then what it would write where and how large, and nothing written."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hero_export.report import rich_table
from hero_export.rows.geometry import DEFAULT_ANSWERS, DEFAULT_CAPTION_TOKENS

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.table import Table

    from hero_export.onnx.graphs import Graph
    from hero_export.triton import Device
    from hero_sdk.geometry import RowGeometry
    from hero_sdk.signature import PublicKeys
    from hero_train.config import HeroConfig


@dataclass(frozen=True)
class PlannedFile:
    """A file that would be written.

    Attributes:
        path: inside of the place.
        bytes: its size; None where nobody knows before it is written.
        exact: the size will be this one; otherwise it is near it.
    """

    path: str
    bytes: int | None = None
    exact: bool = False


@dataclass(frozen=True)
class Plan:
    """What a command would write.

    Attributes:
        place: a folder, or a repository of the hub.
        replaces: something is there that would be replaced.
        files: in the order of writing.
    """

    place: str
    replaces: bool
    files: tuple[PlannedFile, ...]

    @property
    def bytes(self) -> int:
        """All sizes that are known, together."""
        return sum(file.bytes or 0 for file in self.files)

    def to_json(self) -> str:
        """As text for programs."""
        return json.dumps({"dry_run": True, **dataclasses.asdict(self), "bytes": self.bytes}, indent=2)

    def to_rich(self) -> Table:
        """As a table for a terminal."""
        return rich_table("Would be written", ("file", "bytes"), [[file.path, _size(file)] for file in self.files])

    def summary(self) -> str:
        """The plan in one line."""
        exact = all(file.exact for file in self.files)
        return (
            f"Dry run: {'would replace' if self.replaces else 'would write'} {self.place}, {len(self.files)} files, "
            f"{'' if exact else 'about '}{self.bytes / 1e6:.1f} MB. Nothing was written."
        )


def _size(file: PlannedFile) -> str:
    if file.bytes is None:
        return "small"
    return f"{file.bytes:,}" if file.exact else f"about {file.bytes:,}"


def plan_export(
    checkpoint: str | Path,
    out: Path,
    *,
    geometry: RowGeometry | Callable[[HeroConfig], RowGeometry],
    max_batch: int,
    answers: int = DEFAULT_ANSWERS,
    caption_tokens: int = DEFAULT_CAPTION_TOKENS,
    tokenizer: Path | None = None,
    frame_encoder: Path | None = None,
    force: bool = False,
) -> Plan:
    """What ``export_bundle`` would write; arguments and errors are its own, but for those of exporting and verifying."""
    from hero_export.bundles.destination import check_destination
    from hero_export.bundles.export import load_model
    from hero_export.bundles.export_script import REPORT_SCRIPT
    from hero_export.bundles.sources import find_sources
    from hero_export.onnx.graphs import graphs_of
    from hero_export.report import REPORT_JSON, REPORT_TEXT
    from hero_export.rows.geometry import check_geometry, check_limits
    from hero_sdk.frame_encoder import GRAPH_FILE, SPEC_FILE
    from hero_sdk.manifest import MANIFEST_FILE
    from hero_train.checkpoint import FRAME_ENCODER_FOLDER, TOKENIZER_FILE

    check_destination(out, force=force)
    sources = find_sources(checkpoint, tokenizer=tokenizer, frame_encoder=frame_encoder)
    if callable(geometry):
        geometry = geometry(sources.config)
    check_geometry(geometry, sources.config, max_batch)
    check_limits(sources.config, answers, caption_tokens)
    graphs = graphs_of(load_model(sources), geometry, answers=answers, caption_tokens=caption_tokens)
    copies = {TOKENIZER_FILE: sources.tokenizer}
    copies |= {f"{FRAME_ENCODER_FOLDER}/{name}": sources.frame_encoder / name for name in (GRAPH_FILE, SPEC_FILE)}
    files = [PlannedFile(name, path.stat().st_size, exact=True) for name, path in copies.items()]
    files += [PlannedFile(graph.file, _weight_bytes(graph)) for graph in graphs.values()]
    files += [PlannedFile(name) for name in (REPORT_JSON, REPORT_TEXT, REPORT_SCRIPT, MANIFEST_FILE)]
    return Plan(str(out), out.is_dir() and any(out.iterdir()), tuple(files))


def plan_frame_encoder(out: Path) -> Plan:
    """What ``export_frame_encoder`` would write."""
    from hero_export.frame_encoder import packaged_graph
    from hero_sdk.frame_encoder import GRAPH_FILE, SPEC_FILE

    files = (PlannedFile(GRAPH_FILE, _weight_bytes(packaged_graph())), PlannedFile(SPEC_FILE))
    return Plan(str(out), any((out / file.path).exists() for file in files), files)


def _weight_bytes(graph: Graph) -> int:
    """Size of the weights that a graph reads, each once; the rest of its file is small beside them."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    read: set[int] = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            tensors = (item for item in tree_leaves((args, kwargs)) if isinstance(item, torch.Tensor))
            read.update(tensor.untyped_storage().data_ptr() for tensor in tensors)
            return function(*args, **(kwargs or {}))

    with torch.no_grad(), Watch():
        graph.module(*graph.example(batch=1))
    weights = {weight.untyped_storage().data_ptr(): weight for weight in graph.module.state_dict().values()}
    return sum(weight.nbytes for place, weight in weights.items() if place in read)


def plan_repository(
    bundle: Path,
    out: Path,
    *,
    variant: str | None = None,
    device: Device = "cpu",
    require_signature: PublicKeys | None = None,
    python: bool = True,
) -> Plan:
    """What ``write_repository`` would write; ``python``: for Triton's Python backend. Errors are its own."""
    from hero_export.triton import (
        VERSION_FOLDER,
        check_repository_place,
        graph_sources,
        read_for_triton,
        served_variant,
    )
    from hero_sdk.engines.triton import BUNDLE_MODEL, model_name
    from hero_sdk.manifest import MANIFEST_FILE
    from hero_sdk.triton_process import REPOSITORY_FILE

    check_repository_place(out)
    manifest = read_for_triton(bundle, require_signature)
    served = served_variant(manifest, variant, device)
    sizes = {MANIFEST_FILE: (bundle / MANIFEST_FILE).stat().st_size}
    sizes |= {name: file.bytes for name, file in manifest.files.items()}
    models = {BUNDLE_MODEL: {name: name for name in (MANIFEST_FILE, manifest.tokenizer)}}
    models |= {model_name(graph): graph_sources(bundle, manifest.file_of(graph, served)) for graph in manifest.graphs}
    files = []
    for model, sources in models.items():
        files.append(PlannedFile(f"{model}/config.pbtxt"))
        files += [
            PlannedFile(f"{model}/{VERSION_FOLDER}/{name}", sizes[source], exact=True)
            for name, source in sources.items()
        ]
        if python or model == BUNDLE_MODEL:
            files.append(PlannedFile(f"{model}/{VERSION_FOLDER}/model.py"))
    files += [PlannedFile("reproduce.sh"), PlannedFile(REPOSITORY_FILE)]
    return Plan(str(out), out.is_dir() and any(out.iterdir()), tuple(files))


def plan_files(place: str, sizes: dict[str, int], *, replaces: bool = False) -> Plan:
    """Files whose sizes are known."""
    return Plan(place, replaces, tuple(PlannedFile(name, size, exact=True) for name, size in sizes.items()))
