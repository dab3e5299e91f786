"""What a run starts from: checkpoints of other tasks, their tokenizers, prepared features, a part of the videos."""

from __future__ import annotations

import importlib
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from hero_export.bundles.export import export_bundle
from hero_export.errors import ExportError
from hero_sdk.rows import RowGeometry
from hero_sdk.tokens import TextTokenizer
from hero_train.checkpoint import TOKENIZER_FILE
from hero_train.data.features import VideoFeatures, write_features
from hero_train.data.pretraining import PretrainingSampler
from hero_train.errors import CheckpointError, ConfigError, DataError
from hero_train.recipes.setup import make_tokenizer
from hero_train.training import RunResult, Session
from tests.tiny_training import VIDEOS, forget_the_last_run, load_run, write_annotations

# A step at no speed to speak of: the weights are still those that the run began with.
STILL = ("optimisation.steps=1", "optimisation.warmup=0", "optimisation.learning_rate=1.0e-12")


@pytest.fixture(autouse=True)
def _one_run_per_process() -> None:
    forget_the_last_run()


@pytest.fixture(autouse=True)
def _without_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """METEOR, which takes half a minute to start, is not what is tested here."""
    monkeypatch.setenv("PATH", "")


def run(training_set: Path, task: str, *overrides: str, said: io.StringIO | None = None, **changes: Any) -> RunResult:
    forget_the_last_run()
    config = load_run(training_set, task, *overrides, **changes)
    console = Console(file=said or io.StringIO(), width=1000)
    result = importlib.import_module(f"hero_train.recipes.{task}").run(config, console=console)
    assert isinstance(result, RunResult)
    return result


def weights(result: RunResult) -> dict[str, torch.Tensor]:
    return load_file(result.checkpoint / "model.safetensors")


@pytest.fixture(scope="module")
def starts(training_set: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunResult]:
    """A run of pre-training and one of retrieval, of a few steps each."""
    folder = tmp_path_factory.mktemp("starts")
    return {
        task: run(training_set, task, f"output={folder / task}", "optimisation.steps=3")
        for task in ("pretraining", "retrieval")
    }


HEADS = {
    "questions": ("answer_pool", "answer", "span_pool", "span"),
    "statements": ("truth_pool", "truth"),
    "captions": ("decoder", "language"),
    "retrieval": ("query", "moment"),
}


@pytest.mark.parametrize(
    ("start", "task", "also_known"),
    [
        ("pretraining", "retrieval", ("query", "moment")),
        ("pretraining", "questions", ()),
        ("pretraining", "statements", ()),
        ("pretraining", "captions", ("language",)),
        ("retrieval", "questions", ()),
        ("retrieval", "statements", ()),
        ("retrieval", "captions", ()),
    ],
)
def test_a_task_takes_what_the_start_has_and_says_which_heads_are_fresh(
    training_set: Path, tmp_path: Path, starts: dict[str, RunResult], start: str, task: str, also_known: tuple[str, ...]
) -> None:
    said = io.StringIO()
    overrides = (f"output={tmp_path / 'run'}", f"initial={starts[start].checkpoint}", *STILL)
    result = run(training_set, task, *overrides, said=said, model={}, tokenizer={})
    before, after = weights(starts[start]), weights(result)
    known = {
        name for name in after if name.startswith(("cross_modal.", "temporal.", *(f"{one}." for one in also_known)))
    }
    for name in known:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-6)
    expected = set(HEADS[task]) - set(also_known)
    assert {name.split(".")[0] for name in after.keys() - known} == expected
    reported = re.findall(r"^Fresh, not in the source: (\d+)\n  (.+) \(\d+\)$", said.getvalue(), re.MULTILINE)
    assert [int(count) for count, _ in reported] == ([len(after) - len(known)] if expected else [])
    assert {name.split(".")[0] for _, names in reported for name in names.split(", ")} == expected
    tokens = [result.checkpoint / TOKENIZER_FILE, starts[start].checkpoint / TOKENIZER_FILE]
    assert tokens[0].read_bytes() == tokens[1].read_bytes()


def test_pretraining_goes_on_with_its_heads(training_set: Path, tmp_path: Path, starts: dict[str, RunResult]) -> None:
    said = io.StringIO()
    overrides = (f"output={tmp_path / 'run'}", f"initial={starts['pretraining'].checkpoint}", *STILL)
    result = run(training_set, "pretraining", *overrides, said=said, model={}, tokenizer={})
    before, after = weights(starts["pretraining"]), weights(result)
    assert before.keys() == after.keys()
    assert {"language", "regression", "order", "query", "moment"} <= {name.split(".")[0] for name in after}
    for name, tensor in after.items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=1e-6)
    assert "Fresh" not in said.getvalue()


