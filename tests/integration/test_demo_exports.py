"""The demo of exports, small: each step by the command that a user would type, on a model that nobody trained."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from demo import exports
from demo.exports import Plan
from demo.exports_document import document, write_document
from demo.shell import DemoError, Shell
from hero_export.exit_codes import ExitCode
from hero_train.run_config import load_config
from tests.tiny_checkpoint import CONFIG, GEOMETRY, make_task_model, write_frame_encoder, write_model
from tests.tiny_training import load_run, write_training_set

ROOT = Path(__file__).parents[2]

SHAPES = (
    *("--slots", str(GEOMETRY.slots), "--frames", str(GEOMETRY.frames)),
    *("--query-tokens", str(GEOMETRY.query_tokens), "--max-batch", "2", "--caption-tokens", "10"),
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `python -m demo.tasks` leaves of one task."""
    work = tmp_path_factory.mktemp("demo")
    write_training_set(work)
    write_frame_encoder(work / "encoder", CONFIG.feature_dim)
    write_model(work / "statements" / "checkpoint", make_task_model("statements"))
    config = load_run(work, "statements")
    (work / "statements" / "config.yaml").write_text(config.dump(), encoding="utf-8")
    return work


class Commands(Shell):
    """Runs commands of this environment in the way that this very test was run."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True), ROOT)


@pytest.mark.slow  # Six commands, each a process that imports torch, and an export: half a minute together.
def test_a_task_is_exported_quantised_and_verified_by_commands(work: Path) -> None:
    plan = Plan(onnxruntime=("fp16", "int8"), openvino=(), targets=(), shapes=SHAPES, episodes=None)
    costs = json.loads(exports.run(work, ["statements"], plan, Commands()).read_text(encoding="utf-8"))
    names = [step["name"] for step in costs["statements"]]
    assert names[:4] == ["export", "calibrate", "onnxruntime", "verify"]
    assert all(step["seconds"] > 0 and step["peak_bytes"] > 50e6 for step in costs["statements"])
    report = json.loads((work / "exports" / "statements" / "report" / "report.json").read_text(encoding="utf-8"))
    assert report["passed"]
    assert [one["name"] for one in report["variants"]] == ["base", "onnxruntime-fp16", "onnxruntime-int8"]
    page = write_document(work, work / "export.md").read_text(encoding="utf-8")
    assert "## Statements" in page
    assert "| onnxruntime-int8 |" in page
    assert "| statements | verify |" in page
    with pytest.raises(DemoError, match="no checkpoint of captions; run `make train-demo` first"):
        exports.run(work, ["captions"], plan, Commands())


def test_what_a_precision_loses_too_much_of_is_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands are noted and not run; the first verification finds a variant over its budget, and one that may be."""
    ran: list[list[str]] = []

    class Noting(Commands):
        def measure(self, *command: str | Path, expect: object = (0,), quiet: bool = False) -> exports.Finished:
            words = [str(word) for word in command]
            ran.append(words)
            first = words[1] == "verify" and not any(one[1] == "mix" for one in ran)
            if first:
                folder = Path(words[words.index("--report") + 1])
                folder.mkdir(parents=True)
                metrics = [
                    {"variant": "openvino-int8", "passed": False, "budget": 1.0, "high": 3.0},
                    {"variant": "onnxruntime-int8", "passed": True, "budget": 1.0, "high": 1.0},
                    {"variant": "onnxruntime-fp16", "passed": True, "budget": 0.5, "high": None},
                    {"variant": "onnxruntime-fp16", "passed": True, "budget": None, "high": 7.0},
                    {"variant": "openvino-bf16", "passed": True, "budget": 0.5, "high": 0.6},
                    {"variant": "openvino-fp32", "passed": True, "budget": 0.1, "high": 0.2},
                ]
                (folder / "report.json").write_text(json.dumps({"metrics": metrics}))
            return exports.Finished(ExitCode.BUDGET if first else 0, "", 1.5, 10**8)

    held_out = tmp_path / "held-out.yaml"
    steps = exports.export_task(tmp_path / "questions", held_out, tmp_path / "out", Plan(), Noting())
    assert [step.name for step in steps] == [
        *("export", "calibrate", "onnxruntime", "openvino", "tensorrt", "verify"),
        *("mix openvino-int8", "mix openvino-bf16", "verify again"),
    ]
    by_name = {step.name: words for step, words in zip(steps, ran, strict=True)}
    assert by_name["tensorrt"].count("--target") == 4
    assert by_name["openvino"][:3] == ["hero-export", "openvino", str(tmp_path / "out" / "bundle")]
    for precision in ("int8", "bf16"):
        engine = ("--engine", "openvino", "--precision", precision)
        assert by_name[f"mix openvino-{precision}"][:7] == ["hero-export", "mix", *by_name["openvino"][2:3], *engine]
    assert "--calibration" in by_name["onnxruntime"]
    for name, words in by_name.items():
        data = words[words.index("--data") + 1] if "--data" in words else None
        judged = name in ("verify", "verify again", "mix openvino-int8", "mix openvino-bf16")
        calibrated = tmp_path / "questions" / "config.yaml"
        assert data == (str(held_out) if judged else str(calibrated) if name == "calibrate" else None), name


