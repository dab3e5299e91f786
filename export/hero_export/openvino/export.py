"""``hero-export openvino``: variants of a bundle for OpenVINO, each read back and compared with the ONNX graphs before it is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from hero_export.bundle_cases import BundleCases
from hero_export.errors import ExportError, PrecisionError
from hero_export.openvino import quantise
from hero_export.openvino.compare import TOLERANCES, Reference, quantises_at_run_time, require_near
from hero_export.openvino.convert import Converted, convert_graph, layers_in, save_graph, store_weights
from hero_export.openvino.precisions import CALIBRATED, PRECISIONS, QUANTISED, STORED_HALF, TABLES
from hero_export.openvino.readback import check_execution, check_fused, fused_operators, read_execution, read_products
from hero_export.openvino.report import REPORT_FILE, GraphResult, VariantReport
from hero_export.precision.readback import FP32, INT8_DYNAMIC, require_precision
from hero_export.report import CaseResult, tool_versions
from hero_export.reproduce import SCRIPT_FILE, Variable, Word, reproduce_script
from hero_export.variants import Amendment, amend
from hero_sdk.engines.openvino import OpenVinoSession, capabilities, load_openvino
from hero_sdk.hub import Stage
from hero_sdk.manifest import FRAME_GRAPH, Manifest, read_bundle
from hero_sdk.signature import PublicKeys
from hero_sdk.variants import OPENVINO, VARIANTS_FOLDER, Variant, VariantGraph

TOOLS = ("openvino", "nncf")

THREADS = 1
"""Of the runs that compare; more would not change what is computed."""

Calibration = Callable[[str], quantise.Rows]
"""Gives the calibration rows of a graph, by its name."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        bundle: the folder.
        precisions: some of ``PRECISIONS``, each for a variant.
        calibration: the rows, for precisions that need them.
        calibration_files: sha256 of the calibration set's files, by name, for the script that makes the variants again.
        keep: layers that stay in float32 in the quantised precisions, see ``hero_export.precision.layers.select``.
    """

    bundle: Path
    precisions: tuple[str, ...]
    calibration: Calibration | None = None
    calibration_files: dict[str, str] = dataclasses.field(default_factory=dict)
    keep: tuple[str, ...] = ()


def check_request(request: Request, *, require_signature: PublicKeys | None = None) -> Manifest:
    """See that a request can be met, as far as that shows before anything is converted.

    Returns:
        The bundle's manifest.

    Raises:
        BundleError: the bundle is incomplete or altered.
        SignatureError: none of the required keys signed it.
        ExportError: its graphs have operators of ONNX Runtime's own.
        PrecisionError: an unknown precision, one that needs a calibration set that is not given, or layers to keep that no graph has
            or that the precision cannot keep.
        MissingPackageError: OpenVINO, or NNCF where it is needed, is not installed.
    """
    manifest = read_bundle(request.bundle, require_signature=require_signature)
    if unknown := [one for one in request.precisions if one not in PRECISIONS] or not request.precisions:
        raise PrecisionError(f"The precisions {unknown or 'none'} were asked for; expected some of {list(PRECISIONS)}.")
    load_openvino()
    if QUANTISED & set(request.precisions):
        quantise.check_installed()
    own = [name for name, spec in manifest.graphs.items() if any("::" in operator for operator in spec.fused)]
    if own:
        raise ExportError(
            f"{request.bundle} has the graphs {own} with ONNX Runtime's own operators, which OpenVINO does not run; expected those "
            "of the ONNX standard. Export the checkpoint again with --operators standard."
        )
    if (needing := sorted(CALIBRATED & set(request.precisions))) and request.calibration is None:
        raise PrecisionError(
            f"The precision {needing[0]} was asked for without a calibration set; expected the folder that `hero-export calibrate` "
            "writes. Name it with --calibration, or choose int8-dynamic, which needs none."
        )
    if request.keep:
        _check_keep(request, manifest)
    return manifest


def _check_keep(request: Request, manifest: Manifest) -> None:
    import onnx_ir

    if others := [one for one in request.precisions if one not in QUANTISED]:
        raise PrecisionError(
            f"Layers are to be kept in float32 in {others}, whose precision OpenVINO chooses for a whole graph; expected one of "
            f"{sorted(QUANTISED)}. Ask for {', '.join(others)} without --keep."
        )
    known = [tuple(onnx_ir.load(request.bundle / manifest.graphs[name].file).graph) for name in _quantised(manifest)]
    for layer in request.keep:
        if not any(layers_in(nodes, [layer]) for nodes in known):
            raise PrecisionError(
                f"No graph of {request.bundle} has a layer '{layer}' to keep; expected the name of a module, such as "
                "cross_modal.layers.0, or of a node. `hero-export inspect --json` shows the graphs."
            )


def _quantised(manifest: Manifest) -> list[str]:
    """The graphs that take the precision that was asked for.

    The frame encoder does not: what it gives was trained on, lies in feature caches, and is told apart by a fingerprint of its float32
    weights.
    """
    return [name for name in manifest.graphs if name != FRAME_GRAPH]


def add_openvino(
    request: Request,
    *,
    out: Path | None = None,
    force: bool = False,
    require_signature: PublicKeys | None = None,
    on_stage: Stage | None = None,
) -> list[VariantReport]:
    """Add a variant for each precision to a bundle: all of them, or, when something is wrong with one, none.

    Args:
        request: what to make.
        out: where the amended bundle goes; None replaces the bundle itself.
        force: replace another bundle that is at ``out``.
        require_signature: public keys of which one must have signed the bundle; None asks for no signature.
        on_stage: told about each stage as it begins.

    Returns:
        The reports that lie in the bundle.

    Raises:
        as ``check_request``; further
        ExportError: ``out`` is taken or cannot be written, or OpenVINO cannot convert a graph.
        FusionError: an attention, norm or GELU is not one operation, in the file or when it runs.
        PrecisionError: a graph came out, or runs, in another precision than was asked for.
        VerificationError: a graph is further from its ONNX graph than its precision allows.
    """
    begin: Stage = on_stage or (lambda stage: None)
    begin("Reading the bundle")
    manifest = check_request(request, require_signature=require_signature)
    reports: list[VariantReport] = []
    with amend(request.bundle, out, force=force, require_signature=require_signature) as amendment:
        places = {
            precision: amendment.place(Variant(OPENVINO, precision, {}).name) for precision in request.precisions
        }
        made: dict[str, list[tuple[GraphResult, list[CaseResult]]]] = {precision: [] for precision in places}
        cases = BundleCases(request.bundle, manifest)
        for name, spec in manifest.graphs.items():
            begin(f"Running {name} in onnxruntime")
            file = request.bundle / spec.file
            reference = Reference(name, file, spec, cases.cases_of(name))
            for precision, place in places.items():
                begin(f"Making {name} in {precision}")
                own = precision if name in _quantised(manifest) else FP32
                source = manifest.files[spec.file].sha256
                kept = _write(request, convert_graph(file, name), own, place / f"{name}.xml", source)
                made[precision].append(_look_at(place / f"{name}.xml", own, reference, kept))
        tools = tool_versions(*TOOLS)
        for precision, results in made.items():
            reports.append(_report(amendment, precision, results, tools))
            require_near(reports[-1].cases, precision)
            _enter(amendment, request, manifest, reports[-1])
        amendment.manifest = dataclasses.replace(amendment.manifest, tools={**manifest.tools, **tools})
        begin("Writing the manifest")
    return reports


def _write(request: Request, converted: Converted, precision: str, path: Path, source: str) -> tuple[str, ...]:
    """Write a graph in a precision; returns the names of the products that were kept in float32."""
    model, kept = converted.model, converted.kept(request.keep) if precision in QUANTISED else []
    if precision in CALIBRATED:
        assert request.calibration is not None
        model = quantise.quantise(converted, request.calibration(converted.graph), keep=kept)
        store_weights(model, TABLES, converted.graph, tables_only=True)
    elif precision in QUANTISED:
        model = quantise.compress(converted, keep=kept)
    elif precision in STORED_HALF:
        store_weights(model, STORED_HALF[precision], converted.graph)
    save_graph(model, path, precision=precision, source=source)
    return tuple(kept)


def _look_at(
    path: Path, precision: str, reference: Reference, kept: tuple[str, ...]
) -> tuple[GraphResult, list[CaseResult]]:
    """Read a graph back from its files, as the SDK will."""
    graph = reference.name
    session = OpenVinoSession(path, precision, threads=THREADS)
    stored, fused = read_products(session.model), fused_operators(session.model)
    require_precision(stored, precision, graph, excused=kept)
    if graph != FRAME_GRAPH:  # which may be any network
        check_fused(graph, fused, reference.spec.fused)
    executed = read_execution(session.model, session.compiled)
    not_executed = check_execution(graph, precision, stored, executed)
    if precision == INT8_DYNAMIC and not quantises_at_run_time(session, reference):
        not_executed = "checked in the file, not executed here: this CPU multiplies the activations as they are"
    result = GraphResult(
        graph=graph,
        file=f"{VARIANTS_FOLDER}/{path.parent.name}/{path.name}",
        bytes=sum(file.stat().st_size for file in (path, path.with_suffix(".bin"))),
        precision=stored.precision,
        products=stored.counts(),
        shares=stored.shares(),
        executed=executed.products,
        not_executed=not_executed,
        fused=fused,
        kept=kept,
    )
    return result, reference.compare(session, precision)


def _report(
    amendment: Amendment,
    precision: str,
    results: Sequence[tuple[GraphResult, list[CaseResult]]],
    tools: dict[str, str],
) -> VariantReport:
    return VariantReport(
        variant=Variant(OPENVINO, precision, {}).name,
        precision=precision,
        tolerance=dataclasses.asdict(TOLERANCES[precision]),
        capabilities=tuple(sorted(capabilities())),
        tools=tools,
        graphs=tuple(result for result, _ in results),
        cases=tuple(case for _, cases in results for case in cases),
    )


def _enter(amendment: Amendment, request: Request, manifest: Manifest, report: VariantReport) -> None:
    """Enter a variant into the bundle, with its report and its script."""
    graphs = {
        one.graph: VariantGraph(
            file=one.file,
            precision=one.precision,
            products=one.products,
            fused=one.fused,
            source=manifest.files[manifest.graphs[one.graph].file].sha256,
        )
        for one in report.graphs
    }
    amendment.add(Variant(OPENVINO, report.precision, graphs))
    folder = amendment.reports(report.variant)
    (folder / REPORT_FILE).write_text(report.to_json(), encoding="utf-8")
    script = variant_script(request, manifest, report.precision, report.tools)
    (folder / SCRIPT_FILE).write_text(script, encoding="utf-8")


def variant_script(request: Request, manifest: Manifest, precision: str, tools: dict[str, str]) -> str:
    """The script that makes a variant again."""
    command: list[Word] = ["hero-export", "openvino", Variable("BUNDLE"), "--precision", precision]
    variables = {"BUNDLE": "the folder of a bundle with these graphs"}
    inputs = {Variable("BUNDLE", spec.file): manifest.files[spec.file].sha256 for spec in manifest.graphs.values()}
    if precision in CALIBRATED:
        command += ["--calibration", Variable("CALIBRATION")]
        variables["CALIBRATION"] = "the folder of the calibration set"
        inputs |= {Variable("CALIBRATION", name): sha256 for name, sha256 in request.calibration_files.items()}
    if precision in QUANTISED:
        command += [word for layer in request.keep for word in ("--keep", layer)]
    variables["OUT"] = "the folder to write the bundle with the variant to"
    return reproduce_script(
        [*command, "--out", Variable("OUT")], variables=variables, inputs=inputs, tools=tools
    )
