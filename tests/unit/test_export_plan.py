"""``hero-export plan``: lengths as the encoders read them, rows as the SDK packs them, and a proposal that can be copied."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from hero_export import ExportError
from hero_export.bundles.sources import ModelSource, find_model
from hero_export.rows.geometry import check_geometry
from hero_export.rows.lengths import CorpusLengths, TextLengths, WindowLengths, read_corpus_lengths
from hero_export.rows.plan import MOST_LOST, Candidate, RowPlan, plan_rows
from hero_sdk.manifest import CAPTIONING, QUESTION_ANSWERING, RETRIEVAL, STATEMENTS
from hero_sdk.rows import RowGeometry, Segment, VideoInput, pack_videos
from hero_sdk.tokens import TextTokenizer
from hero_train.config import HeroConfig
from hero_train.errors import DataError
from tests.tiny_checkpoint import CONFIG, SENTENCES, make_task_model, task_config, write_model
from tests.unit.hero_export_command import make_export_run
from tests.unit.tiny_videos import write_srt, write_video

ANNOTATIONS: dict[str, list[dict[str, Any]]] = {
    RETRIEVAL: [
        {"desc_id": 1, "desc": "the robot takes a red gem", "vid_name": "a", "ts": [0, 3], "type": "v"},
        {"desc_id": 2, "desc": "who", "vid_name": "b", "ts": [0, 3]},
    ],
    QUESTION_ANSWERING: [
        {"qid": 1, "q": "where is the gem", "a0": "in the sky", "a1": "who", "vid_name": "a", "answer_idx": 0},
        {"qid": 2, "q": "who", "a0": "the robot", "a1": "a gem", "vid_name": "b"},
    ],
    STATEMENTS: [{"id": 1, "statement": "the robot takes a red gem", "vid_name": "b", "label": 1}],
    CAPTIONING: [
        {"clip_id": 1, "vid_name": "a", "ts": [0, 3], "descs": [{"desc": "look at the sky"}, {"desc": "who"}]}
    ],
}
CLIPS = {"a": 9, "b": 47}
SPOKEN = {
    "a": [(0.0, 2.9, SENTENCES[0]), (2.9, 3.0, "a"), (4.0, 9.0, SENTENCES[1])],
    "b": [(0.0, 40.0, SENTENCES[3]), (50.0, 60.0, SENTENCES[3])],
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelSource]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {task: find_model(write_model(folder / task, make_task_model(task))) for task in ANNOTATIONS}


def write_lines(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def write_set(folder: Path, task: str) -> Path:
    """A set as ``hero-train prepare`` writes it."""
    (folder / "features").mkdir(parents=True)
    for name, clips in CLIPS.items():
        save_file({"features": np.zeros((clips, 3), np.float32)}, folder / "features" / f"{name}.safetensors")
    subtitles = [
        {"vid_name": name, "sub": [{"start": start, "end": end, "text": text} for start, end, text in lines]}
        for name, lines in SPOKEN.items()
    ]
    write_lines(folder / "subtitles.jsonl", subtitles)
    write_lines(folder / "annotations" / "train.jsonl", ANNOTATIONS[task])
    (folder / "prepared.json").write_text("{}")
    return folder


def count(source: ModelSource, text: str) -> int:
    return len(TextTokenizer(source.tokenizer.read_text(encoding="utf-8")).encode(text))


def test_a_prepared_set_is_measured_as_the_encoders_read_it(
    checkpoints: dict[str, ModelSource], tmp_path: Path
) -> None:
    source = checkpoints[RETRIEVAL]
    lengths = read_corpus_lengths(write_set(tmp_path / "set", RETRIEVAL), source)
    tokens = [1 + count(source, text) for text in (SENTENCES[0], "a", SENTENCES[1], SENTENCES[3])]
    # Two clips to the first line and four to the last; the short line between them owns none. The long video has windows of 20.
    assert lengths.videos[0] == (WindowLengths(9, ((2, tokens[0]), (4, tokens[2]))),)
    assert [window.clips for window in lengths.videos[1]] == [20, 20, 20]
    # 27 clips and 7, and the overlaps of the windows once more: clips 16 to 19, and 33 to 35.
    assert sum(owned for window in lengths.videos[1] for owned, _ in window.segments) == 27 + 7 + 4 + 3
    assert {said for window in lengths.videos[1] for _, said in window.segments} == {tokens[3]}
    assert lengths.queries == (1 + count(source, "the robot takes a red gem"), 1 + count(source, "who"))
    assert lengths.texts == lengths.captions == ()


def test_the_texts_of_every_task(checkpoints: dict[str, ModelSource], tmp_path: Path) -> None:
    found = {
        task: read_corpus_lengths(write_set(tmp_path / task, task), source) for task, source in checkpoints.items()
    }

    def separated(task: str, *texts: str) -> int:
        return sum(1 + count(checkpoints[task], text) for text in texts)

    asked = QUESTION_ANSWERING
    assert found[asked].texts == (
        TextLengths(
            0, (separated(asked, "where is the gem", "in the sky"), separated(asked, "where is the gem", "who"))
        ),
        TextLengths(1, (separated(asked, "who", "the robot"), separated(asked, "who", "a gem"))),
    )
    assert found[STATEMENTS].texts == (TextLengths(1, (separated(STATEMENTS, "the robot takes a red gem"),)),)
    assert found[CAPTIONING].captions == tuple(separated(CAPTIONING, text) for text in ("look at the sky", "who"))


def test_folders_of_features_and_of_videos(checkpoints: dict[str, ModelSource], tmp_path: Path) -> None:
    source = checkpoints[RETRIEVAL]
    made = write_set(tmp_path / "set", RETRIEVAL)
    bare = read_corpus_lengths(made / "features", source)
    assert [sum(window.clips for window in windows) for windows in bare.videos] == [9, 60]
    assert bare.videos[0][0].segments == ((5, 1), (4, 1))  # silent: five frames each, and a separator
    assert bare.queries == ()
    spoken = read_corpus_lengths(
        made / "features",
        source,
        subtitles=made / "subtitles.jsonl",
        annotations=[made / "annotations" / "train.jsonl"] * 2,
    )
    assert spoken.videos == read_corpus_lengths(made, source).videos
    assert len(spoken.queries) == 4
    write_video(tmp_path / "videos" / "a.mp4", ["red", "green", "blue"], seconds_each=3.0)
    write_srt(tmp_path / "videos" / "a.srt", ["where is the gem"])
    (windows,) = read_corpus_lengths(tmp_path / "videos", source, subtitles=tmp_path / "videos").videos
    assert windows[0].clips == 6
    assert windows[0].segments[0][1] == 1 + count(source, "where is the gem")


def test_what_cannot_be_measured(checkpoints: dict[str, ModelSource], tmp_path: Path) -> None:
    source = checkpoints[STATEMENTS]
    with pytest.raises(ExportError, match=r"no folder .*nowhere; expected a prepared set"):
        read_corpus_lengths(tmp_path / "nowhere", source)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExportError, match=r"has neither features \(\*\.safetensors\) nor videos"):
        read_corpus_lengths(tmp_path / "empty", source)
    made = write_set(tmp_path / "set", STATEMENTS)
    write_lines(made / "annotations" / "test.jsonl", [{**ANNOTATIONS[STATEMENTS][0], "vid_name": "c"}])
    with pytest.raises(ExportError, match=r"test\.jsonl has an annotation of the video c, which is not in the corpus"):
        read_corpus_lengths(made, source)
    write_lines(made / "annotations" / "test.jsonl", [*ANNOTATIONS[STATEMENTS], {"id": 2}])
    with pytest.raises(DataError, match=r"Line 2 of .*test\.jsonl"):
        read_corpus_lengths(made, source)
    (made / "features" / "a.safetensors").write_bytes(b"no features")
    with pytest.raises(ExportError, match=r"a\.safetensors cannot be read"):
        read_corpus_lengths(made, source)
    save_file({"features": np.zeros(3, np.float32)}, made / "features" / "a.safetensors")
    with pytest.raises(ExportError, match=r"features of shape \(3,\)"):
        read_corpus_lengths(made, source)


LARGE = dataclasses.replace(CONFIG, text_positions=514, frame_positions=100, query_positions=64, clip_limit=24)


def television(videos: int, seed: int = 0) -> CorpusLengths:
    """Videos with subtitles of many lengths, and queries."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(videos):
        sizes = zip(rng.integers(1, 5, 9).tolist(), (2 + rng.gamma(2, 5, 9)).astype(int).tolist(), strict=True)
        made.append((WindowLengths(int(rng.integers(5, 25)), tuple(sizes)),))
    return CorpusLengths(tuple(made), queries=tuple(rng.integers(4, 30, 50).tolist()))


