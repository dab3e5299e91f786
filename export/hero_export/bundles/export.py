"""``hero-export onnx``: from a checkpoint to a verified bundle, or to an error and nothing on the disk."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hero_export.bundles.destination import check_destination, staged
from hero_export.bundles.export_script import REPORT_SCRIPT, export_script
from hero_export.bundles.sources import Sources, find_sources
from hero_export.errors import ExportError
from hero_export.onnx.forms import Choice, Written, write_graph
from hero_export.onnx.fusion import graph_bytes, model_nodes, operator_counts, read_model
from hero_export.onnx.graphs import BATCH, Graph, graphs_of
from hero_export.onnx.operators import fused_counts
from hero_export.report import REPORT_JSON, REPORT_TEXT, CaseResult, ExportReport, GraphReport, tool_versions
from hero_export.rows.geometry import (
    DEFAULT_ANSWERS,
    DEFAULT_CAPTION_TOKENS,
    DEFAULT_MAX_BATCH,
    check_geometry,
    check_limits,
    row_geometry,
)
from hero_export.stage_costs import StageClock
from hero_export.tolerances import MAX_RELATIVE_ERROR, MIN_COSINE
from hero_export.verification.cases import CaseMaker
from hero_export.verification.comparison import GraphRunner, check_frame_graph, require_passed, verify_graph
from hero_export.verification.paths import RunnerGraphs, verify_moment_head, verify_paths
from hero_sdk.frame_encoder import GRAPH_FILE, INPUT, MAX_BATCH, OUTPUT, SPEC_FILE
from hero_sdk.hub import Stage
from hero_sdk.manifest import (
    FRAME_GRAPH,
    MANIFEST_FILE,
    MOMENT_GRAPH,
    FileSpec,
    GraphSpec,
    Manifest,
    ModelSpec,
    TensorSpec,
    read_bundle,
    sha256_of,
)
from hero_sdk.rows import RowGeometry
from hero_train.checkpoint import FRAME_ENCODER_FOLDER, TOKENIZER_FILE
from hero_train.config import HeroConfig
from hero_train.model.hero import HeroEncoders, HeroModel
from hero_train.model.pretraining import HeroForPretraining
from hero_train.model.tasks import task_of

PRECISION = "fp32"


def export_bundle(
    checkpoint: str | Path,
    out: Path,
    *,
    geometry: RowGeometry | Callable[[HeroConfig], RowGeometry] = row_geometry,
    max_batch: int = DEFAULT_MAX_BATCH,
    answers: int = DEFAULT_ANSWERS,
    caption_tokens: int = DEFAULT_CAPTION_TOKENS,
    operators: Choice = "standard",
    tokenizer: Path | None = None,
    frame_encoder: Path | None = None,
    force: bool = False,
    on_stage: Stage | None = None,
) -> ExportReport:
    """Export a checkpoint of any task.

    Args:
        checkpoint: a folder with ``config.json``, ``model.safetensors``, and, unless given below, ``tokenizer.json`` and
            ``frame_encoder/``; or the hub id of one.
        out: the bundle's folder. It appears when everything has passed, and not before.
        geometry: shapes of the rows, or what chooses them for a model.
        max_batch: the largest batch that is verified; callers cut larger ones.
        answers: most answers of a question (question answering).
        caption_tokens: most tokens of a caption, its end included (captioning).
        operators: the fused operators of the graphs: "standard" for those of the ONNX standard, "onnxruntime" for ONNX Runtime's
            own, "auto" for what runs faster on this machine, graph by graph.
        tokenizer: another tokenizer file, or a folder with one.
        frame_encoder: another frame encoder's folder.
        force: replace a bundle that is at ``out``.
        on_stage: told about each stage as it begins.

    Returns:
        The report that lies in the bundle, and what each stage cost.

    Raises:
        ExportError: a part is missing, ``out`` is taken or cannot be written, the weights are not finite, or torch cannot
            export the model.
        GeometryError: row shapes or limits that the model cannot serve.
        FusionError: a graph lacks a fused operator.
        VerificationError: a graph does not compute what the model computes.
        FingerprintError: a tokenizer or frame encoder that the model was not trained with.
        CheckpointError, ConfigError, BundleError: a part that cannot be read.
    """
    begin = StageClock(on_stage)
    check_destination(out, force=force)
    begin("Reading the checkpoint")
    sources = find_sources(checkpoint, tokenizer=tokenizer, frame_encoder=frame_encoder)
    if callable(geometry):
        geometry = geometry(sources.config)
    check_geometry(geometry, sources.config, max_batch)
    check_limits(sources.config, answers, caption_tokens)
    model = load_model(sources)
    graphs = graphs_of(model, geometry, answers=answers, caption_tokens=caption_tokens)
    maker = CaseMaker(sources.config, geometry, max_batch)
    fingerprint = sources.fingerprint()
    with staged(out, force=force) as folder:
        begin("Copying the tokenizer and the frame encoder")
        specs = {FRAME_GRAPH: _copy_parts(sources, folder)}
        (folder / "graphs").mkdir()
        written: dict[str, Written] = {}
        for graph in graphs.values():
            begin(f"Exporting {graph.name}")
            done = written[graph.name] = write_graph(
                graph, folder, operators, max_batch, partial(maker.cases_of, graph)
            )
            specs[graph.name] = GraphSpec(graph.file, PRECISION, max_batch, graph.inputs, graph.outputs, done.fused)
        manifest = _manifest(sources, model, fingerprint, geometry, specs)
        cases = _verify(folder, manifest, graphs, model, maker, begin)
        report = ExportReport(
            fingerprint=fingerprint,
            tolerances={"max_relative_error": MAX_RELATIVE_ERROR, "min_cosine": MIN_COSINE},
            graphs=tuple(_graph_report(folder, name, spec, written.get(name)) for name, spec in specs.items()),
            cases=tuple(cases),
            tools=tool_versions(),
            speed=tuple(one for done in written.values() for one in done.speed),
        )
        begin("Writing the report and the manifest")
        (folder / "reports").mkdir()
        (folder / REPORT_JSON).write_text(report.to_json(), encoding="utf-8")
        (folder / REPORT_TEXT).write_text(report.to_markdown(), encoding="utf-8")
        own_parts = {"own_tokenizer": tokenizer is not None, "own_frame_encoder": frame_encoder is not None}
        options = {
            **vars(geometry),
            "max_batch": max_batch,
            "answers": answers,
            "caption_tokens": caption_tokens,
            "operators": operators,
        }
        (folder / REPORT_SCRIPT).write_text(export_script(sources, options, **own_parts), encoding="utf-8")
        manifest = dataclasses.replace(manifest, files=_files(folder))
        (folder / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
        read_bundle(folder)
    # Not in the bundle, which has the same bytes when it is made again.
    return dataclasses.replace(report, stages=begin.costs())


def load_model(sources: Sources) -> HeroEncoders:
    """The model of a checkpoint; of one for pre-training what retrieval needs.

    Raises:
        CheckpointError: it cannot be read.
        ExportError: its weights are not finite.
    """
    model = sources.model_class.from_pretrained(sources.checkpoint)
    if isinstance(model, HeroForPretraining):
        model = model.retrieval_model()
    if broken := [name for name, weight in model.state_dict().items() if not weight.isfinite().all()]:
        raise ExportError(
            f"{sources.checkpoint} has weights with values that are not finite: {broken[:5]} ({len(broken)} in all). "
            "Its training diverged; export an earlier checkpoint."
        )
    return model


def _copy_parts(sources: Sources, folder: Path) -> GraphSpec:
    """Copy the tokenizer and the frame encoder; returns the frame encoder's graph."""
    shutil.copyfile(sources.tokenizer, folder / TOKENIZER_FILE)
    target = folder / FRAME_ENCODER_FOLDER
    target.mkdir()
    # Both files under their own names: the folder in the bundle is a frame encoder like any other.
    for name in (GRAPH_FILE, SPEC_FILE):
        shutil.copyfile(sources.frame_encoder / name, target / name)
    spec = sources.frames
    return GraphSpec(
        file=f"{FRAME_ENCODER_FOLDER}/{GRAPH_FILE}",
        precision=PRECISION,
        max_batch=MAX_BATCH,
        inputs=(TensorSpec(INPUT, "uint8", (BATCH, spec.image_size, spec.image_size, 3)),),
        outputs=(TensorSpec(OUTPUT, "float32", (BATCH, spec.feature_dim)),),
        fused=fused_counts(operator_counts(model_nodes(read_model(target / GRAPH_FILE)))),
    )


