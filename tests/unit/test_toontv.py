"""ToonTV, the demo corpus: deterministic, answerable, decodable, and honest about what training never sees."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import pytest

from demo.toontv import annotate, assets, dialogue, questions, world, write
from demo.toontv.__main__ import main
from demo.toontv.assets import AssetsMissingError, ToonTvError
from demo.toontv.corpus import SPLITS, CorpusPlan, build_corpus, write_scripts
from demo.toontv.script import Episode

PLAN = CorpusPlan(train=1, val=1, test=1, seed=5)
LARGE = CorpusPlan(train=120, val=10, test=60, seed=5)

SRT_BLOCK = re.compile(
    r"(\d+)\n(\d\d):(\d\d):(\d\d),(\d{3}) --> (\d\d):(\d\d):(\d\d),(\d{3})\n(.+)\n", flags=re.MULTILINE
)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def frame_digests(path: Path) -> list[str]:
    with av.open(str(path)) as container:
        return [
            hashlib.sha256(frame.to_ndarray(format="rgb24").tobytes()).hexdigest()
            for frame in container.decode(video=0)
        ]


def text_files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.suffix in {".srt", ".json", ".jsonl"}
    }


@pytest.fixture(scope="module")
def scripts() -> dict[str, list[Episode]]:
    """Scripts alone, of a corpus large enough for statistics; nothing is drawn."""
    return dict(write_scripts(LARGE))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toontv")
    build_corpus(folder, PLAN, processes=1)
    return folder


def test_the_folder_holds_videos_subtitles_annotations_and_splits(corpus: Path) -> None:
    splits = json.loads((corpus / "splits.json").read_text())
    assert splits == {"train": ["train_0000"], "val": ["val_0000"], "test": ["test_0000"]}
    for ids in splits.values():
        assert (corpus / "videos" / f"{ids[0]}.mp4").is_file()
        assert (corpus / "subtitles" / f"{ids[0]}.srt").is_file()
    summary = json.loads((corpus / "corpus.json").read_text())
    assert summary["seed"] == PLAN.seed
    for split in SPLITS:
        for name in ("", "qa_", "statements_", "captions_"):
            table = rows(corpus / "annotations" / f"{name}{split}.jsonl")
            assert table
            assert {row["vid_name"] for row in table} == set(splits[split])
        assert summary["counts"][split]["queries"] == len(rows(corpus / "annotations" / f"{split}.jsonl"))


def test_equal_seeds_make_equal_corpora_whatever_the_number_of_processes(corpus: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    build_corpus(tmp_path, PLAN, processes=2, progress=lambda done, total: seen.append((done, total)))
    assert text_files(tmp_path) == text_files(corpus)
    assert seen[-1] == (3, 3)
    for video in sorted((corpus / "videos").iterdir()):
        assert frame_digests(tmp_path / "videos" / video.name) == frame_digests(video)


def test_an_episode_depends_on_its_seed_and_id_and_not_on_the_size_of_the_corpus(
    scripts: dict[str, list[Episode]],
) -> None:
    small = write_scripts(CorpusPlan(train=2, val=0, test=1, seed=5))
    assert small["train"] == scripts["train"][:2]
    assert small["test"] == scripts["test"][:1]
    assert write_scripts(CorpusPlan(train=1, val=0, test=0, seed=6))["train"] != small["train"][:1]


def test_a_video_decodes_to_as_many_frames_as_its_script_has(corpus: Path) -> None:
    for split, episodes in write_scripts(PLAN).items():
        with av.open(str(corpus / "videos" / f"{split}_0000.mp4")) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264"
            frames = [(frame.width, frame.height, frame.time) for frame in container.decode(stream)]
            seconds = float(stream.duration * stream.time_base)
        assert len(frames) == episodes[0].frames
        assert {frame[:2] for frame in frames} == {(224, 224)}
        assert frames[0][2] == 0
        assert seconds == pytest.approx(episodes[0].duration, abs=0.01)
        assert rows(corpus / "annotations" / f"{split}.jsonl")[0]["duration"] == episodes[0].duration


def test_the_picture_changes_at_every_cut(corpus: Path) -> None:
    episode = write_scripts(PLAN)["test"][0]
    with av.open(str(corpus / "videos" / "test_0000.mp4")) as container:
        pictures = [frame.to_ndarray(format="gray").astype(int) for frame in container.decode(video=0)]
    change = [abs(one - other).mean() for one, other in itertools.pairwise(pictures)]
    cuts = {scene.start_frame - 1 for scene in episode.scenes[1:]}
    assert all(change[cut] > 15 for cut in cuts), [change[cut] for cut in cuts]


def test_subtitles_are_srt_and_each_line_lies_inside_its_scene(scripts: dict[str, list[Episode]]) -> None:
    for episode in scripts["test"]:
        text = write.srt_text(episode)
        blocks = SRT_BLOCK.findall(text)
        assert "\n".join(text.split("\n\n")).count("-->") == len(blocks) > 0
        assert [int(block[0]) for block in blocks] == list(range(1, len(blocks) + 1))
        times = []
        for block in blocks:
            start, end = (
                int(hours) * 3600 + int(minutes) * 60 + int(seconds) + int(milliseconds) / 1000
                for hours, minutes, seconds, milliseconds in (block[1:5], block[5:9])
            )
            assert start < end
            assert any(scene.start <= start and end <= scene.end for scene in episode.scenes)
            times += [start, end]
        assert times == sorted(times)


def test_episodes_and_scenes_are_as_long_as_promised(scripts: dict[str, list[Episode]]) -> None:
    episodes = [episode for split in scripts.values() for episode in split]
    durations = [episode.duration for episode in episodes]
    assert min(durations) >= 20
    assert max(durations) <= 90
    assert 30 <= sum(durations) / len(durations) <= 37
    for episode in episodes:
        assert episode.scenes[0].start == 0
        for scene, following in itertools.pairwise(episode.scenes):
            assert scene.end == following.start
            assert abs(scene.end - round(scene.end / 1.5) * 1.5) <= 0.2
            assert scene.where != following.where
        assert all(2.7 <= scene.end - scene.start <= 7.8 for scene in episode.scenes)


def test_every_query_fits_exactly_one_scene_of_its_episode(scripts: dict[str, list[Episode]]) -> None:
    for episodes in scripts.values():
        index = annotate.SceneIndex(episodes)
        every_scene = [scene for episode in episodes for scene in episode.scenes]
        for episode in episodes:
            queries = annotate.moment_queries(episode, index, random.Random(1), 0)
            assert Counter(query["type"] for query in queries) == {"v": 2, "t": 2, "vt": 2}
            for query in queries:
                (scene,) = [scene for scene in episode.scenes if scene.satisfies(query["facts"])]
                assert query["ts"] == [scene.start, scene.end]
                assert 0 <= query["ts"][0] < query["ts"][1] <= query["duration"]
                assert query["novel"] == scene.novel
            query = queries[0]
            assert query["matches"] == sum(scene.satisfies(query["facts"]) for scene in every_scene)


def test_a_query_of_one_modality_tells_nothing_of_the_other(scripts: dict[str, list[Episode]]) -> None:
    names = (*world.PLACES, *world.FOODS, *world.PLANS, *world.PEOPLE)
    shown = {*world.CHARACTERS, *world.THINGS}
    index = annotate.SceneIndex(scripts["test"])
    for episode in scripts["test"]:
        for query in annotate.moment_queries(episode, index, random.Random(2), 0):
            heard = any(name in query["desc"] for name in names)
            seen = bool(shown & set(re.findall(r"\w+", query["desc"].lower())))
            assert (seen, heard) == {"v": (True, False), "t": (False, True), "vt": (True, True)}[query["type"]], query


def words(texts: Iterable[str]) -> set[str]:
    """As a tokenizer tells them apart: "Old" is not "old"."""
    return {word for text in texts for word in re.findall(r"\w+", text)}


def test_asides_tell_nothing_that_is_asked_about() -> None:
    """Else a query about what is said, or what is seen, could be answered by a line that says neither."""
    spoken = (*dialogue._CATCHPHRASES.values(), *dialogue._SURROUNDINGS.values(), dialogue._REMARKS)
    said = words(itertools.chain.from_iterable(spoken))
    asked = words((*world.PLACES, *world.FOODS, *world.PLANS, *world.PEOPLE, *world.OPINIONS)) - {"a", "the", "to"}
    shown = {*world.CHARACTERS, *world.THINGS, *world.SETTINGS}
    assert len(asked) > 60
    assert not said & (asked | shown)
    assert not {word.lower() for word in said} & shown


def test_episodes_have_asides_and_these_alone_beside_what_is_asked(scripts: dict[str, list[Episode]]) -> None:
    """Take the asides away, and each speech has its place and its topic, and one sentence about each."""
    spoken = (*dialogue._CATCHPHRASES.values(), *dialogue._SURROUNDINGS.values(), dialogue._REMARKS)
    asides = sorted(itertools.chain.from_iterable(spoken), key=len, reverse=True)
    with_asides = 0
    speeches = [scene.speech for episode in scripts["train"] for scene in episode.scenes if scene.speech]
    for speech in speeches:
        text = " ".join(line.text for line in speech.lines)
        left = text
        for one in asides:
            left = left.replace(one, "")
        with_asides += left != text
        assert speech.place in left
        assert speech.value in left
        assert len(re.findall(r"[.?]", left)) == 2, text
    assert 0.7 < with_asides / len(speeches) < 0.95


def test_test_queries_fit_hardly_any_other_scene(scripts: dict[str, list[Episode]]) -> None:
    index = annotate.SceneIndex(scripts["test"])
    queries = [
        query for episode in scripts["test"] for query in annotate.moment_queries(episode, index, random.Random(3), 0)
    ]
    for kind in annotate.QUERY_TYPES:
        matches = [query["matches"] for query in queries if query["type"] == kind]
        assert sum(matches) / len(matches) <= 1.3
    assert 0.15 < sum(query["novel"] for query in queries) / len(queries) < 0.6


def test_held_out_combinations_are_shown_in_the_test_split_alone(scripts: dict[str, list[Episode]]) -> None:
    held_out = set(world.held_out_combinations(LARGE.seed))
    share = len(held_out) / (7 * 12 * 10 + 21 * 10)
    assert share == pytest.approx(world.HELD_OUT_SHARE, abs=0.01)
    shown = {
        split: {world.combination(one.cast, one.thing, one.where) for episode in episodes for one in episode.scenes}
        for split, episodes in scripts.items()
    }
    assert not shown["train"] & held_out
    assert not shown["val"] & held_out
    assert len(shown["test"] & held_out) > 50
    assert len(shown["test"] - held_out) > 50


def test_the_right_answer_is_the_only_right_one(scripts: dict[str, list[Episode]]) -> None:
    positions: Counter[int] = Counter()
    for episode in scripts["test"]:
        made = questions.questions(episode, random.Random(4), 0)
        assert Counter(row["kind"] for row in made) == {"picture": 2, "dialogue": 2, "order": 2}
        for row in made:
            answers = [row[f"a{number}"] for number in range(5)]
            assert len(set(answers)) == 5
            start, end = map(float, row["ts"].split("-"))
            (scene,) = [scene for scene in episode.scenes if (scene.start, scene.end) == (start, end)]
            right = answers[row["answer_idx"]].lower()
            true_here = [
                *(world.CHARACTERS[name][0] for name in scene.cast),
                *([world.THINGS[scene.thing][0]] if scene.thing else []),
                *(str(value).lower() for value in scene.said.values()),
                world.SETTINGS[scene.where][0],
            ]
            assert any(fact in right for fact in true_here), row
            positions[row["answer_idx"]] += 1
    assert min(positions.values()) > 40


def test_statements_come_in_pairs_of_which_the_false_one_is_false(scripts: dict[str, list[Episode]]) -> None:
    for episode in scripts["test"]:
        made = questions.statements(episode, random.Random(5), 100)
        assert [row["label"] for row in made] == [1, 0] * (len(made) // 2)
        assert {row["kind"] for row in made} == {"picture", "dialogue", "order"}
        for true, false in zip(made[::2], made[1::2], strict=True):
            assert true["pair_id"] == false["pair_id"] == true["id"]
            assert true["statement"] != false["statement"]
            start, end = true["ts"]
            assert false["ts"] == [start, end]
            decide = [scene for scene in episode.scenes if start <= scene.start and scene.end <= end]
            assert (decide[0].start, decide[-1].end) == (start, end)
            # The order of two events is not seen in one of them.
            assert (len(decide) > 1) == (true["kind"] == "order")


def test_captions_cover_every_scene(scripts: dict[str, list[Episode]]) -> None:
    for episode in scripts["val"]:
        made = annotate.captions(episode, random.Random(6), 10)
        assert [row["ts"] for row in made] == [[scene.start, scene.end] for scene in episode.scenes]
        ids = [desc["desc_id"] for row in made for desc in row["descs"]]
        assert len(set(ids)) == len(ids)


def test_without_the_sprites_the_error_names_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(assets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AssetsMissingError, match=r"pip install --no-deps arcade==3\.3\.3"):
        build_corpus(tmp_path / "corpus", PLAN, processes=1)
    assert not (tmp_path / "corpus").exists()


def test_a_plan_without_episodes_is_refused() -> None:
    with pytest.raises(ToonTvError, match="at least one episode"):
        CorpusPlan(train=0, val=0, test=0)


def test_a_folder_with_videos_of_another_corpus_is_refused(corpus: Path) -> None:
    with pytest.raises(ToonTvError, match="not part of this corpus"):
        build_corpus(corpus, CorpusPlan(train=1, val=0, test=0, seed=5), processes=1)


def test_the_command_line_makes_a_corpus(tmp_path: Path) -> None:
    main(tmp_path / "corpus", train=0, val=0, test=1, seed=9, processes=1)
    assert (tmp_path / "corpus" / "videos" / "test_0000.mp4").is_file()
