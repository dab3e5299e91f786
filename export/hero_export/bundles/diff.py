"""``hero-export diff``: what differs between two bundles, in groups, from the contract down to single weights."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from hero_export.bundles.reports import json_reports, numbers, read_report
from hero_export.bundles.weights_diff import WeightDifference, Weights, compare_weights
from hero_export.report import rich_table
from hero_sdk.graph_files import ONNX_SUFFIX
from hero_sdk.manifest import Manifest, read_bundle
from hero_sdk.onnx_file import read_outline
from hero_sdk.signature import PublicKeys

if TYPE_CHECKING:
    from rich.console import RenderableType

Value = str | float | None
"""An int, a number or a text; None where a bundle has nothing."""

GROUPS = ("fingerprint", "contract", "tokenizer", "frame encoder", "graphs", "reports", "versions", "files")
MAX_SHOWN = 20
"""Lines of a table; all of them are in the JSON."""


@dataclass(frozen=True)
class Difference:
    """One thing that differs: ``a`` in the first bundle, ``b`` in the second."""

    group: str
    what: str
    a: Value
    b: Value


@dataclass(frozen=True)
class BundleDifference:
    """All that differs between two bundles.

    Attributes:
        equal: nothing does; the two have the same files.
        searchable: each may search the other's corpora, for they have the same fingerprint.
        differences: by group, in the order of ``GROUPS``.
        weights: that differ, of the graphs that both have.
    """

    equal: bool
    searchable: bool
    differences: tuple[Difference, ...]
    weights: tuple[WeightDifference, ...]

    def to_json(self) -> str:
        """As text for programs."""
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False)

    def to_rich(self) -> Iterator[RenderableType]:
        """As tables for a terminal, one per group."""
        for group in GROUPS:
            rows = [[item.what, _shown(item.a), _shown(item.b)] for item in self.differences if item.group == group]
            if rows:
                yield rich_table(group.capitalize(), ("what", "A", "B"), _cut(rows))
        if self.weights:
            columns = ("graph", "weight", "A", "B", "changed", "largest error", "relative error")
            yield rich_table("Weights", columns, _cut([_weight_cells(weight) for weight in self.weights]))


def diff_bundles(a: Path, b: Path, *, require_signature: PublicKeys | None = None) -> BundleDifference:
    """Compare two bundles, each of which is checked first.

    Args:
        a, b: the folders.
        require_signature: public keys of which one must have signed each; None asks for no signature.

    Raises:
        BundleError: one of them is incomplete or altered.
        ExportError: a report that cannot be read.
        SignatureError: none of the required keys signed one of them.
    """
    first, second = (read_bundle(folder, require_signature=require_signature) for folder in (a, b))
    shared = [
        graph
        for graph in first.graphs.keys() & second.graphs.keys()
        if first.graphs[graph].file.endswith(ONNX_SUFFIX) and second.graphs[graph].file.endswith(ONNX_SUFFIX)
    ]
    # In the order of the first bundle; those whose files are the same have nothing to be compared.
    graphs = [
        graph
        for graph in first.graphs
        if graph in shared and _graph_sums(a, first, graph) != _graph_sums(b, second, graph)
    ]
    weights = [
        weight
        for graph in graphs
        for weight in compare_weights(
            graph, Weights.of(a, first.graphs[graph].file), Weights.of(b, second.graphs[graph].file)
        )
    ]
    differences = [
        *_differing("fingerprint", {"fingerprint": first.fingerprint}, {"fingerprint": second.fingerprint}),
        *contract_differences(first, second),
        *_tokenizer(a, b, first, second),
        *_differing("frame encoder", vars(first.frame_encoder), vars(second.frame_encoder)),
        *_graphs(a, b, first, second, graphs, {weight.graph for weight in weights}),
        *_reports(a, b, first, second),
        *_differing("versions", first.tools, second.tools),
        *_differing("files", _files(first), _files(second)),
    ]
    return BundleDifference(
        not differences, first.fingerprint == second.fingerprint, tuple(differences), tuple(weights)
    )


def _differing(group: str, a: dict[str, Any], b: dict[str, Any], prefix: str = "") -> list[Difference]:
    """The entries of two flat mappings that are not the same, in the order of the first, then those of the second alone."""
    return [
        Difference(group, prefix + name, a.get(name), b.get(name))
        for name in dict.fromkeys([*a, *b])
        if a.get(name) != b.get(name)
    ]


def contract_differences(a: Manifest, b: Manifest) -> list[Difference]:
    """What differs between two manifests, files, versions, fingerprint and frame encoder aside."""
    return _differing("contract", _contract(a), _contract(b))


def _contract(manifest: Manifest) -> dict[str, Value]:
    content = dataclasses.asdict(manifest)
    for name in ("fingerprint", "files", "tools", "frame_encoder"):
        del content[name]
    for graph in content["graphs"].values():
        for side in ("inputs", "outputs"):
            graph[side] = {tensor["name"]: f"{tensor['dtype']} {tensor['shape']}" for tensor in graph[side]}
    return dict(_flat(content))


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Value]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{path}/{key}" if path else key)
    else:
        yield path, value if isinstance(value, (str, int, float)) or value is None else str(value)


def _tokenizer(a: Path, b: Path, first: Manifest, second: Manifest) -> list[Difference]:
    if first.files[first.tokenizer].sha256 == second.files[second.tokenizer].sha256:
        return []
    from tokenizers import Tokenizer

    texts = [
        (folder / manifest.tokenizer).read_text(encoding="utf-8") for folder, manifest in ((a, first), (b, second))
    ]
    parts, vocabularies = [json.loads(text) for text in texts], [Tokenizer.from_str(text).get_vocab() for text in texts]
    words, other = vocabularies
    found = _differing("tokenizer", {"tokens": len(words)}, {"tokens": len(other)})
    only = [sorted(words.keys() - other.keys()), sorted(other.keys() - words.keys())]
    if any(only):
        shown = (f"{len(names)}: {', '.join(names[:5])}" if names else "0" for names in only)
        found.append(Difference("tokenizer", "tokens of one alone", *shown))
    if moved := sum(other[word] != number for word, number in words.items() if word in other):
        found.append(Difference("tokenizer", "tokens with another id", moved, moved))
    # Which parts differ, the vocabulary aside: the normaliser, the merges, ...
    sides = [{**part, **{f"model/{key}": value for key, value in part.get("model", {}).items()}} for part in parts]
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        if name not in ("model", "model/vocab") and sides[0].get(name) != sides[1].get(name):
            found.append(Difference("tokenizer", name, *(_brief(side.get(name)) for side in sides)))
    return found or [Difference("tokenizer", "written in another way, with the same content", "", "")]


def _brief(value: object) -> str:
    text = json.dumps(value)
    return (
        text if len(text) <= 60 else f"{len(value)} entries" if isinstance(value, (list, dict)) else text[:57] + "..."
    )


def _graph_sums(bundle: Path, manifest: Manifest, graph: str) -> list[str]:
    """The sha256 of a graph's file and of those that its weights lie in."""
    file = manifest.graphs[graph].file
    beside = (PurePosixPath(file).with_name(name).as_posix() for name in read_outline(bundle, file).external_files)
    return [manifest.files[name].sha256 for name in (file, *beside)]