def test_a_start_without_its_tokenizer_needs_one_named(
    training_set: Path, tmp_path: Path, starts: dict[str, RunResult]
) -> None:
    """A tokenizer that is trained anew would fit in size, and give every word another id."""
    start = tmp_path / "start"
    shutil.copytree(starts["retrieval"].checkpoint, start)
    (start / TOKENIZER_FILE).rename(tmp_path / TOKENIZER_FILE)
    overrides = (f"output={tmp_path / 'run'}", f"initial={start}", *STILL)
    with pytest.raises(ConfigError, match=r"start has no tokenizer.*Set tokenizer\.source"):
        run(training_set, "retrieval", *overrides, model={})
    named = run(training_set, "retrieval", *overrides, f"tokenizer.source={tmp_path / TOKENIZER_FILE}", model={})
    assert (named.checkpoint / TOKENIZER_FILE).read_bytes() == (tmp_path / TOKENIZER_FILE).read_bytes()


def test_pretraining_knows_the_words_of_the_tasks_to_come(
    training_set: Path, tmp_path: Path, starts: dict[str, RunResult]
) -> None:
    """Subtitles never say what only annotations write, and letters instead of words are hard to learn from."""
    text = "xylophone juggling"
    write_annotations(training_set / "words.jsonl", [{"desc_id": 0, "desc": text, "vid_name": "first"}] * 5)
    overrides = (f"output={tmp_path / 'run'}", "tokenizer.texts=[words.jsonl]", "tokenizer.vocabulary=600", *STILL)
    knows = run(training_set, "pretraining", *overrides)
    tokens = [
        len(TextTokenizer((start.checkpoint / TOKENIZER_FILE).read_text(encoding="utf-8")).encode(text))
        for start in (knows, starts["pretraining"])
    ]
    assert tokens[0] == 2
    assert tokens[1] > 8


@pytest.mark.parametrize("initial", ["hero.pt", "roberta:roberta.bin"])
def test_a_file_of_weights_has_no_tokenizer(training_set: Path, initial: str) -> None:
    (training_set / initial.split(":")[-1]).write_bytes(b"weights")
    with pytest.raises(ConfigError, match=r"has no tokenizer.*roberta-base"):
        make_tokenizer(Session(load_run(training_set, "retrieval", f"initial={initial}")), [], [])


