"""``hero-export openvino``: variants of a bundle for OpenVINO, read back and compared with the ONNX graphs before they are kept."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hero_export.bundles.destination import check_destination
from hero_export.bundles.variants import REPORTS_FOLDER, Amendment, amend
from hero_export.dry_run import Plan, PlannedFile
from hero_export.errors import ExportError, PrecisionError
from hero_export.openvino import quantise
from hero_export.openvino.compare import Reference, calibrated_cases, quantises_at_run_time, require_near
from hero_export.openvino.convert import Converted, convert_graph, save_graph, store_weights
from hero_export.openvino.precisions import BYTES_PER_WEIGHT, CALIBRATED, PRECISIONS, QUANTISED, STORED_HALF, TABLES
from hero_export.openvino.readback import check_execution, check_fused, fused_operators, read_execution, read_products
from hero_export.openvino.report import REPORT_FILE, GraphResult, VariantReport
from hero_export.precision.calibration import CALIBRATION_FILE, CalibrationSet, read_calibration
from hero_export.precision.making import HEADS, kept_by_graph, require_calibration
from hero_export.precision.readback import FP32, INT8_DYNAMIC, require_precision
from hero_export.report import CaseResult, tool_versions
from hero_export.reproduce import SCRIPT_FILE, Variable, Word, reproduce_script
from hero_export.tolerances import tolerance_of
from hero_export.verification.bundle_cases import BundleCases
from hero_sdk.engines.openvino import OpenVinoSession, capabilities, load_openvino
from hero_sdk.hub import Stage
from hero_sdk.manifest import FRAME_GRAPH, Manifest, read_bundle, sha256_of
from hero_sdk.signature import PublicKeys
from hero_sdk.variants import OPENVINO, VARIANTS_FOLDER, Variant, VariantGraph

if TYPE_CHECKING:
    import openvino

TOOLS = ("openvino", "nncf")

THREADS = 1
"""Of the runs that compare; more would not change what is computed."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        bundle: the folder.
        precisions: some of ``PRECISIONS``, each for a variant.
        calibration: folder of a calibration set, for precisions that need one.
        keep: what stays in float32: whole graphs by their names, and, in the quantised precisions, layers, see
            ``hero_export.precision.making.kept_by_graph``.
    """

    bundle: Path
    precisions: tuple[str, ...]
    calibration: Path | None = None
    keep: tuple[str, ...] = ()


def check_request(request: Request, *, require_signature: PublicKeys | None = None) -> Manifest:
    """See that a request can be met, as far as that shows before anything is converted.

    Returns:
        The bundle's manifest.

    Raises:
        BundleError: the bundle is incomplete or altered.
        SignatureError: none of the required keys signed it.
        CalibrationError: the calibration set is needed and not given, damaged, or was made with another bundle.
        ExportError: its graphs have operators of ONNX Runtime's own, or none of them has a layer to keep.
        PrecisionError: an unknown precision, or one that cannot keep layers.
        MissingPackageError: OpenVINO, or NNCF where it is needed, is not installed.
    """
    manifest = read_bundle(request.bundle, require_signature=require_signature)
    if not request.precisions or set(request.precisions) - set(PRECISIONS):
        raise PrecisionError(
            f"The precisions {list(request.precisions)} were asked for; OpenVINO has {list(PRECISIONS)}. Choose some of these."
        )
    load_openvino()
    if QUANTISED & set(request.precisions):
        quantise.check_installed()
    own = [name for name, spec in manifest.graphs.items() if any("::" in operator for operator in spec.fused)]
    if own:
        raise ExportError(
            f"{request.bundle} has the graphs {own} with ONNX Runtime's own operators, which OpenVINO does not run; expected those "
            "of the ONNX standard. Export the checkpoint again with --operators standard."
        )
    require_calibration(request.precisions, request.calibration)
    if request.calibration is not None:
        read_calibration(request.calibration, manifest)
    if request.keep:
        _check_keep(request, manifest)
    return manifest


def _check_keep(request: Request, manifest: Manifest) -> None:
    whole = [one for one in request.precisions if one not in QUANTISED]
    if whole and (layers := [word for word in request.keep if word not in manifest.graphs]):
        raise PrecisionError(
            f"{layers} are to be kept in float32 in {whole}, whose precision OpenVINO chooses for a whole graph; expected some of "
            f"{list(manifest.graphs)}. Keep whole graphs, or ask for one of {sorted(QUANTISED)}."
        )
    kept_by_graph(request.bundle, manifest, request.keep)


def _quantised(manifest: Manifest, keep: Sequence[str]) -> list[str]:
    """The graphs that take the precision that was asked for: all but those that are kept, and the frame encoder.

    What that gives was trained on, lies in feature caches, and is told apart by a fingerprint of the float32 weights.
    """
    return [name for name in manifest.graphs if name not in (FRAME_GRAPH, *keep)]


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
    calibration = None if request.calibration is None else read_calibration(request.calibration, manifest)
    keep = kept_by_graph(request.bundle, manifest, request.keep)
    reports: list[VariantReport] = []
    with amend(request.bundle, out, force=force, require_signature=require_signature) as amendment:
        places = {precision: amendment.place(Variant(OPENVINO, precision, {}).name) for precision in request.precisions}
        made: dict[str, list[tuple[GraphResult, list[CaseResult]]]] = {precision: [] for precision in places}
        cases = BundleCases(request.bundle, manifest)
        for name, spec in manifest.graphs.items():
            begin(f"Running {name} in onnxruntime")
            file = request.bundle / spec.file
            reference = Reference(name, file, spec, cases.cases_of(name))
            rows = [] if calibration is None else calibrated_cases(calibration, name, spec)
            on_rows = Reference(name, file, spec, rows)
            for precision, place in places.items():
                begin(f"Making {name} in {precision}")
                converted = convert_graph(file, name)
                own = precision if name in _quantised(manifest, request.keep) and _takes(converted, precision) else FP32
                making = _Making(converted, own, manifest.files[spec.file].sha256, calibration, keep[name])
                made[precision].append(making.write(place, on_rows if own in CALIBRATED else reference))
        tools = tool_versions(*TOOLS)
        for precision, results in made.items():
            reports.append(_report(amendment, precision, results, tools))
            require_near(reports[-1].cases, precision)
            _enter(amendment, request, manifest, reports[-1])
        amendment.manifest = dataclasses.replace(amendment.manifest, tools={**manifest.tools, **tools})
        begin("Writing the manifest")
    return reports


def _takes(converted: Converted, precision: str) -> bool:
    """Whether a graph has something to quantise, where that is asked for.

    Not a head: its time is nothing, and each logit would show it.
    """
    if precision not in QUANTISED:
        return True
    always = converted.kept(())
    products = read_products(converted.model).products
    return converted.graph not in HEADS and any(one.weighted and one.layer not in always for one in products)


@dataclasses.dataclass(frozen=True)
class _Making:
    """A graph that is to be written in a precision.

    Attributes:
        converted: the graph.
        precision: its own, which is not the variant's for one that stays in float32.
        source: sha256 of the ONNX file.
        calibration: what int8 takes ranges from.
        keep: layers that stay in float32.
    """

    converted: Converted
    precision: str
    source: str
    calibration: CalibrationSet | None
    keep: Sequence[str]

    def write(self, place: Path, reference: Reference) -> tuple[GraphResult, list[CaseResult]]:
        """Write the graph to a folder and read it back; of several ways to quantise it, the one that comes out nearest."""
        kept = self.converted.kept(self.keep) if self.precision in QUANTISED else []
        name = f"{self.converted.graph}.xml"
        with tempfile.TemporaryDirectory() as folder:
            found = []
            for number, (smoothing, model) in enumerate(self._models(kept)):
                path = Path(folder) / str(number) / name
                path.parent.mkdir()
                save_graph(model, path, precision=self.precision, source=self.source)
                result, cases = _look_at(path, self.precision, reference, tuple(kept))
                result = dataclasses.replace(result, file=f"{VARIANTS_FOLDER}/{place.name}/{name}", smoothing=smoothing)
                found.append((path, result, cases))
            path, result, cases = min(found, key=lambda one: distance(one[2]))
            for file in (path, path.with_suffix(".bin")):
                shutil.move(file, place / file.name)
        return result, cases

    def _models(self, kept: Sequence[str]) -> Iterator[tuple[float | None, openvino.Model]]:
        """The graph in its precision, with the smoothing that went before; in int8 there are several."""
        graph, model = self.converted.graph, self.converted.model
        if self.precision in CALIBRATED:
            assert self.calibration is not None
            rows = list(self.calibration.rows(graph))
            for smoothing in quantise.SMOOTHINGS:
                made = quantise.quantise(self.converted, rows, smoothing=smoothing, keep=kept)
                store_weights(made, TABLES, graph, tables_only=True)
                yield smoothing, made
            return
        if self.precision in QUANTISED:
            model = quantise.compress(self.converted, keep=kept)
        elif self.precision in STORED_HALF:
            store_weights(model, STORED_HALF[self.precision], graph)
        yield None, model


def distance(cases: Sequence[CaseResult]) -> float:
    """How far a graph is from its ONNX graph at worst, as a share of the scale; infinite where a case is no number."""
    return max((case.relative_error if case.finite else float("inf") for case in cases), default=0.0)


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
    if precision == INT8_DYNAMIC:
        # A compiled graph says nothing of it, so the numbers have to.
        if quantises_at_run_time(session, reference):
            executed = dataclasses.replace(executed, products=stored.counts())
        else:
            not_executed = "checked in the file, not executed here: OpenVINO multiplies the activations as they are"
    result = GraphResult(
        graph=graph,
        file=path.name,
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
    tolerance = tolerance_of(precision)
    return VariantReport(
        variant=Variant(OPENVINO, precision, {}).name,
        precision=precision,
        tolerance={
            "max_relative_error": tolerance.max_relative_error,
            "min_cosine": tolerance.min_cosine,
        },
        capabilities=tuple(sorted(capabilities())),
        tools=tools,
        graphs=tuple(result for result, _ in results),
        cases=tuple(case for _, cases in results for case in cases),
    )


def plan_openvino(
    request: Request, *, out: Path | None = None, force: bool = False, require_signature: PublicKeys | None = None
) -> Plan:
    """What ``add_openvino`` would write into the bundle; errors are those of ``check_request`` and of a place that is taken."""
    manifest = check_request(request, require_signature=require_signature)
    if out is not None:
        check_destination(out, force=force)
    files = []
    for precision in request.precisions:
        name = Variant(OPENVINO, precision, {}).name
        for graph, spec in manifest.graphs.items():
            own = precision if graph in _quantised(manifest, request.keep) else FP32
            weights = sum(file.bytes for path, file in manifest.files.items() if path.startswith(spec.file))
            files.append(PlannedFile(f"{VARIANTS_FOLDER}/{name}/{graph}.xml"))
            files.append(PlannedFile(f"{VARIANTS_FOLDER}/{name}/{graph}.bin", int(weights * BYTES_PER_WEIGHT[own] / 4)))
        files += [
            PlannedFile(f"{REPORTS_FOLDER}/{VARIANTS_FOLDER}/{name}/{file}") for file in (REPORT_FILE, SCRIPT_FILE)
        ]
    return Plan(str(out or request.bundle), out is None or (out.is_dir() and any(out.iterdir())), tuple(files))


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
    graphs = tuple(spec.file for spec in manifest.graphs.values())
    # Weights may lie in a file beside their graph.
    inputs = {Variable("BUNDLE", name): file.sha256 for name, file in manifest.files.items() if name.startswith(graphs)}
    if precision in CALIBRATED:
        command += ["--calibration", Variable("CALIBRATION")]
        variables["CALIBRATION"] = "the folder of the calibration set"
        assert request.calibration is not None
        inputs[Variable("CALIBRATION", CALIBRATION_FILE)] = sha256_of(request.calibration / CALIBRATION_FILE)
    command += [word for part in request.keep for word in ("--keep", part)]
    variables["OUT"] = "the folder to write the bundle with the variant to"
    return reproduce_script([*command, "--out", Variable("OUT")], variables=variables, inputs=inputs, tools=tools)
