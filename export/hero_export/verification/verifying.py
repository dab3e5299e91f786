"""``hero-export verify``: files, numbers, then the task, for the bundle's own graphs and for each of its variants."""

from __future__ import annotations

import dataclasses
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hero_export.errors import BudgetError, VerificationError
from hero_export.onnx.graphs import graphs_of
from hero_export.precision.recording import RecordingEngine
from hero_export.report import tool_versions
from hero_export.reproduce import Word
from hero_export.stage_costs import StageClock
from hero_export.tolerances import FP32, TOLERANCES, tolerance_of
from hero_export.verification.artefacts import check_artefacts
from hero_export.verification.cases import CaseMaker
from hero_export.verification.grid import Grid, compare_grid, compare_paths
from hero_export.verification.head_cases import Case
from hero_export.verification.latency import call_latencies, graph_latencies
from hero_export.verification.layers import layer_errors
from hero_export.verification.model import bundle_limits, load_bundle_model
from hero_export.verification.replay import save_worst, torch_threads
from hero_export.verification.report import (
    BASE,
    ArtefactCheck,
    MetricResult,
    VariantResult,
    VerificationReport,
    WorstInput,
)
from hero_export.verification.rows import KEPT, real_cases
from hero_export.verification.task import load_split
from hero_export.verification.variants import NotRun, Opened, open_variant
from hero_sdk.hub import Stage
from hero_sdk.manifest import Manifest, read_bundle
from hero_sdk.signature import PublicKeys
from hero_sdk.variants import ONNXRUNTIME
from hero_train.run_config import BaseRunConfig, Split

INPUTS_FOLDER = "inputs"


@dataclass(frozen=True)
class Options:
    """How a bundle is verified.

    Attributes:
        variants: names in the manifest; None takes all. The bundle's own graphs are always verified.
        budget: points that a variant below fp32 may lose of each metric; None takes its precision's.
        split: of the data; None takes the test split, or else the validation split.
        sample: annotations at most, evenly over the split; None takes all.
        threads: of each engine and of PyTorch.
        latency: whether to time the variants.
    """

    variants: Sequence[str] | None = None
    budget: float | None = None
    split: Split | None = None
    sample: int | None = None
    threads: int = 1
    latency: bool = True

    def words(self) -> list[Word]:
        """As options of the command."""
        named = {"budget": self.budget, "split": self.split, "sample": self.sample, "threads": self.threads}
        words: list[Word] = [word for name in self.variants or () for word in ("--variant", name)]
        words += [word for name, value in named.items() if value is not None for word in (f"--{name}", value)]
        return [*words, "--latency" if self.latency else "--no-latency"]


def verify_bundle(
    bundle: Path,
    checkpoint: str | Path,
    folder: Path,
    config: BaseRunConfig | None = None,
    options: Options | None = None,
    *,
    require_signature: PublicKeys | None = None,
    on_stage: Stage | None = None,
) -> VerificationReport:
    """Verify a bundle and keep the worst inputs. Whether it passed stands in the report; see ``require_verified``.

    Args:
        bundle: the folder.
        checkpoint: that it was made from, a folder or a hub id.
        folder: an empty one that the worst inputs are kept in.
        config: of the run that trained the model, whose data the task is judged on; None judges no task.
        options: None takes the defaults.
        require_signature: public keys of which one must have signed the bundle; None asks for no signature.
        on_stage: told about each stage as it begins.

    Raises:
        BundleError, SignatureError: the bundle is incomplete or altered, or nobody trusted signed it.
        FingerprintError: it was made from another checkpoint.
        InputError: no such variant.
        ExportError: a run of another task, or without the split.
        CheckpointError, DataError: a checkpoint or data that cannot be read.
    """
    options = options or Options()
    begin = StageClock(on_stage)
    begin("Reading the bundle and the checkpoint")
    manifest = read_bundle(bundle, require_signature=require_signature)
    chosen = list(manifest.variants if options.variants is None else options.variants)
    for name in chosen:
        manifest.variant(name)
    model = load_bundle_model(bundle, manifest, checkpoint)
    graphs = graphs_of(model, manifest.geometry, **bundle_limits(manifest))
    begin("Checking the files: ONNX's checker and shape inference, fused operators, precision")
    checks = check_artefacts(bundle, manifest, chosen, graphs)
    with torch_threads(options.threads):
        begin("Opening the variants")
        tried = {name: open_variant(bundle, manifest, name, options.threads) for name in (BASE, *chosen)}
        if isinstance(base := tried[BASE], NotRun):
            raise VerificationError(f"The bundle's own graphs do not run: {base.why}")
        opened = {name: one for name, one in tried.items() if isinstance(one, Opened)}
        max_batch = max(spec.max_batch for name, spec in manifest.graphs.items() if name in graphs)
        maker = CaseMaker(model.config, manifest.geometry, max_batch)
        metrics: list[MetricResult] = []
        real: dict[str, Case] = {}
        absent: dict[str, str] = {}
        split = chosen_split = torch_scores = None
        if config is None:
            absent["task"] = "no run was named with --data, so no task was judged"
        else:
            begin("Reading the split")
            split, chosen_split = load_split(
                config,
                Path(checkpoint),
                base.engine,
                split=options.split,
                most=options.sample,
                limit=bundle_limits(manifest)["caption_tokens"],
            )
            begin(f"Judging PyTorch on the {chosen_split} split")
            torch_scores = split.score(split.model)
            absent |= torch_scores.absent
            begin(f"Judging {BASE} on the {chosen_split} split")
            recorded = RecordingEngine(base.engine, KEPT, seed=0)
            metrics += split.compare(torch_scores, split.score(recorded), BASE, budget_of(base.precision, options))
            real = real_cases(recorded)
        grid = compare_grid(opened, graphs, maker, real, begin)
        begin("Comparing the whole path with the model")
        compare_paths(grid, opened, model, maker)
        whole = {name: one for name, one in opened.items() if not any(name == key for key, _ in grid.broken)}
        for name, one in whole.items():
            if split is not None and torch_scores is not None and name != BASE:
                begin(f"Judging {name} on the {chosen_split} split")
                metrics += split.compare(torch_scores, split.score(one.engine), name, budget_of(one.precision, options))
        begin("Looking for the layers that the errors come from")
        typical = {name: real.get(name) or maker.cases_of(graph)[0] for name, graph in graphs.items()}
        layers, without = layer_errors(bundle, whole, graphs, typical, options.threads)
        absent |= without
        latencies = []
        if options.latency:
            begin("Timing")
            latencies = graph_latencies(whole, typical, max_batch)
            if split is not None:
                latencies += call_latencies(whole, split)
        begin("Keeping the worst inputs")
        worst = _keep_worst(grid, folder, manifest, options.threads)
    report = VerificationReport(
        bundle=bundle.absolute().name,
        task=manifest.task,
        fingerprint=manifest.fingerprint,
        split=chosen_split,
        sample=options.sample,
        threads=options.threads,
        tools=tool_versions(),
        machine=_machine(),
        tolerances={name: dataclasses.asdict(one) for name, one in TOLERANCES.items()},
        variants=(),
        checks=tuple(checks),
        cases=tuple(grid.cases),
        worst=tuple(worst),
        layers=tuple(layers),
        metrics=tuple(metrics),
        latencies=tuple(latencies),
        stages=begin.costs(),
        absent=absent,
    )
    results = [_result(name, one, manifest, grid, checks, metrics) for name, one in tried.items()]
    return dataclasses.replace(report, variants=tuple(results))


