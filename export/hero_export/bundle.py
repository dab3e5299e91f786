"""``hero-export onnx``: from a checkpoint to a verified bundle, or to an error and nothing on the disk."""

from __future__ import annotations

import shutil
from pathlib import Path

from hero_export.cases import CaseMaker
from hero_export.destination import check_destination, staged
from hero_export.errors import ExportError
from hero_export.export_script import REPORT_SCRIPT, export_script
from hero_export.fusion import (
    check_fusion,
    expected_counts,
    fused_counts,
    graph_bytes,
    model_nodes,
    operator_counts,
    read_model,
)
from hero_export.geometry import DEFAULT_MAX_BATCH, check_geometry
from hero_export.graphs import BATCH, Graph, model_graphs
from hero_export.onnx_export import export_graph
from hero_export.report import REPORT_JSON, REPORT_TEXT, CaseResult, ExportReport, GraphReport, tool_versions
from hero_export.sources import Sources, find_sources
from hero_export.verify import (
    MAX_RELATIVE_ERROR,
    MIN_COSINE,
    GraphRunner,
    check_frame_graph,
    require_passed,
    verify_graph,
    verify_whole_path,
)
from hero_sdk.frame_encoder import GRAPH_FILE, INPUT, MAX_BATCH, OUTPUT, SPEC_FILE
from hero_sdk.hub import Stage
from hero_sdk.manifest import (
    CROSS_MODAL_GRAPH,
    FRAME_GRAPH,
    MANIFEST_FILE,
    TEMPORAL_GRAPH,
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
from hero_train.model.hero import HeroModel

TASK = "vcmr"
PRECISION = "fp32"


def export_bundle(
    checkpoint: str | Path,
    out: Path,
    *,
    geometry: RowGeometry | None = None,
    max_batch: int = DEFAULT_MAX_BATCH,
    tokenizer: Path | None = None,
    frame_encoder: Path | None = None,
    force: bool = False,
    on_stage: Stage | None = None,
) -> ExportReport:
    """Export a checkpoint.

    Args:
        checkpoint: a folder with ``config.json``, ``model.safetensors``, and, unless given below, ``tokenizer.json`` and
            ``frame_encoder/``; or the hub id of one.
        out: the bundle's folder. It appears when everything has passed, and not before.
        geometry: shapes of the rows; None takes the defaults of ``RowGeometry``.
        max_batch: the largest batch that is verified; callers cut larger ones.
        tokenizer: another tokenizer file, or a folder with one.
        frame_encoder: another frame encoder's folder.
        force: replace a bundle that is at ``out``.
        on_stage: told about each stage as it begins.

    Returns:
        The report that lies in the bundle.

    Raises:
        ExportError: a part is missing, ``out`` is taken or cannot be written, the weights are not finite, or torch cannot
            export the model.
        GeometryError: row shapes that the model cannot serve.
        FusionError: a graph lacks a fused operator.
        VerificationError: a graph does not compute what the model computes.
        FingerprintError: a tokenizer or frame encoder that the model was not trained with.
        CheckpointError, ConfigError, BundleError: a part that cannot be read.
    """
    begin: Stage = on_stage or (lambda stage: None)
    geometry = geometry or RowGeometry()
    check_destination(out, force=force)
    begin("Reading the checkpoint")
    sources = find_sources(checkpoint, tokenizer=tokenizer, frame_encoder=frame_encoder)
    check_geometry(geometry, sources.config, max_batch)
    model = load_model(sources)
    graphs = model_graphs(model, geometry)
    fingerprint = sources.fingerprint()
    with staged(out, force=force) as folder:
        begin("Copying the tokenizer and the frame encoder")
        specs = {FRAME_GRAPH: _copy_parts(sources, folder)}
        expected = expected_counts(sources.config)
        (folder / "graphs").mkdir()
        for graph in graphs:
            begin(f"Exporting {graph.name}")
            export_graph(graph, folder / graph.file)
            fused = check_fusion(graph.name, model_nodes(read_model(folder / graph.file)), expected[graph.name])
            specs[graph.name] = GraphSpec(graph.file, PRECISION, max_batch, graph.inputs, graph.outputs, fused)
        cases = _verify(folder, specs, graphs, model, geometry, max_batch, begin)
        report = ExportReport(
            fingerprint=fingerprint,
            tolerances={"max_relative_error": MAX_RELATIVE_ERROR, "min_cosine": MIN_COSINE},
            graphs=tuple(_graph_report(folder, name, spec, expected.get(name, {})) for name, spec in specs.items()),
            cases=tuple(cases),
            tools=tool_versions(),
        )
        begin("Writing the report and the manifest")
        (folder / "reports").mkdir()
        (folder / REPORT_JSON).write_text(report.to_json(), encoding="utf-8")
        (folder / REPORT_TEXT).write_text(report.to_markdown(), encoding="utf-8")
        own_parts = {"own_tokenizer": tokenizer is not None, "own_frame_encoder": frame_encoder is not None}
        script = export_script(sources, {**vars(geometry), "max_batch": max_batch}, **own_parts)
        (folder / REPORT_SCRIPT).write_text(script, encoding="utf-8")
        manifest = _manifest(sources, model, fingerprint, geometry, specs, folder)
        (folder / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
        read_bundle(folder)
    return report


def load_model(sources: Sources) -> HeroModel:
    """The model of a checkpoint.

    Raises:
        CheckpointError: it cannot be read.
        ExportError: its weights are not finite.
    """
    model = HeroModel.from_pretrained(sources.checkpoint)
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
    folder: Path,
    specs: dict[str, GraphSpec],
    graphs: tuple[Graph, ...],
    model: HeroModel,
    geometry: RowGeometry,
    max_batch: int,
    begin: Stage,
) -> list[CaseResult]:
    begin("Running the frame encoder")
    check_frame_graph(GraphRunner(FRAME_GRAPH, folder / specs[FRAME_GRAPH].file, specs[FRAME_GRAPH]))
    maker = CaseMaker(model.config, geometry, max_batch)
    grid = maker.graph_cases()
    runners: dict[str, GraphRunner] = {}
    results: list[CaseResult] = []
    for graph in graphs:
        begin(f"Comparing {graph.name} with the model")
        runner = runners[graph.name] = GraphRunner(graph.name, folder / graph.file, specs[graph.name])
        results += verify_graph(runner, graph.module, [case for case in grid if case.graph == graph.name])
    begin("Comparing the whole path with the model")
    videos = maker.whole_path_cases()
    results += verify_whole_path(runners[CROSS_MODAL_GRAPH], runners[TEMPORAL_GRAPH], model, videos, geometry)
    require_passed(results)
    return results


def _graph_report(folder: Path, name: str, spec: GraphSpec, expected: dict[str, int]) -> GraphReport:
    path = folder / spec.file
    model = read_model(path)
    return GraphReport(
        name=name,
        file=spec.file,
        bytes=graph_bytes(path, model),
        precision=spec.precision,
        max_batch=spec.max_batch,
        fused=spec.fused,
        expected=expected,
        operators=operator_counts(model_nodes(model)),
    )


def _manifest(
    sources: Sources,
    model: HeroModel,
    fingerprint: str,
    geometry: RowGeometry,
    specs: dict[str, GraphSpec],
    folder: Path,
) -> Manifest:
    config = sources.config
    return Manifest(
        task=TASK,
        fingerprint=fingerprint,
        model=ModelSpec(
            feature_dim=config.feature_dim,
            hidden_size=config.hidden_size,
            clip_interval=config.clip_interval,
            clip_limit=config.clip_limit,
            subtitle_context=config.subtitle_context,
        ),
        geometry=geometry,
        moment=model.moment_spec(),
        tokenizer=TOKENIZER_FILE,
        frame_encoder=sources.frames,
        graphs=specs,
        files={
            path.relative_to(folder).as_posix(): FileSpec(sha256_of(path), path.stat().st_size)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
        tools=tool_versions(),
    )
