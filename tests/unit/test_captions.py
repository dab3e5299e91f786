"""Captioned moments as TVC and ToonTV write them, and what the decoder reads of them and is to say."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo.toontv import annotate, write
from demo.toontv.corpus import CorpusPlan, write_scripts
from hero_sdk.captioning import moment_span
from hero_sdk.rows import RowGeometry, VideoInput
from hero_sdk.tokens import BEGIN_ID, PAD_ID, SEPARATOR_ID, TextTokenizer
from hero_train.data.captions import (
    IGNORED_TOKEN,
    CaptionBatch,
    CaptionedMoment,
    CaptionSampler,
    CaptionSamplingConfig,
    CaptionVideo,
    EncodedMoment,
    build_caption_corpus,
    collate_captions,
    read_captioned_moments,
)
from hero_train.data.features import VideoFeatures
from hero_train.errors import ConfigError, DataError
from hero_train.tokenizer import train_tokenizer_json
from tests.tiny_training import tiny_config, write_annotations
from tests.unit.batch_contents import contents
from tests.unit.tiny_videos import write_srt

# The fields and their spelling are those of the released TVC files.
LINE: dict[str, Any] = {
    "vid_name": "friends_s01e03_seg02_clip_19",
    "duration": 59.84,
    "ts": [32.78, 37.79],
    "clip_id": 90200,
    "descs": [
        {
            "desc": "Phoebe puts one of her ponytails in her mouth.",
            "from_retrieval": True,
            "type": "v",
            "desc_id": 90200,
        },
        {"desc": "Phoebe chews her hair.", "from_retrieval": False, "type": "v", "desc_id": 162500},
    ],
}
GEOMETRY = RowGeometry(slots=32, frames=16, temporal_slots=16, query_tokens=8)
LINES = ["we look for the gem", "here it is", "let us go home"]
CONFIG = tiny_config(clip_limit=5)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in LINE.items() if key != name}


def test_a_line_of_tvc_is_read(tmp_path: Path) -> None:
    assert read_captioned_moments(write_annotations(tmp_path / "train.jsonl", [LINE])) == [
        CaptionedMoment(
            moment_id="90200",
            video_id="friends_s01e03_seg02_clip_19",
            start=32.78,
            end=37.79,
            captions=("Phoebe puts one of her ponytails in her mouth.", "Phoebe chews her hair."),
        )
    ]


def test_a_split_to_be_captioned_has_moments_alone(tmp_path: Path) -> None:
    path = write_annotations(tmp_path / "test.jsonl", [without("descs"), {**LINE, "clip_id": 2, "descs": []}])
    moments = read_captioned_moments(path, captioned=False)
    assert [(moment.moment_id, moment.captions) for moment in moments] == [("90200", ()), ("2", ())]
    with pytest.raises(DataError, match=r"Line 1 of .*test\.jsonl has no \['descs'\]; a captioned moment has clip_id"):
        read_captioned_moments(path)


def test_what_toontv_writes_is_read_whole(tmp_path: Path) -> None:
    (episode,) = write_scripts(CorpusPlan(train=1, val=0, test=0, seed=5))["train"]
    rows = annotate.captions(episode, random.Random(0), 100)
    write.write_jsonl(tmp_path / "captions.jsonl", rows)
    moments = read_captioned_moments(tmp_path / "captions.jsonl")
    assert len(moments) == len(episode.scenes)
    for moment, scene, row in zip(moments, episode.scenes, rows, strict=True):
        assert (moment.video_id, moment.start, moment.end) == (episode.video_id, scene.start, scene.end)
        assert moment.moment_id == str(row["clip_id"])
        assert list(moment.captions) == [one["desc"] for one in row["descs"]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (without("clip_id"), r"has no \['clip_id'\]; a captioned moment has clip_id, vid_name, ts, descs"),
        (without("vid_name"), r"has no \['vid_name'\]; a captioned moment has"),
        (without("ts"), r"has no \['ts'\]; a captioned moment has"),
        (without("descs"), r"has no \['descs'\]; a captioned moment has"),
        ({**LINE, "descs": []}, r"has descs \[\]; expected a list of captions, each an object with desc"),
        ({**LINE, "descs": "a caption"}, "has descs 'a caption'; expected a list of captions"),
        ({**LINE, "descs": ["a caption"]}, "has the caption 'a caption'; expected an object with a sentence in desc"),
        ({**LINE, "descs": [{"desc_id": 1}]}, "has the caption {'desc_id': 1}; expected an object with a sentence"),
        ({**LINE, "descs": [{"desc": " "}]}, "has the caption {'desc': ' '}; expected an object with a sentence"),
        ({**LINE, "descs": [{"desc": 3}]}, "has the caption {'desc': 3}; expected an object with a sentence"),
        ({**LINE, "ts": [5.0, 5.0]}, r"has ts \[5.0, 5.0\]; expected \[start, end\] in seconds"),
        ({**LINE, "ts": 5.0}, r"has ts 5.0; expected \[start, end\] in seconds"),
        ({**LINE, "ts": [0.0, float("nan")]}, r"has ts \[0.0, nan\]; expected \[start, end\]"),
    ],
)
def test_a_line_that_is_no_captioned_moment(tmp_path: Path, line: dict[str, Any], message: str) -> None:
    path = write_annotations(tmp_path / "train.jsonl", [{**LINE, "clip_id": 1}, line])
    with pytest.raises(DataError, match=rf"Line 2 of .*train\.jsonl {message}"):
        read_captioned_moments(path)


def test_two_moments_of_one_id(tmp_path: Path) -> None:
    path = write_annotations(tmp_path / "train.jsonl", [LINE, {**LINE, "clip_id": "90200"}])
    with pytest.raises(DataError, match=r"Line 2 of .* has clip_id 90200, as an earlier line has"):
        read_captioned_moments(path)


@pytest.mark.parametrize("captioned", [True, False])
def test_a_file_without_a_moment(tmp_path: Path, captioned: bool) -> None:
    (tmp_path / "train.jsonl").write_text("\n")
    with pytest.raises(DataError, match=r"train\.jsonl has no moment in it"):
        read_captioned_moments(tmp_path / "train.jsonl", captioned=captioned)
    with pytest.raises(DataError, match="There is no annotation file"):
        read_captioned_moments(tmp_path / "none.jsonl", captioned=captioned)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (3.2, 7.6, (2, 5)),  # 7.6 / 1.5 is nearer to 5 than to 6
        (3.2, 8.4, (2, 6)),
        (0.0, 0.3, (0, 1)),
        (4.4, 4.6, (2, 3)),
        (4.6, 4.7, (3, 4)),
        (13.0, 99.0, (8, 10)),
        (14.9, 15.0, (9, 10)),
        (0.0, 3.75, (0, 2)),  # halves go to the even number
    ],
)
def test_the_clips_of_a_moment(start: float, end: float, expected: tuple[int, int]) -> None:
    assert moment_span(start, end, 1.5, 10) == expected


@given(start=st.floats(0, 29.9), length=st.floats(0.01, 60), clips=st.integers(20, 40))
def test_a_moment_has_at_least_one_clip_of_its_video(start: float, length: float, clips: int) -> None:
    first, stop = moment_span(start, start + length, 1.5, clips)
    assert 0 <= first < stop <= clips
    assert first * 1.5 <= start < (first + 1) * 1.5


@pytest.fixture(scope="module")
def tokenizer() -> TextTokenizer:
    return TextTokenizer(train_tokenizer_json(LINES, 300))


def features(clips: int) -> VideoFeatures:
    return VideoFeatures(np.arange(clips * 2, dtype=np.float32).reshape(clips, 2), clips * 1.5)


MOMENTS = [
    CaptionedMoment("0", "long", 1.0, 4.0, ("who has the gem", "they look")),
    CaptionedMoment("1", "short", 0.0, 2.0, ("somebody goes",)),
    CaptionedMoment("2", "long", 6.0, 9.0, ("THEY GO HOME",)),
    CaptionedMoment("3", "long", 7.5, 9.0, ("after the last clip that is read",)),
]


def test_videos_have_their_moments_and_what_the_encoders_read(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    write_srt(tmp_path / "long.srt", LINES)
    long, short = build_caption_corpus(
        MOMENTS, {"long": features(8), "short": features(2)}, tmp_path, tokenizer, CONFIG
    )
    assert (long.video_id, short.video_id) == ("long", "short")
    # 7.5 s is after the last clip that is read, which then stands for it.
    assert [(one.annotation.moment_id, one.first, one.stop, one.reachable) for one in long.moments] == [
        ("0", 0, 3, True),
        ("2", 4, 5, True),
        ("3", 4, 5, False),
    ]
    assert [(one.annotation.moment_id, one.first, one.stop) for one in short.moments] == [("1", 0, 1)]
    assert np.array_equal(long.input.features, features(8).features[:5])
    # Three seconds each; the third line starts with the fifth clip.
    assert [segment.frames.tolist() for segment in long.input.segments] == [[0, 1], [2, 3], [4]]
    assert long.input.segments[1].tokens.tolist() == [SEPARATOR_ID, *tokenizer.encode("here it is")]
    assert [one.tolist() for one in long.moments[0].captions] == [
        tokenizer.encode(text).tolist() for text in ("who has the gem", "they look")
    ]
    assert long.moments[1].captions[0].tolist() == tokenizer.encode("they go home").tolist()


def test_a_video_without_features(tokenizer: TextTokenizer) -> None:
    with pytest.raises(DataError, match="Moment 1 lies in the video short, which has no features"):
        build_caption_corpus(MOMENTS, {"long": features(8)}, None, tokenizer, CONFIG)


def video(name: str, clips: int, *moments: tuple[int, int, list[list[int]]]) -> CaptionVideo:
    encoded = [
        EncodedMoment(
            CaptionedMoment(f"{name}{number}", name, 0.0, 1.0, ()),
            first,
            stop,
            tuple(np.array(caption, dtype=np.int32) for caption in captions),
        )
        for number, (first, stop, captions) in enumerate(moments)
    ]
    return CaptionVideo(name, VideoInput(np.ones((clips, 2), np.float32), ()), encoded)


VIDEOS = [video("a", 4, (1, 3, [[11, 12, 13], [14]]), (0, 4, [[15, 16]])), video("b", 2), video("c", 3, (2, 3, [[17]]))]


def test_a_batch_reads_a_caption_and_says_it_one_word_later() -> None:
    batch = collate_captions(VIDEOS, GEOMETRY, 30)
    assert batch.moments.tolist() == [[0, 1, 3], [0, 0, 4], [2, 2, 3]]
    assert batch.caption_moment.tolist() == [0, 0, 1, 2]
    assert batch.token_ids.tolist() == [
        [BEGIN_ID, 11, 12, 13],
        [BEGIN_ID, 14, PAD_ID, PAD_ID],
        [BEGIN_ID, 15, 16, PAD_ID],
        [BEGIN_ID, 17, PAD_ID, PAD_ID],
    ]
    assert batch.target_ids.tolist() == [
        [11, 12, 13, SEPARATOR_ID],
        [14, SEPARATOR_ID, IGNORED_TOKEN, IGNORED_TOKEN],
        [15, 16, SEPARATOR_ID, IGNORED_TOKEN],
        [17, SEPARATOR_ID, IGNORED_TOKEN, IGNORED_TOKEN],
    ]
    assert batch.token_ids.dtype == batch.target_ids.dtype == np.int32
    assert [span.length for span in batch.packed.videos] == [4, 2, 3]


def test_a_caption_that_is_too_long_loses_its_end() -> None:
    batch = collate_captions(VIDEOS, GEOMETRY, 2)
    assert batch.token_ids.tolist() == [[BEGIN_ID, 11], [BEGIN_ID, 14], [BEGIN_ID, 15], [BEGIN_ID, 17]]
    assert batch.target_ids.tolist() == [[11, 12], [14, SEPARATOR_ID], [15, 16], [17, SEPARATOR_ID]]


def test_moments_to_be_captioned_make_a_batch_without_words() -> None:
    batch = collate_captions([video("a", 4, (1, 3, [])), video("b", 2)], GEOMETRY, 30)
    assert batch.moments.tolist() == [[0, 1, 3]]
    assert len(batch.token_ids) == len(batch.target_ids) == len(batch.caption_moment) == 0
    assert collate_captions([video("b", 2)], GEOMETRY, 30).moments.shape == (0, 3)


def test_lines_are_read_as_they_stand(tmp_path: Path) -> None:
    text = "Żółw says\u2028“hi”"
    line = {**LINE, "descs": [{"desc": text}]}
    (tmp_path / "train.jsonl").write_text(json.dumps(line, ensure_ascii=False) + "\n\n", encoding="utf-8")
    assert read_captioned_moments(tmp_path / "train.jsonl")[0].captions == (text,)


# Caption 100 * video + 10 * moment + n; moment n of a video has n + 1 captions, and its first clip is n.
MANY = [
    video(str(number), 4, *((m, m + 1, [[100 * number + 10 * m + n] for n in range(m + 1)]) for m in range(3)))
    for number in range(1, 11)
]


def sampler(seed: int = 5, rank: int = 0, world: int = 1, **config: int) -> CaptionSampler:
    return CaptionSampler(MANY, CaptionSamplingConfig(**{"videos": 3, **config}), GEOMETRY, seed, rank, world)


def drawn(batch: CaptionBatch) -> list[int]:
    """The captions of a batch, each checked to stand by its own moment."""
    captions = batch.target_ids[:, 0].tolist()
    for caption, moment in zip(captions, batch.moments[batch.caption_moment].tolist(), strict=True):
        assert moment[1] == caption // 10 % 10
    shown = {}
    for caption, moment in zip(captions, batch.moments[batch.caption_moment].tolist(), strict=True):
        assert shown.setdefault(moment[0], caption // 100) == caption // 100
    assert len(set(shown.values())) == len(shown) == len(batch.packed.videos)
    return captions


def test_every_video_is_drawn_once_in_a_pass() -> None:
    draw = sampler(videos=5)
    passes = [
        [number // 100 for step in (2 * turn, 2 * turn + 1) for number in drawn(draw.batch(step))] for turn in (0, 1)
    ]
    for order in passes:
        assert sorted(set(order)) == list(range(1, 11))
        assert len(order) == 10 * 4
    assert passes[0] != passes[1]


def test_captions_are_drawn_at_most_once_and_all_in_time() -> None:
    draw, seen = sampler(captions_per_video=2), set()
    for step in range(60):
        captions = drawn(draw.batch(step))
        assert len(set(captions)) == len(captions) == 3 * 2
        seen |= set(captions)
    assert seen == {100 * number + 10 * m + n for number in range(1, 11) for m in range(3) for n in range(m + 1)}
    assert len(drawn(sampler(captions_per_video=99).batch(0))) == 3 * 6


def test_moments_without_a_drawn_caption_are_not_encoded() -> None:
    batch = sampler(captions_per_video=1).batch(0)
    assert len(batch.moments) == len(batch.caption_moment) == 3


def test_a_batch_is_a_function_of_seed_step_and_rank() -> None:
    assert drawn(sampler().batch(4)) == drawn(sampler().batch(4))
    assert len({tuple(drawn(sampler(seed=seed).batch(step))) for seed in (5, 6) for step in (0, 1)}) == 4
    joint = [drawn(sampler(rank=rank, world=3).batch(0)) for rank in range(3)]
    assert len({caption // 100 for part in joint for caption in part}) == 9


def test_the_joint_batch_is_that_of_one_process_with_as_many_videos() -> None:
    parts = [sampler(rank=rank, world=3, captions_per_video=2) for rank in range(3)]
    single = sampler(videos=9, captions_per_video=2)
    for step in range(4):
        assert contents([part.batch(step) for part in parts]) == contents([single.batch(step)])


def test_a_moment_after_the_last_clip_that_is_read_is_not_trained_on() -> None:
    beyond = [replace(moment, reachable=False) for moment in video("11", 4, (3, 4, [[999]])).moments]
    mixed = [replace(MANY[0], moments=[*MANY[0].moments, *beyond]), *MANY[1:]]
    draw = CaptionSampler(mixed, CaptionSamplingConfig(videos=10, captions_per_video=99), GEOMETRY, 5)
    assert 999 not in draw.batch(0).target_ids
    only = replace(MANY[0], moments=beyond)
    with pytest.raises(DataError, match="has 10 videos with captions and a batch takes 11"):
        CaptionSampler([*MANY, only], CaptionSamplingConfig(videos=11), GEOMETRY, 0)


def test_a_long_caption_is_cut_to_the_limit() -> None:
    long = [video("1", 4, (0, 1, [[7] * 20]))]
    draw = CaptionSampler(long, CaptionSamplingConfig(videos=1, token_limit=6), GEOMETRY, 0)
    assert draw.batch(0).token_ids.shape == (1, 6)


def test_too_few_videos_with_captions() -> None:
    without_words = video("11", 4, (0, 1, []))
    with pytest.raises(DataError, match=r"has 10 videos with captions and a batch takes 12; lower sampling\.videos"):
        CaptionSampler([*MANY, without_words, without_words], CaptionSamplingConfig(videos=6), GEOMETRY, 0, 0, 2)


@pytest.mark.parametrize("name", ["videos", "captions_per_video", "token_limit"])
def test_a_batch_of_nothing(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"sampling\.{name} is 0; expected at least 1"):
        CaptionSamplingConfig(**{name: 0})