def as_video(window: WindowLengths) -> VideoInput:
    segments = [Segment(np.zeros(owned, np.int32), np.full(said, 2, np.int32)) for owned, said in window.segments]
    return VideoInput(np.zeros((window.clips, 2), np.float32), tuple(segments))


def geometry_of(first: Candidate, second: Candidate) -> RowGeometry:
    return RowGeometry(**first.options, **second.options, query_tokens=8)


@pytest.mark.parametrize("together", [1, 4])
def test_rows_are_counted_as_the_sdk_packs_them(together: int) -> None:
    lengths = television(10)
    plan = plan_rows(lengths, LARGE, together=together)
    videos = [as_video(window) for windows in lengths.videos for window in windows]
    for first, second in [(one, plan.temporal[0]) for one in plan.cross_modal] + [
        (plan.cross_modal[0], one) for one in plan.temporal
    ]:
        packed = [
            pack_videos(videos[start : start + together], geometry_of(first, second))
            for start in range(0, len(videos), together)
        ]
        stage_1, stage_2 = ([getattr(one, name) for one in packed] for name in ("cross_modal", "temporal"))
        assert first.rows == sum(len(one.segment_ids) for one in stage_1)
        assert second.rows == sum(len(one.segment_ids) for one in stage_2)
        for candidate, rows in ((first, stage_1), (second, stage_2)):
            assert candidate.empty == pytest.approx(
                np.mean([slot == 0 for one in rows for slot in one.segment_ids.flat])
            )
        frames = sum((one.frame_index >= 0).sum() for one in stage_1)
        assert first.empty_frames == pytest.approx(1 - frames / (first.rows * first.options["frames"]))
        assert (first.cut == 0) == (sum(one.cut_tokens for one in packed) == 0)
        assert first.split == 0


