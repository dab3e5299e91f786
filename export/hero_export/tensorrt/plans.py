"""``hero-export tensorrt``: plans of a bundle's graphs as variants in the bundle, or an error and the bundle as it was."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hero_export.bundles.variants import Amendment, amend
from hero_export.precision.calibration import CALIBRATION_FILE, read_calibration
from hero_export.report import rich_table, tool_versions
from hero_export.reproduce import SCRIPT_FILE, Variable, Word, reproduce_script
from hero_export.tensorrt.build import Plan, build_plan
from hero_export.tensorrt.cache import PlanCache, PlanKey, graph_digest
from hero_export.tensorrt.module import PORTABLE, PlanOptions, TensorRT, find_tensorrt
from hero_export.tensorrt.prepare import Prepared, check_precisions, prepare_graph
from hero_export.tensorrt.readback import read_engine
from hero_sdk.engines.cuda import Cuda
from hero_sdk.engines.tensorrt import EXTRAS
from hero_sdk.errors import EngineError, InputError, MissingPackageError
from hero_sdk.hub import Stage
from hero_sdk.manifest import Manifest, sha256_of
from hero_sdk.signature import PublicKeys
from hero_sdk.variants import VARIANTS_FOLDER, Variant, VariantGraph

if TYPE_CHECKING:
    from rich.table import Table

BUILD_REPORT = "build.json"

COLUMNS = ("variant", "graph", "MB", "seconds", "products", "in several kernels", "largest mean error")


@dataclass(frozen=True)
class PlanRequest:
    """What to build.

    Attributes:
        precisions: of the matrix products.
        targets: compute capabilities, such as "sm86". None: the GPU of this machine, with a module that needs one.
        hardware_compatible: build (also) a plan for every GPU from compute capability 8.0 on.
        opt_batch: the batch that plans are to be fastest with; None for the largest.
        version_compatible: later releases of the module can run the plans.
        timing_cache: a file that keeps what was timed from one build to the next.
        cache: a folder of plans that were built before; None builds all.
        calibration: the bundle's calibration set, for eight bits.
    """

    precisions: tuple[str, ...] = ("fp16",)
    targets: tuple[str, ...] = ()
    hardware_compatible: bool = False
    opt_batch: int | None = None
    version_compatible: bool = False
    timing_cache: Path | None = None
    cache: Path | None = None
    calibration: Path | None = None


@dataclass(frozen=True)
class PlanResult:
    """A plan in the bundle.

    Attributes:
        variant, graph: names.
        file: path in the bundle.
        bytes: its size.
        seconds: that it took to build.
        cached: it came from the cache.
        products: how many matrix products per precision, as read back from the network.
        unfused: attentions of a single query, which have no fused kernel.
        engine: how many outputs of the engine's layers have each type; empty where no GPU could tell.
        errors: of a quantised graph, in onnxruntime, see ``Prepared``.
        warnings: what the builder said.
    """

    variant: str
    graph: str
    file: str
    bytes: int
    seconds: float
    cached: bool
    products: dict[str, int]
    unfused: tuple[str, ...]
    engine: dict[str, int]
    errors: dict[str, float]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class PlanReport:
    """All plans that were made at once; ``unsigned``: the bundle had a signature, and has none any more."""

    builder: str
    plans: tuple[PlanResult, ...]
    unsigned: bool

    def to_json(self) -> str:
        """As text for programs."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    def to_rich(self) -> Table:
        """As a table for a terminal."""
        rows = [
            [
                plan.variant,
                plan.graph,
                f"{plan.bytes / 1e6:.1f}",
                "cached" if plan.cached else f"{plan.seconds:.1f}",
                ", ".join(f"{count} {precision}" for precision, count in plan.products.items()) or "none",
                f"{len(plan.unfused)} of one query" if plan.unfused else "",
                f"{max(plan.errors.values()):.1e}" if plan.errors else "",
            ]
            for plan in self.plans
        ]
        return rich_table("Plans", COLUMNS, rows)