def test_precisions_are_judged_on_episodes_of_their_own(work: Path) -> None:
    """By the seed of the training episodes, which are not made again; what is not about data stays as it was."""
    made: list[list[str]] = []

    class Making(Commands):
        def run(self, *command: str | Path, expect: int = 0) -> str:
            made.append([str(word) for word in command])
            return ""

    with pytest.raises(DemoError, match=r"no toontv/corpus\.json.*Run that again"):
        exports.hold_out("statements", work, (0, 5, 6), Making())
    (work / "toontv").mkdir()
    (work / "toontv" / "corpus.json").write_text('{"seed": 11}', encoding="utf-8")
    found = load_config(exports.hold_out("statements", work, (0, 5, 6), Making()))
    assert made == [
        [*("python", "-m", "demo.toontv", str(work / "held-out" / "toontv")),
         *("--train", "0", "--val", "5", "--test", "6", "--seed", "11")]
    ]  # fmt: skip
    trained = load_config(work / "statements" / "config.yaml")
    assert found.data.test == work / "held-out" / "toontv" / "annotations" / "statements_test.jsonl"
    assert found.data.validation == work / "held-out" / "toontv" / "annotations" / "statements_val.jsonl"
    assert found.data.videos == work / "held-out" / "toontv" / "videos"
    assert found.data.features == work / "held-out" / "features"
    assert found.data.train == trained.data.train
    assert found.model_dump(exclude={"data"}) == trained.model_dump(exclude={"data"})


@pytest.mark.parametrize("variant", ["base", "openvino-fp32", "onnxruntime-bf16"])
def test_what_no_search_is_for_must_be_within_its_budget_as_it_is(tmp_path: Path, variant: str) -> None:
    (tmp_path / "report.json").write_text(
        json.dumps({"metrics": [{"variant": variant, "passed": False, "budget": 0.1, "high": 1}]})
    )
    with pytest.raises(DemoError, match=f"{variant} loses more.*no search"):
        exports.to_mix(tmp_path)
    unsure = [{"variant": name, "passed": True, "budget": 0.1, "high": 1} for name in (variant, "openvino-bf16")]
    (tmp_path / "report.json").write_text(json.dumps({"metrics": unsure}))
    assert exports.to_mix(tmp_path) == ["openvino-bf16"]


def test_the_document_says_what_a_search_kept() -> None:
    trail = [{"kept": [], "metric": -2.79, "within": False}, {"kept": ["step:query"], "metric": -0.9, "within": True}]
    search = {"kept": ["step:query"], "metric": -0.9, "baseline": 0.0, "budget": 1.0, "reached": True, "trail": trail}
    report = {"split": "test", "machine": "a machine", "threads": 1, "metrics": [], "variants": [], "latencies": []}
    page = document({"captions": report}, {}, {}, {"captions": {"openvino-int8": search}}, 77)
    assert "on 77 held-out episodes, of which the first sixty" in page
    assert "on the held-out episodes. In brackets" in document({}, {}, {}, {})
    assert "\n- openvino-int8 keeps in fp32: `step:query`. By a search" in page
    assert "at most 0.90 points there, with nothing kept 2.79 (budget 1, candidates: 2).\n" in page


@pytest.mark.slow  # Three commands, each a process that imports torch.
def test_the_full_size_is_exported_and_verified_without_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here with a model that is not of full size."""
    small = make_task_model("statements")
    real = exports.write_full_size
    monkeypatch.setattr(exports, "write_full_size", lambda task, folder: real(task, folder, small))
    plan = Plan(onnxruntime=("fp16",), openvino=(), targets=(), shapes=SHAPES)
    costs = json.loads(exports.run_full_size(tmp_path, ["statements"], Commands(), plan).read_text(encoding="utf-8"))
    assert costs["statements"]["parameters"] == sum(weight.numel() for weight in small.parameters())
    assert [step["name"] for step in costs["statements"]["steps"]] == ["export", "onnxruntime", "verify"]
    assert not (tmp_path / "full-size" / "statements").exists()
    assert "At full size" in document({}, {}, costs, {})


def test_the_command_names_the_tasks_that_there_are() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "demo.exports", "--task", "reading"],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "There is no task reading; expected some of retrieval, questions" in " ".join(done.stdout.split())
