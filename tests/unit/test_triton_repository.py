"""The model repository as files: what Triton reads is what the manifest says, and nothing else is ever written."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import np_to_triton_dtype

import hero_export.triton
from hero_export.dry_run import plan_repository
from hero_export.triton import REPOSITORY_FILE, write_repository
from hero_sdk.errors import BundleError, HeroError, InputError
from hero_sdk.manifest import (
    CAPTIONING,
    QUESTION_ANSWERING,
    STATEMENTS,
    TASK_GRAPHS,
    Manifest,
    read_bundle,
    sha256_of,
)
from tests.integration.export.variants import add_plan, add_variant
from tests.tiny_bundle import seal, write_tiny_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "bundle", external_weights=True)


def read_config(folder: Path) -> model_config_pb2.ModelConfig:
    return text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("backend", ["python", "onnxruntime"])
def test_each_graph_is_a_model_with_the_tensors_of_the_manifest(bundle: Path, tmp_path: Path, backend: str) -> None:
    repository = write_repository(bundle, tmp_path / "repository", backend=backend, queue_delay=0.002)  # type: ignore[arg-type]
    for graph, spec in read_bundle(bundle).graphs.items():
        config = read_config(repository / f"hero_{graph}")
        assert config.name == f"hero_{graph}"
        assert config.max_batch_size == spec.max_batch
        assert config.dynamic_batching.max_queue_delay_microseconds == 2000
        assert [group.kind for group in config.instance_group] == [model_config_pb2.ModelInstanceGroup.KIND_CPU]
        assert config.version_policy.latest.num_versions == 1
        for served, tensors in ((config.input, spec.inputs), (config.output, spec.outputs)):
            assert [(tensor.name, tuple(tensor.dims)) for tensor in served] == [
                (tensor.name, tensor.shape[1:]) for tensor in tensors
            ]
            for found, tensor in zip(served, tensors, strict=True):
                assert (
                    model_config_pb2.DataType.Name(found.data_type)
                    == f"TYPE_{np_to_triton_dtype(np.dtype(tensor.dtype))}"
                )
        (warmup,) = config.model_warmup
        assert {name: tuple(value.dims) for name, value in warmup.inputs.items()} == {
            tensor.name: tensor.shape[1:] for tensor in spec.inputs
        }
        has_code = (repository / f"hero_{graph}" / "1" / "model.py").is_file()
        assert (config.backend, config.platform, has_code) == (
            ("python", "", True) if backend == "python" else ("", "onnxruntime_onnx", False)
        )


def test_the_repository_has_these_files(bundle: Path, tmp_path: Path) -> None:
    repository = write_repository(bundle, tmp_path / "repository")
    per_graph = ("config.pbtxt", "1/model.onnx", "1/model.py")
    expected = {
        f"hero_{graph}/{file}"
        for graph in ("frames", "cross_modal", "temporal", "query", "moment")
        for file in per_graph
    }
    expected |= {
        f"hero_bundle/{file}" for file in ("config.pbtxt", "1/model.py", "1/manifest.json", "1/tokenizer.json")
    }
    assert files_of(repository) == expected | {"hero_query/1/query.weights", REPOSITORY_FILE, "reproduce.sh"}
    script = (repository / "reproduce.sh").read_text(encoding="utf-8")
    command = 'hero-export triton "$BUNDLE" --out "$OUT" --backend python --device cpu --queue-delay 0.001'
    assert command in script
    assert f"{sha256_of(bundle / 'manifest.json')}  $BUNDLE/manifest.json" in script


@pytest.mark.parametrize("task", [QUESTION_ANSWERING, STATEMENTS, CAPTIONING])
def test_a_task_that_nothing_serves_yet_is_refused_with_what_is_missing(
    bundle: Path, tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_bundle(bundle)
    graphs = dict.fromkeys(TASK_GRAPHS[task], manifest.graphs["query"])
    # What reading a bundle finds wrong with such a one is not the question here.
    foreign = dataclasses.replace(manifest, task=task, moment=None, graphs=graphs)
    monkeypatch.setattr(hero_export.triton, "read_bundle", lambda bundle, require_signature: foreign)
    own = TASK_GRAPHS[task][3]
    with pytest.raises(BundleError, match=rf"is for {task}; expected a bundle for retrieval.*'{own}'.*hero_sdk\.load"):
        write_repository(bundle, tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


def test_every_graph_file_is_checked_against_the_manifest_by_the_server(bundle: Path, tmp_path: Path) -> None:
    repository = write_repository(bundle, tmp_path / "repository", threads=2)
    parameters = {key: value.string_value for key, value in read_config(repository / "hero_query").parameters.items()}
    assert parameters == {
        "fingerprint": "tiny-0",
        "sha256:model.onnx": sha256_of(bundle / "graphs" / "query.onnx"),
        "sha256:query.weights": sha256_of(bundle / "graphs" / "query.weights"),
        "threads": "2",
    }


def test_a_gpu_repository_asks_for_gpu_instances(bundle: Path, tmp_path: Path) -> None:
    repository = write_repository(bundle, tmp_path / "repository", backend="onnxruntime", device="gpu")
    (group,) = read_config(repository / "hero_query").instance_group
    assert group.kind == model_config_pb2.ModelInstanceGroup.KIND_GPU


def test_no_path_of_this_machine_is_written(bundle: Path, tmp_path: Path) -> None:
    repository = write_repository(bundle, tmp_path / "repository")
    for name in files_of(repository):
        assert str(tmp_path).encode() not in (repository / name).read_bytes()


def test_an_earlier_repository_is_replaced_as_a_whole(bundle: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()  # an empty folder is fine
    write_repository(bundle, repository)
    (repository / "hero_query" / "1" / "stray").touch()
    write_repository(write_tiny_bundle(tmp_path / "other", seed=1), repository)
    assert json.loads((repository / REPOSITORY_FILE).read_text())["fingerprint"] == "tiny-1"
    assert not (repository / "hero_query" / "1" / "stray").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "other", "repository"]


def test_anything_else_is_not_overwritten(bundle: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    for out in (mine, mine / "thesis.txt"):
        with pytest.raises(InputError, match=r"is not a model repository.*nothing was written"):
            write_repository(bundle, out)
    assert (mine / "thesis.txt").read_text() == "years of work"


def test_an_altered_bundle_is_refused_and_the_old_repository_stays(bundle: Path, tmp_path: Path) -> None:
    repository = write_repository(bundle, tmp_path / "repository")
    before = files_of(repository)
    with (bundle / "graphs" / "temporal.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=r"temporal\.onnx is not the file that was exported"):
        write_repository(bundle, repository)
    assert files_of(repository) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "repository"]


def renamed_graph(manifest: Manifest, name: str) -> Manifest:
    return dataclasses.replace(manifest, graphs={name: manifest.graphs["query"]})


@pytest.mark.parametrize("name", ["../../query", "bundle", "", "Query", "a/b"])
def test_a_graph_name_cannot_choose_a_folder(bundle: Path, tmp_path: Path, name: str) -> None:
    seal(bundle, renamed_graph(read_bundle(bundle), name))
    with pytest.raises(BundleError, match="a bundle for retrieval has"):
        write_repository(bundle, tmp_path / "repository")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle"]


def test_a_fingerprint_cannot_write_configuration(bundle: Path, tmp_path: Path) -> None:
    manifest = dataclasses.replace(read_bundle(bundle), fingerprint='x\nbackend: "evil"\n')
    seal(bundle, manifest)
    repository = write_repository(bundle, tmp_path / "repository")
    config = read_config(repository / "hero_query")
    assert config.backend == "python"
    assert config.parameters["fingerprint"].string_value == manifest.fingerprint


def test_weights_outside_the_manifest_are_refused(bundle: Path, tmp_path: Path) -> None:
    manifest = read_bundle(bundle)
    files = {name: file for name, file in manifest.files.items() if not name.endswith(".weights")}
    (bundle / "manifest.json").write_text(dataclasses.replace(manifest, files=files).to_json())
    with pytest.raises(BundleError, match=r"in 'query\.weights', which the manifest does not list"):
        write_repository(bundle, tmp_path / "repository")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((8, 10), "expected -1 for the batch and then fixed sizes"),
        ((-1,), r"query\.onnx has the tensors"),
        ((-1, -1), r"query\.onnx has the tensors"),
        ((), r"query\.onnx has the tensors"),
    ],
)
def test_a_shape_that_varies_beyond_the_batch_is_refused(
    bundle: Path, tmp_path: Path, shape: tuple[int, ...], message: str
) -> None:
    manifest = read_bundle(bundle)
    query = manifest.graphs["query"]
    inputs = (dataclasses.replace(query.inputs[0], shape=shape), *query.inputs[1:])
    seal(
        bundle,
        dataclasses.replace(manifest, graphs=manifest.graphs | {"query": dataclasses.replace(query, inputs=inputs)}),
    )
    with pytest.raises(BundleError, match=message):
        write_repository(bundle, tmp_path / "repository")


@pytest.mark.parametrize("arguments", [{"backend": "tensorrt"}, {"device": "tpu"}, {"queue_delay": -1}, {"threads": 0}])
def test_arguments_without_meaning_are_refused(bundle: Path, tmp_path: Path, arguments: dict) -> None:
    with pytest.raises(InputError, match="expected"):
        write_repository(bundle, tmp_path / "repository", **arguments)


def test_the_templates_are_found_in_an_installed_package(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Path(hero_export.triton.__file__).resolve()
    package = tmp_path / "site-packages" / "hero_export"
    package.mkdir(parents=True)
    monkeypatch.setattr(hero_export.triton, "__file__", str(package / "triton.py"))
    with pytest.raises(HeroError, match="templates of the model repository are missing"):
        write_repository(bundle, tmp_path / "repository")
    (package / "triton_repo").symlink_to(here.parents[2] / "triton_repo")
    assert write_repository(bundle, tmp_path / "repository").is_dir()


def renamed(source: Path, target: Path) -> None:
    """The same graph in another file."""
    model = onnx.load(source)
    model.producer_name = "someone else"
    onnx.save(model, target)


def test_a_variant_is_served_where_it_has_a_graph(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    name = add_variant(bundle, "fp16", renamed, graphs=("query", "temporal"))
    repository = write_repository(bundle, tmp_path / "repository", variant=name, threads=1)
    for graph in read_bundle(bundle).graphs:
        folder = "variants/onnxruntime-fp16" if graph in ("query", "temporal") else "graphs"
        expected = sha256_of(bundle / folder / f"{graph}.onnx")
        model = repository / f"hero_{graph}"
        assert sha256_of(model / "1" / "model.onnx") == expected
        assert read_config(model).parameters["sha256:model.onnx"].string_value == expected
    assert read_config(repository / "hero_bundle").parameters["variant"].string_value == name
    assert json.loads((repository / REPOSITORY_FILE).read_text())["variant"] == name
    assert f"--variant {name}" in (repository / "reproduce.sh").read_text()
    planned = plan_repository(bundle, tmp_path / "repository", variant=name)
    assert {file.path for file in planned.files} == files_of(repository)
    plain = write_repository(bundle, tmp_path / "plain")
    assert "variant" not in read_config(plain / "hero_bundle").parameters


def test_a_variant_that_the_models_cannot_run_is_refused(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    add_plan(bundle)
    add_variant(bundle, "bf16", renamed, graphs=("query",))
    for name, message in (
        ("tensorrt_rtx-fp16-sm86", r"is for tensorrt_rtx, and .*expected one of \['onnxruntime-bf16'\]"),
        ("onnxruntime-bf16", "no kernels on a CPU in onnxruntime; expected --device gpu"),
        ("onnxruntime-int8", "has no variant 'onnxruntime-int8'"),
    ):
        for act in (write_repository, plan_repository):
            with pytest.raises(InputError, match=message):
                act(bundle, tmp_path / "repository", variant=name)
    assert not (tmp_path / "repository").exists()
    assert write_repository(bundle, tmp_path / "repository", variant="onnxruntime-bf16", device="gpu").is_dir()