def chosen_targets(tensorrt: TensorRT, request: PlanRequest, manifest: Manifest) -> tuple[str, ...]:
    """The targets to build for, all of them checked.

    Raises:
        InputError: no target, or an option that the module cannot do.
        EngineError, MissingPackageError: the module needs a GPU, and there is none.
    """
    targets = request.targets
    if not targets and not request.hardware_compatible:
        known = tensorrt.targets()
        if tensorrt.ahead_of_time:
            raise InputError(
                f"{tensorrt.builder} builds for GPUs that are named; expected at least one of {', '.join(known)}. "
                f"Add --target {known[0]}, or --hardware-compatible for one plan for all from {PORTABLE.upper()}."
            )
        targets = known
    if request.hardware_compatible:
        targets = (*targets, PORTABLE)
    targets = tuple(dict.fromkeys(targets))
    most = max(spec.max_batch for spec in manifest.graphs.values())
    for target in targets:
        options = PlanOptions(target, most, most if request.opt_batch is None else request.opt_batch)
        tensorrt.check(
            dataclasses.replace(options, version_compatible=request.version_compatible), request.timing_cache
        )
    return targets


def variant_name(tensorrt: TensorRT, precision: str, target: str) -> str:
    """What the variant of these plans is called."""
    return Variant(tensorrt.name, precision, {}, target).name


def add_plans(
    bundle: Path,
    request: PlanRequest,
    *,
    module: str | None = None,
    out: Path | None = None,
    force: bool = False,
    require_signature: PublicKeys | None = None,
    on_stage: Stage | None = None,
) -> PlanReport:
    """Build plans of all graphs of a bundle and put them into it.

    Args:
        bundle: the folder.
        request: what to build.
        module: "tensorrt_rtx" or "tensorrt"; None takes the one that is installed.
        out: where the amended bundle goes; None replaces the bundle itself.
        force: replace another bundle that is at ``out``.
        require_signature: public keys of which one must have signed the bundle; None asks for no signature.
        on_stage: told about each stage as it begins.

    Raises:
        BundleError: the bundle is incomplete or altered, or a cached plan is not what was cached.
        SignatureError: none of the required keys signed it.
        CalibrationError: eight bits without a calibration set of this bundle.
        InputError: no target, or an option that the module cannot do.
        BuildError: TensorRT refuses a graph.
        PrecisionError: a graph is not in the precision that was asked for.
        ExportError: ``out`` is taken or cannot be written.
        EngineError: the module needs a GPU, and there is none.
        MissingPackageError: no TensorRT is installed.
    """
    begin: Stage = on_stage or (lambda stage: None)
    tensorrt = find_tensorrt(module)
    begin("Checking the bundle")
    results: list[PlanResult] = []
    with (
        amend(bundle, out, force=force, require_signature=require_signature) as amendment,
        tempfile.TemporaryDirectory() as scratch,
    ):
        work = _Work(tensorrt, request, amendment, begin, _gpu(tensorrt))
        targets = chosen_targets(tensorrt, request, amendment.manifest)
        calibration = None if request.calibration is None else read_calibration(request.calibration, amendment.manifest)
        for precision in check_precisions(request.precisions, calibration):
            prepared = {}
            for graph in amendment.manifest.graphs:
                begin(f"Preparing {graph} in {precision}")
                prepared[graph] = prepare_graph(
                    amendment.folder,
                    amendment.manifest,
                    graph,
                    precision,
                    Path(scratch) / precision,
                    calibration=calibration,
                )
            for target in targets:
                results += work.add_variant(precision, target, prepared)
        begin("Checking the amended bundle")
    return PlanReport(tensorrt.builder, tuple(results), amendment.signed)


