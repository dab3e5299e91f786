"""``hero-bench training`` compares layouts and nothing else: the same loss, the same gradients, the same batch in each round."""

from __future__ import annotations

import copy
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from hero_bench import cli, training
from hero_bench.errors import UnequalResultsError
from hero_bench.lengths import SubtitleLength, VideoLengths, draw_lengths
from hero_bench.training import (
    MAX_RELATIVE_ERROR,
    PADDED,
    POOLED,
    Learner,
    TrainingSettings,
    check_same_step,
    layouts,
    measure_training,
)
from hero_bench.training_results import count_packed, count_padded
from hero_bench.training_workload import SIZES, TrainingInput, make_input, make_video
from hero_sdk import InputError
from hero_sdk.rows import RowGeometry
from tests.tiny_training import tiny_config

TINY = tiny_config(
    hidden_dropout=0.1,
    attention_dropout=0.1,
    initializer_range=0.2,
    text_positions=130,
    temporal_positions=130,
    frame_positions=64,
    query_positions=64,
    clip_limit=100,
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "tiny", TINY)


@pytest.fixture
def settings() -> TrainingSettings:
    return dataclasses.replace(TrainingSettings(videos=3, batches=2, rounds=2, slots=(64, 128), threads=1), size="tiny")


def batch(settings: TrainingSettings, seed: int = 0) -> TrainingInput:
    lengths = draw_lengths(settings.videos, seed)
    return make_input(lengths, TINY, list(settings.geometries.values()), np.random.default_rng(seed))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_all_layouts_learn_the_same(settings: TrainingSettings, precision: str) -> None:
    learner = Learner(TINY, seed=0)
    deviations = check_same_step(learner, layouts(learner, settings), batch(settings), precision)
    assert list(deviations) == [POOLED, "packed, 64 slots", "packed, 128 slots"]
    if precision == "fp32":
        assert all(found.relative_error < MAX_RELATIVE_ERROR / 10 for found in deviations.values())
        assert all(found.cosine > 0.999999 for found in deviations.values())
    # The pooler's result is read by nobody.
    assert deviations[POOLED].relative_error == 0


def test_the_same_is_held_weight_by_weight(settings: TrainingSettings) -> None:
    """As the test above, with no tolerance taken from what is tested."""
    learner, made = Learner(TINY, seed=1), batch(settings, 1)
    padded, _, *packed = layouts(learner, settings).values()
    expected = learner.gradients(padded, made, "fp32")
    assert len(expected) > 40
    assert sum(float(gradient.abs().sum()) > 0 for gradient in expected) > 40
    for encode in packed:
        for found, wanted in zip(learner.gradients(encode, made, "fp32"), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)


def test_a_step_changes_the_weights_and_comparing_does_not(settings: TrainingSettings) -> None:
    learner, made = Learner(TINY, seed=0), batch(settings)
    before = copy.deepcopy(learner.model.state_dict())
    for encode in layouts(learner, settings).values():
        learner.gradients(encode, made, "fp32")
    assert all(torch.equal(value, before[name]) for name, value in learner.model.state_dict().items())
    for encode in layouts(learner, settings).values():
        learner.step(encode, made, "bf16")
    moved = [name for name, value in learner.model.state_dict().items() if not torch.equal(value, before[name])]
    assert len(moved) > 40


def test_a_layout_that_loses_tokens_is_not_timed(settings: TrainingSettings) -> None:
    learner, short = Learner(TINY, seed=0), dataclasses.replace(settings, slots=(12,))
    with pytest.raises(UnequalResultsError, match=r"'packed, 12 slots' differs .* Try more slots"):
        check_same_step(learner, layouts(learner, short), batch(short), "fp32")


def test_a_layout_that_loses_a_weight_is_not_timed(settings: TrainingSettings) -> None:
    learner, made = Learner(TINY, seed=0), batch(settings)
    variants = layouts(learner, settings)
    padded = variants[PADDED]

    def doubled(of: TrainingInput) -> tuple[torch.Tensor, torch.Tensor]:
        """As it is to the loss, and not to the gradients."""
        clips, mask = padded(of)
        return 2 * clips - clips.detach(), mask

    with pytest.raises(UnequalResultsError, match="'doubled' differs"):
        check_same_step(learner, {PADDED: padded, "doubled": doubled}, made, "fp32")


def test_a_video_has_the_lengths_it_was_given() -> None:
    lengths = VideoLengths(6, (SubtitleLength(0, 2.9, 4), SubtitleLength(3, 3.2, 9), SubtitleLength(9.5, 11, 2)))
    video = make_video(lengths, TINY, np.random.default_rng(0))
    assert video.features.shape == (6, TINY.feature_dim)
    # The last one starts after the last clip.
    assert [(segment.frames.tolist(), len(segment.tokens)) for segment in video.segments] == [([0, 1], 5), ([2], 10)]
    assert all(segment.tokens[0] == 2 and segment.tokens[1:].min() >= 4 for segment in video.segments)
    silent = make_video(VideoLengths(130, ()), TINY, np.random.default_rng(0))
    assert len(silent.features) == TINY.clip_limit
    assert [len(segment.frames) for segment in silent.segments] == [5] * 20