def _verify(
    folder: Path, manifest: Manifest, graphs: dict[str, Graph], model: HeroEncoders, maker: CaseMaker, begin: Stage
) -> list[CaseResult]:
    begin("Running the frame encoder")
    frames = manifest.graphs[FRAME_GRAPH]
    check_frame_graph(GraphRunner(FRAME_GRAPH, folder / frames.file, frames))
    runners: dict[str, GraphRunner] = {}
    results: list[CaseResult] = []
    for graph in graphs.values():
        begin(f"Comparing {graph.name} with the model")
        runner = runners[graph.name] = GraphRunner(graph.name, folder / graph.file, manifest.graphs[graph.name])
        cases = maker.cases_of(graph)
        results += verify_graph(runner, graph.module, cases)
        if graph.name == MOMENT_GRAPH:
            results += verify_moment_head(runner, manifest, cases)
    begin("Comparing the whole path with the model")
    results += verify_paths(RunnerGraphs(manifest, runners), model, maker)
    require_passed(results)
    return results


def _graph_report(folder: Path, name: str, spec: GraphSpec, written: Written | None) -> GraphReport:
    path = folder / spec.file
    model = read_model(path)
    return GraphReport(
        name=name,
        file=spec.file,
        bytes=graph_bytes(path, model),
        precision=spec.precision,
        max_batch=spec.max_batch,
        fused=spec.fused,
        expected={} if written is None else written.expected,
        operators=operator_counts(model_nodes(model)),
    )


def _manifest(
    sources: Sources, model: HeroEncoders, fingerprint: str, geometry: RowGeometry, specs: dict[str, GraphSpec]
) -> Manifest:
    """The manifest, but for its files."""
    config = sources.config
    return Manifest(
        task=task_of(model),
        fingerprint=fingerprint,
        model=ModelSpec(
            feature_dim=config.feature_dim,
            hidden_size=config.hidden_size,
            clip_interval=config.clip_interval,
            clip_limit=config.clip_limit,
            subtitle_context=config.subtitle_context,
        ),
        geometry=geometry,
        moment=model.moment_spec() if isinstance(model, HeroModel) else None,
        tokenizer=TOKENIZER_FILE,
        frame_encoder=sources.frames,
        graphs=specs,
        files={},
        tools=tool_versions(),
    )


def _files(folder: Path) -> dict[str, FileSpec]:
    return {
        path.relative_to(folder).as_posix(): FileSpec(sha256_of(path), path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