@dataclass(frozen=True)
class _Work:
    """Makes one variant after the other."""

    tensorrt: TensorRT
    request: PlanRequest
    amendment: Amendment
    begin: Stage
    gpu: str | None

    def add_variant(self, precision: str, target: str, prepared: dict[str, Prepared]) -> list[PlanResult]:
        name = variant_name(self.tensorrt, precision, target)
        manifest, folder = self.amendment.manifest, self.amendment.place(name)
        results, graphs = [], {}
        for graph, source in prepared.items():
            self.begin(f"Building {graph} in {precision} for {target}")
            limit = manifest.graphs[graph].max_batch
            options = PlanOptions(
                target,
                max_batch=limit,
                opt_batch=limit if self.request.opt_batch is None else min(self.request.opt_batch, limit),
                version_compatible=self.request.version_compatible,
            )
            plan, cached = self._plan(graph, options, source)
            file = f"{VARIANTS_FOLDER}/{name}/{graph}.plan"
            (folder / f"{graph}.plan").write_bytes(plan.data)
            sha256 = manifest.files[manifest.graphs[graph].file].sha256
            graphs[graph] = VariantGraph(file, plan.precision, plan.products, source=sha256)
            engine = read_engine(self.tensorrt, plan.data) if self._can_load(target) else {}
            results.append(
                PlanResult(
                    name,
                    graph,
                    file,
                    len(plan.data),
                    plan.seconds,
                    cached,
                    plan.products,
                    plan.unfused,
                    engine,
                    source.errors,
                    plan.warnings,
                )
            )
        self.amendment.add(Variant(self.tensorrt.name, precision, graphs, target, self.tensorrt.builder))
        self._tell(name, precision, target, prepared, results)
        return results

    def _can_load(self, target: str) -> bool:
        """Whether this machine has a GPU that a plan for this target runs on."""
        return self.gpu is not None and (target == self.gpu or (target == PORTABLE and int(self.gpu[2:]) >= 80))

    def _plan(self, graph: str, options: PlanOptions, source: Prepared) -> tuple[Plan, bool]:
        """A plan from the cache, or a new one."""
        cache = None if self.request.cache is None else PlanCache(self.request.cache)
        key = PlanKey(graph_digest(source.path), self.tensorrt.builder, source.precision, options, source.excused)
        if cache is not None and (found := cache.get(key)) is not None:
            return found, True
        plan = build_plan(
            self.tensorrt,
            source.path,
            graph,
            source.precision,
            options,
            timing_cache=self.request.timing_cache,
            excused=source.excused,
        )
        if cache is not None:
            cache.put(key, plan)
        return plan, False

    def _tell(
        self, name: str, precision: str, target: str, prepared: dict[str, Prepared], results: list[PlanResult]
    ) -> None:
        """Write beside the variant what was built and how it is built again."""
        folder = self.amendment.reports(name)
        about = {"builder": self.tensorrt.builder, "plans": [dataclasses.asdict(result) for result in results]}
        (folder / BUILD_REPORT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        command: list[Word] = ["hero-export", "tensorrt", Variable("BUNDLE"), "--out", Variable("OUT")]
        command += ["--module", self.tensorrt.name, "--precision", precision]
        command += ["--hardware-compatible"] if target == PORTABLE else ["--target", target]
        if self.request.opt_batch is not None:
            command += ["--opt-batch", self.request.opt_batch]
        if self.request.version_compatible:
            command.append("--version-compatible")
        variables = {"BUNDLE": "the folder of the bundle", "OUT": "the folder to write the amended bundle to"}
        inputs = {}
        if self.request.calibration is not None:
            command += ["--calibration", Variable("CALIBRATION")]
            variables["CALIBRATION"] = "the folder of the calibration set"
            inputs[Variable("CALIBRATION", CALIBRATION_FILE)] = sha256_of(self.request.calibration / CALIBRATION_FILE)
        origins = sorted({source.origin for source in prepared.values()})
        inputs |= {Variable("BUNDLE", file): sha256_of(self.amendment.folder / file) for file in origins}
        script = reproduce_script(
            command,
            variables=variables,
            inputs=inputs,
            tools={**tool_versions(), self.tensorrt.name: self.tensorrt.version},
        )
        (folder / SCRIPT_FILE).write_text(script, encoding="utf-8")


def _gpu(tensorrt: TensorRT) -> str | None:
    """The compute capability of this machine's GPU; None where there is none, or nothing to ask with."""
    try:
        return Cuda(EXTRAS[tensorrt.name]).compute_capability()
    except (EngineError, MissingPackageError):
        return None