def budget_of(precision: str, options: Options) -> float:
    """Points that a variant may lose. That of fp32 stands: it computes the same numbers."""
    own = tolerance_of(precision)
    return own.budget if own is FP32 or options.budget is None else options.budget


def _keep_worst(grid: Grid, folder: Path, manifest: Manifest, threads: int) -> list[WorstInput]:
    (folder / INPUTS_FOLDER).mkdir()
    kept = []
    for (variant, graph), (case, largest) in grid.worst.items():
        result = largest.result
        file = f"{INPUTS_FOLDER}/{variant}-{graph}.safetensors"
        save_worst(folder / file, case, result, variant=variant, fingerprint=manifest.fingerprint, threads=threads)
        kept.append(
            WorstInput(variant, graph, result.output, result.case, file, result.max_error, result.required_tolerance)
        )
    return kept


def _result(
    name: str,
    tried: Opened | NotRun,
    manifest: Manifest,
    grid: Grid,
    checks: list[ArtefactCheck],
    metrics: list[MetricResult],
) -> VariantResult:
    variant = None if name == BASE else manifest.variants[name]
    products: Counter[str] = Counter()
    for graph in () if variant is None else variant.graphs.values():
        products.update(graph.products)
    prefix = "graphs/" if variant is None else f"variants/{name}/"
    problems = [
        f"{check.check} says of {check.file}: {check.problem}"
        for check in checks
        if check.variant == name and check.problem is not None
    ]
    if isinstance(tried, NotRun) and tried.wrong:
        problems.append(f"it does not run: {tried.why}")
    problems += [why for (owner, _), why in grid.broken.items() if owner == name]
    failed = [case.result for case in grid.cases if case.variant == name and not case.result.passed]
    if failed:
        compared = sum(case.variant == name for case in grid.cases)
        worst = max(failed, key=lambda result: result.relative_error if result.finite else float("inf"))
        problems.append(
            f"{len(failed)} of {compared} comparisons with the model failed, the worst {worst.graph} -> {worst.output}, "
            f"{worst.case}: max error {worst.max_error:.2e} of scale {worst.scale:.2e}, cosine {worst.cosine:.6f}"
            f"{'' if worst.finite else ', not finite'}"
        )
    problems += [
        f"{metric.metric} loses {metric.loss:.2f} points, from {100 * metric.torch:.2f} to {100 * metric.found:.2f}; the budget is "
        f"{metric.budget:g}"
        for metric in metrics
        if metric.variant == name and not metric.passed
    ]
    return VariantResult(
        name=name,
        engine=ONNXRUNTIME if variant is None else variant.engine,
        precision="fp32" if variant is None else variant.precision,
        target=None if variant is None else variant.target,
        products=dict(products),
        bytes=sum(spec.bytes for file, spec in manifest.files.items() if file.startswith(prefix)),
        not_run=tried.why if isinstance(tried, NotRun) else None,
        problems=tuple(problems),
    )


def _machine() -> str:
    """The processor, as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def require_verified(report: VerificationReport, where: Path) -> None:
    """Refuse a bundle that did not pass.

    Args:
        report: of ``verify_bundle``.
        where: the report's folder, for the message.

    Raises:
        BudgetError: the only thing wrong is that a variant loses more of its task than its budget.
        VerificationError: anything else is wrong.
    """
    if report.passed:
        return
    lines = [f"  {variant.name}: {problem}" for variant in report.variants for problem in variant.problems]
    over = len(report.over_budget)
    kind = BudgetError if over == len(lines) else VerificationError
    advice = (
        "Keep more layers in a higher precision, calibrate on more data, or state another --budget."
        if kind is BudgetError
        else "`hero-export replay` runs the worst inputs again; make the variant again, or leave it out of the bundle."
    )
    raise kind(
        f"{report.bundle} is not verified; expected every variant within the tolerances and the budget of its precision:\n"
        + "\n".join(lines)
        + f"\nThe report is in {where}. {advice}"
    )