def test_rows_with_texts_are_counted_as_the_sdk_packs_them() -> None:
    config = dataclasses.replace(
        task_config(QUESTION_ANSWERING), text_positions=514, frame_positions=100, clip_limit=24
    )
    lengths = television(4)
    texts = [TextLengths(number, (5 + number, 7)) for number in range(4)]
    plan = plan_rows(dataclasses.replace(lengths, queries=(), texts=tuple(texts)), config)
    assert plan.requests == 4
    assert plan.options["answers"] == 2
    assert plan.options["query_tokens"] == 8
    for first, second in zip(plan.cross_modal, plan.temporal, strict=False):
        rows = np.zeros(2, int)
        for number, one in enumerate(texts):
            copies = [as_video(lengths.videos[number][0])] * 2
            spoken = [np.full(tokens, 2, np.int32) for tokens in one.tokens]
            packed = pack_videos(copies, geometry_of(first, second), texts=spoken)
            rows += [len(packed.cross_modal.segment_ids), len(packed.temporal.segment_ids)]
        assert (first.rows, second.rows) == tuple(rows)


def check_proposal(plan: RowPlan, config: HeroConfig) -> None:
    for candidates in (plan.cross_modal, plan.temporal, plan.texts):
        if not candidates:
            continue
        (proposed,) = (one for one in candidates if one.proposed)
        assert proposed.work == 1
        fitting = [one for one in candidates if one.loss <= max(MOST_LOST, min(other.loss for other in candidates))]
        assert proposed in fitting
        assert all(one.work >= 1 for one in fitting)
        assert proposed.options.items() <= plan.options.items()
    shapes = {name: value for name, value in plan.options.items() if name not in ("answers", "caption_tokens")}
    check_geometry(dataclasses.replace(RowGeometry(query_tokens=8), **shapes), config, max_batch=1)