def _graphs(
    a: Path, b: Path, first: Manifest, second: Manifest, graphs: list[str], with_weights: set[str]
) -> list[Difference]:
    found = []
    for graph in graphs:
        one, two = _operators(a, first.graphs[graph].file), _operators(b, second.graphs[graph].file)
        differing = _differing("graphs", one, two, f"{graph}: ")
        if not differing and graph not in with_weights:
            differing = [Difference("graphs", f"{graph}: other attributes, constants or order of nodes", "", "")]
        found += differing
    return found


def _operators(bundle: Path, file: str) -> dict[str, int]:
    """How many of each operator, and the versions of the operator sets."""
    outline = read_outline(bundle, file)
    return outline.operators | {f"opset {domain}".strip(): version for domain, version in outline.opsets.items()}


def _reports(a: Path, b: Path, first: Manifest, second: Manifest) -> list[Difference]:
    sides = [
        {
            f"{PurePosixPath(name).stem}: {path}": value
            for name in json_reports(manifest)
            for path, value in numbers(read_report(folder, name)).items()
        }
        for folder, manifest in ((a, first), (b, second))
    ]
    return _differing("reports", sides[0], sides[1])


def _files(manifest: Manifest) -> dict[str, str]:
    return {name: f"{file.bytes} bytes, sha256 {file.sha256[:12]}" for name, file in manifest.files.items()}


def _shown(value: Value) -> str:
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _weight_cells(weight: WeightDifference) -> list[str]:
    share = "-" if weight.changed is None else f"{100 * weight.changed:.1f} %"
    errors = ["-" if value is None else f"{value:.2e}" for value in (weight.max_error, weight.relative_error)]
    return [weight.graph, weight.name, weight.a or "-", weight.b or "-", share, *errors]


def _cut(rows: list[list[str]]) -> list[list[str]]:
    if len(rows) <= MAX_SHOWN:
        return rows
    more = [f"and {len(rows) - MAX_SHOWN} more (--json shows all)"]
    return [*rows[:MAX_SHOWN], more + [""] * (len(rows[0]) - 1)]