def test_what_a_layout_is_filled_with_is_counted() -> None:
    lengths = [
        VideoLengths(4, (SubtitleLength(0, 3, 3), SubtitleLength(3, 6, 8))),  # 2 + 1 + 3 and 2 + 1 + 8 slots
        VideoLengths(
            2, (SubtitleLength(0, 1.5, 1), SubtitleLength(1.5, 1.5, 5))
        ),  # 1 + 1 + 1; the other one has no frame
    ]
    geometry = RowGeometry(slots=20, frames=10, temporal_slots=8)
    made = make_input(lengths, TINY, [geometry], np.random.default_rng(0))
    padded, packed = count_padded("A", [made.padded] * 2), count_packed("B", [made.packed[geometry]] * 2)
    assert (padded.rows, padded.slots, padded.used_slots) == (8, 8 * 11, 2 * (6 + 11 + 3 + 6))
    assert (padded.frames, padded.used_frames) == (2 * 4 * 2, 2 * 5)
    assert (padded.clip_slots, padded.used_clip_slots) == (2 * 8, 2 * 6)
    assert (packed.rows, packed.slots, packed.used_slots) == (2, 40, 2 * (6 + 11 + 3))
    assert (packed.frames, packed.used_frames) == (2 * 5, 2 * 5)
    assert (packed.clip_slots, packed.used_clip_slots) == (2 * 8, 2 * 6)
    assert padded.row(2)[:4] == ["A", "4", "44", "59.1%"]


def test_all_is_measured_on_the_same_batches(monkeypatch: pytest.MonkeyPatch, settings: TrainingSettings) -> None:
    seen: list[tuple[str, int, str]] = []
    places: dict[int, int] = {}

    def step(self: Learner, encode: Callable[..., object], given: TrainingInput, precision: str) -> None:
        name = next(name for name, known in variants.items() if known is encode)
        seen.append((name, places.setdefault(id(given), len(places)), precision))

    variants: dict[str, training.Encode] = {}
    made = layouts
    monkeypatch.setattr(training, "layouts", lambda *of: variants.update(made(*of)) or variants)
    monkeypatch.setattr(Learner, "step", step)
    report = measure_training(settings)
    names = [PADDED, POOLED, "packed, 64 slots", "packed, 128 slots"]
    # Warm-up and two rounds.
    assert seen == [
        (name, turn % 2, precision) for precision in ("fp32", "bf16") for turn in range(3) for name in names
    ]
    assert [case.case.name for case in report.cases] == ["lay out a batch", "a step, fp32", "a step, bf16"]
    assert all(len(rounds) == 2 for case in report.cases for rounds in case.durations.values())


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hero-bench", "training", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, *capsys.readouterr()

    return run


def test_the_command_measures_and_writes(run: Run, tmp_path: Path) -> None:
    lengths, file = tmp_path / "lengths.jsonl", tmp_path / "results.json"
    one = {"clips": 20, "subtitles": [[3 * n, 3 * n + 2, 1 + 3 * n] for n in range(9)]}
    lengths.write_text(f"{json.dumps(one)}\n" * 6)
    options = ("--size", "tiny", "--videos", 3, "--batches", 2, "--rounds", 1, "--threads", 1)
    code, out, _ = run(*options, "--precision", "fp32", "--lengths", lengths, "--json", file)
    assert code == 0
    for words in ("padded, unread pooler", "packed, 128 slots", "a step, fp32", "speed-up", "lengths measured"):
        assert words in out
    written = json.loads(file.read_text())
    assert (written["kind"], written["bundle"], written["settings"]["videos"]) == ("training", None, 3)
    padded, packed = written["layouts"]
    # 9 subtitles of up to 26 tokens, two frames or three of them, six videos.
    assert padded["rows"] == 54
    assert padded["used_slots"] == packed["used_slots"] < packed["slots"] < padded["slots"]
    steps = written["cases"][1]
    assert steps["baseline"] == PADDED
    assert steps["variants"]["packed, 128 slots"]["deviation"]["cosine"] > 0.999999


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "huge"], "There is no size 'huge'; expected one of paper, reduced"),
        (["--videos", "1"], "videos is 1; expected at least 2"),
        (["--batches", "0"], "batches is 0"),
        (["--rounds", "0"], "rounds is 0"),
        (["--threads", "0"], "threads is 0"),
        (["--processor-time", "--threads", "2"], "expected 1 thread"),
        (["--max-seconds", "0"], "max_seconds is 0"),
        (["--precision", "int8"], "no precisions ['int8']"),
        (["--slots", "no"], "--slots is 'no'"),
        (["--slots", "1"], "A cross-modal row has 1 slot"),
        (["--lengths", "a", "--lengths-of", "b", "--tokenizer", "c"], "Both lengths and lengths_of"),
        (["--lengths-of", "b"], "expected both lengths_of and tokenizer"),
        (["--json", "/no/folder/results.json"], "a folder that exists"),
    ],
)
def test_what_cannot_be_measured_is_refused(run: Run, options: list[str], message: str) -> None:
    code, _, error = run(*options)
    assert message in " ".join(error.split())
    assert code == 2


def test_too_few_measured_videos_are_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "lengths.jsonl").write_text('{"clips": 3, "subtitles": []}\n')
    code, _, error = run("--size", "tiny", "--lengths", tmp_path / "lengths.jsonl")
    assert "There are lengths of 1 videos, and 4 batches take 128" in " ".join(error.split())
    assert code == 2


def test_settings_have_to_fit_together() -> None:
    with pytest.raises(InputError, match="expected both lengths_of and tokenizer"):
        TrainingSettings(tokenizer="roberta-base")