def test_the_proposal_is_the_least_work_that_cuts_hardly_anything() -> None:
    plan = plan_rows(television(40), LARGE)
    check_proposal(plan, LARGE)
    assert plan.padded_empty > min(one.empty for one in plan.cross_modal) > 0
    assert max(one.options["slots"] for one in plan.cross_modal) == 512
    longest = max(said + owned for windows in television(40).videos for owned, said in windows[0].segments)
    assert {one.cut == 0 for one in plan.cross_modal if one.options["slots"] >= longest} == {True}


@pytest.mark.parametrize("task", ANNOTATIONS)
def test_the_proposal_for_a_small_model_fits_its_tables(
    task: str, checkpoints: dict[str, ModelSource], tmp_path: Path
) -> None:
    source = checkpoints[task]
    plan = plan_rows(read_corpus_lengths(write_set(tmp_path / "set", task), source), source.config)
    check_proposal(plan, source.config)
    assert ("caption_tokens" in plan.options) == (task == CAPTIONING)
    assert ("answers" in plan.options) == (task == QUESTION_ANSWERING)
    assert ("query_tokens" in plan.options) == (task != CAPTIONING)


def test_a_frame_table_has_room_for_the_longest_subtitle() -> None:
    """One that is read in pieces is read otherwise, so a shorter table is no saving."""
    lengths = television(20)
    long = (WindowLengths(24, ((20, 6),)),)
    plan = plan_rows(dataclasses.replace(lengths, videos=(*lengths.videos, long)), LARGE)
    assert {one.split for one in plan.cross_modal} == {0}
    assert min(one.options["frames"] for one in plan.cross_modal) == 24
    small = dataclasses.replace(LARGE, frame_positions=16)
    split = plan_rows(dataclasses.replace(lengths, videos=(*lengths.videos, long)), small)
    assert [one.split for one in split.cross_modal] == pytest.approx([1 / 181] * len(split.cross_modal))
    check_proposal(split, small)


def test_a_large_corpus_is_sampled_and_the_same_seed_draws_the_same() -> None:
    lengths = television(60)
    first, again, other = (plan_rows(lengths, LARGE, most=20, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert first.videos == 60
    assert first.temporal[0].rows <= 20
    for wrong in ({"together": 0}, {"most": 0}):
        with pytest.raises(ExportError, match="expected at least 1 of either"):
            plan_rows(lengths, LARGE, **wrong)  # type: ignore[arg-type]


def test_the_command(
    checkpoints: dict[str, ModelSource],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = make_export_run(monkeypatch, capsys)
    data = write_set(tmp_path / "set", QUESTION_ANSWERING)
    arguments = ["plan", checkpoints[QUESTION_ANSWERING].checkpoint, data, "--together", 2]
    done = run(*arguments)
    assert done.code == 0, done.err
    for text in (
        "Rows of stage 1",
        "Rows of stage 2",
        "Queries and texts",
        "empty frames",
        "proposed",
        "2 packed together",
    ):
        assert text in done.out
    content = json.loads(run(*arguments, "--json").out)
    assert content["command"] in done.out
    assert content["command"].startswith("--slots ")
    assert "--answers 2" in content["command"]
    assert content["options"]["answers"] == 2
    assert [one["proposed"] for one in content["cross_modal"]].count(True) == 1
    assert run("plan", "nowhere", data).code == 3
    assert "no folder" in run("plan", checkpoints[RETRIEVAL].checkpoint, tmp_path / "nowhere").err