def test_a_start_that_is_not_there_is_named(training_set: Path) -> None:
    for initial, message in (("nowhere.pt", "There is no file nowhere.pt"), ("./nowhere", "is not a folder")):
        with pytest.raises(CheckpointError, match=message):
            make_tokenizer(Session(load_run(training_set, "retrieval", f"initial={initial}")), [], [])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain folder of features; ``test_prepared_sets.py`` trains on what ``hero-train prepare`` writes."""
    folder = tmp_path_factory.mktemp("prepared")
    for number, name in enumerate(VIDEOS):
        features = np.random.default_rng(number).standard_normal((6, 5), dtype=np.float32)
        write_features(folder / f"{name}.safetensors", VideoFeatures(features, 9.0))
    return folder


def without_videos(features: Path) -> tuple[str, ...]:
    return ("frame_encoder=null", "data.videos=null", f"data.features={features}")


@pytest.mark.parametrize("task", ["pretraining", "statements"])
def test_features_alone_are_enough(training_set: Path, tmp_path: Path, prepared: Path, task: str) -> None:
    result = run(training_set, task, f"output={tmp_path}", *STILL, *without_videos(prepared))
    assert weights(result)["cross_modal.frames.linear.weight"].shape[1] == 5
    assert {path.name for path in result.checkpoint.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}


def test_export_says_how_to_pass_the_frame_encoder_that_features_came_from(
    training_set: Path, tmp_path: Path, prepared: Path
) -> None:
    result = run(training_set, "retrieval", f"output={tmp_path / 'run'}", *STILL, *without_videos(prepared))
    with pytest.raises(ExportError, match=r"expected a frame encoder.*Name it with --frame-encoder"):
        export_bundle(result.checkpoint, tmp_path / "bundle", geometry=RowGeometry(64, 32, 32, 16))


def test_annotations_about_videos_without_features_end_the_run_before_training(
    training_set: Path, tmp_path: Path, prepared: Path
) -> None:
    features = shutil.copytree(prepared, tmp_path / "set")
    (features / "second.safetensors").unlink()
    (features / "third.safetensors").write_bytes(b"damaged")
    overrides = (f"output={tmp_path / 'run'}", *without_videos(features))
    with pytest.raises(
        DataError, match=r"2 videos cannot be read, such as second: There is no file .*leave these videos"
    ):
        run(training_set, "questions", *overrides)
    assert not (tmp_path / "run" / "log.jsonl").exists()
    # Not even the first video that is named must be there to be told how many are missing.
    (features / "first.safetensors").unlink()
    with pytest.raises(DataError, match="3 videos cannot be read, such as first"):
        run(training_set, "captions", *overrides)


def test_without_any_features_the_run_says_to_prepare_them(training_set: Path, tmp_path: Path) -> None:
    (tmp_path / "features").mkdir()
    with pytest.raises(DataError, match=r"features of none of the 6 videos, such as first: .*Run hero-train prepare"):
        run(training_set, "statements", f"output={tmp_path / 'run'}", *without_videos(tmp_path / "features"))


def test_features_that_are_no_numbers_are_refused(training_set: Path, tmp_path: Path, prepared: Path) -> None:
    features = shutil.copytree(prepared, tmp_path / "set")
    broken = np.full((6, 5), np.nan, dtype=np.float32)
    write_features(features / "fourth.safetensors", VideoFeatures(broken, 9.0))
    with pytest.raises(DataError, match=r"such as fourth: .*damaged \(features that are not finite\)"):
        run(training_set, "statements", f"output={tmp_path / 'run'}", *without_videos(features))


def test_pretraining_reads_the_videos_of_a_list(
    training_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    begin = PretrainingSampler.__init__

    def noted(self: PretrainingSampler, videos: Any, *arguments: Any) -> None:
        drawn.append(len(videos))
        begin(self, videos, *arguments)

    monkeypatch.setattr(PretrainingSampler, "__init__", noted)
    (tmp_path / "ids.json").write_text(json.dumps(["sixth", "first", "third"]), encoding="utf-8")
    overrides = (f"data.ids={tmp_path / 'ids.json'}", f"output={tmp_path / 'run'}", "sampling.videos=2", *STILL)
    tokenizer = (run(training_set, "pretraining", *overrides).checkpoint / TOKENIZER_FILE).read_text(encoding="utf-8")
    assert drawn == [3]
    vocabulary = json.loads(tokenizer)["model"]["vocab"]
    assert "Ġletter" in vocabulary, "a word of the sixth video"
    assert "Ġwindow" not in vocabulary, "a word of the second"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"ids\.json cannot be read as a list of video ids"),
        ('["first"', r"ids\.json cannot be read as a list of video ids"),
        ('{"first": 1}', r"ids\.json holds \{'first': 1\}; expected a JSON list of video ids"),
        ("[]", r"holds \[\]; expected a JSON list"),
        ('["first", 2]', "expected a JSON list of video ids"),
        ('["first", "seventh", "eighth"]', r"2 videos that .*ids\.json names are not in .*such as seventh, eighth"),
    ],
)
def test_a_list_of_videos_that_is_none_ends_the_run_before_training(
    training_set: Path, tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "ids.json").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        run(training_set, "pretraining", f"data.ids={tmp_path / 'ids.json'}", f"output={tmp_path / 'run'}")
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_heads_learn_at_their_own_rate(training_set: Path, tmp_path: Path) -> None:
    """After one step the encoders are the same at every ``head_rate``, and the heads went further."""
    moved = []
    for rate in (1, 8):
        overrides = (f"output={tmp_path / str(rate)}", "optimisation.steps=1", "optimisation.warmup=0")
        moved.append(weights(run(training_set, "statements", *overrides, f"optimisation.head_rate={rate}")))
    begun = weights(run(training_set, "statements", f"output={tmp_path / 'begun'}", *STILL))
    for name, start in begun.items():
        slow, fast = (tensors[name] - start for tensors in moved)
        if name.startswith(("cross_modal.", "temporal.")):
            assert torch.equal(slow, fast), name
        else:
            torch.testing.assert_close(fast, 8 * slow, rtol=1e-3, atol=1e-6)
            assert slow.abs().max() > 0, name


def test_annotations_of_another_task_are_named(training_set: Path, tmp_path: Path) -> None:
    """A path that was taken from another configuration is noticed at the first line of the file."""
    with pytest.raises(DataError, match=r"Line 1 of .*queries\.jsonl has no \['qid', 'q', 'a0', 'a1'\]"):
        run(training_set, "questions", "data.train=queries.jsonl", f"output={tmp_path}")


def test_too_few_items_for_a_batch_are_named(training_set: Path, tmp_path: Path) -> None:
    line = {"id": 1, "statement": "It rains.", "label": 1, "vid_name": "first"}
    train = write_annotations(tmp_path / "train.jsonl", [line])
    with pytest.raises(
        DataError, match=r"1 questions or pairs of statements and a batch takes 6; lower sampling\.items"
    ):
        run(training_set, "statements", f"data.train={train}", f"output={tmp_path / 'run'}")
