"""Moment queries as TVR writes them, and the clips that a moment becomes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hero_train.data.annotations import MomentQuery, moment_clips, read_json_lines, read_moment_queries
from hero_train.errors import DataError

# The fields and their spelling are those of the released TVR files.
LINE: dict[str, Any] = {
    "desc_id": 90200,
    "desc": "Phoebe puts one of her ponytails in her mouth.",
    "duration": 59.84,
    "ts": [32.78, 37.79],
    "type": "v",
    "vid_name": "friends_s01e03_seg02_clip_19",
}


def write(path: Path, *lines: str | dict[str, Any]) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


def test_a_line_of_tvr_is_read(tmp_path: Path) -> None:
    assert read_moment_queries(write(tmp_path / "train.jsonl", LINE)) == [
        MomentQuery(
            query_id="90200",
            text="Phoebe puts one of her ponytails in her mouth.",
            video_id="friends_s01e03_seg02_clip_19",
            moments=((32.78, 37.79),),
            type="v",
        )
    ]


def test_order_is_kept_and_empty_lines_are_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", {**LINE, "desc_id": 2}, "", "  ", {**LINE, "desc_id": "one"}, "")
    assert [query.query_id for query in read_moment_queries(path)] == ["2", "one"]
    assert [number for number, _ in read_json_lines(path)] == [1, 4]


def test_a_query_without_type_is_about_both(tmp_path: Path) -> None:
    line = {name: value for name, value in LINE.items() if name != "type"}
    assert read_moment_queries(write(tmp_path / "train.jsonl", line))[0].type == "vt"


def test_a_line_of_didemo_has_a_moment_of_each_annotator(tmp_path: Path) -> None:
    """Training aims at the one that most of them marked, the first where none has more."""
    marked = [[5, 10], [0, 5], [0, 5], [20, 30]]
    (query,) = read_moment_queries(write(tmp_path / "train.jsonl", {**LINE, "ts": marked}))
    assert query.moments == ((5.0, 10.0), (0.0, 5.0), (0.0, 5.0), (20.0, 30.0))
    assert query.moment == (0.0, 5.0)
    (query,) = read_moment_queries(write(tmp_path / "train.jsonl", {**LINE, "ts": marked[:2]}))
    assert query.moment == (5.0, 10.0)


def test_a_line_of_msrvtt_has_no_moment(tmp_path: Path) -> None:
    """Its sentence is about the whole video."""
    without = {name: value for name, value in LINE.items() if name != "ts"}
    for query in read_moment_queries(write(tmp_path / "train.jsonl", without, {**LINE, "ts": None})):
        assert query.moments == ()
        assert query.moment is None


def test_text_is_read_as_utf8_and_lines_end_at_line_feeds_only(tmp_path: Path) -> None:
    """A separator that Unicode counts as a line end may stand in a sentence."""
    text = "Żółw says\u2028“hi”\x85"
    (tmp_path / "train.jsonl").write_text(json.dumps({**LINE, "desc": text}, ensure_ascii=False), encoding="utf-8")
    assert read_moment_queries(tmp_path / "train.jsonl")[0].text == text


def test_a_file_with_windows_line_ends_and_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(
        b"\xef\xbb\xbf" + json.dumps(LINE).encode() + b"\r\n" + json.dumps(LINE).encode() + b"\r\n"
    )
    assert len(read_moment_queries(tmp_path / "train.jsonl")) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "is not JSON"),
        ("[1, 2]", "is a list; expected an object"),
        ("3", "is a int; expected an object"),
        *(
            ({key: value for key, value in LINE.items() if key != name}, rf"has no \['{name}'\]; a query has")
            for name in ("desc_id", "desc", "vid_name")
        ),
        ({"desc_id": 1}, r"has no \['desc', 'vid_name'\]"),
        ({**LINE, "type": "video"}, r"has type 'video'; expected one of \('v', 't', 'vt'\)"),
        ({**LINE, "type": None}, "has type None"),
        ({**LINE, "desc": " \t"}, "has an empty desc"),
        ({**LINE, "desc": 3}, "has an empty desc"),
        ({**LINE, "ts": [3.0, 3.0]}, r"has ts \[3.0, 3.0\]; expected \[start, end\] in seconds"),
        ({**LINE, "ts": [4, 3]}, r"has ts \[4, 3\]"),
        ({**LINE, "ts": [-1, 3]}, r"has ts \[-1, 3\]"),
        ({**LINE, "ts": [0, 1, 2]}, r"has ts \[0, 1, 2\]"),
        ({**LINE, "ts": ["0", "1"]}, r"has ts \['0', '1'\]"),
        ({**LINE, "ts": "0-1"}, "has ts '0-1'"),
        ({**LINE, "ts": []}, r"has ts \[\]"),
        ({**LINE, "ts": [[0, 5], [5, 3]]}, r"has ts \[5, 3\]; expected \[start, end\]"),
        ({**LINE, "ts": [[0, 5], 5]}, "has ts 5"),
        ('{"desc_id": 1, "desc": "a", "vid_name": "b", "ts": [0, NaN]}', r"has ts \[0, nan\]"),
        ('{"desc_id": 1, "desc": "a", "vid_name": "b", "ts": [0, Infinity]}', r"has ts \[0, inf\]"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path: Path, line: str | dict[str, Any], message: str) -> None:
    path = write(tmp_path / "train.jsonl", LINE, "", line, LINE)
    with pytest.raises(DataError, match=message) as caught:
        read_moment_queries(path)
    assert str(caught.value).startswith(f"Line 3 of {path} ")


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_file_without_query(tmp_path: Path, content: str) -> None:
    (tmp_path / "train.jsonl").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=r"train\.jsonl has no query in it"):
        read_moment_queries(tmp_path / "train.jsonl")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no annotation file .*train\.jsonl"):
        read_moment_queries(tmp_path / "train.jsonl")


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"train\.jsonl is not UTF-8"):
        read_moment_queries(tmp_path / "train.jsonl")


@st.composite
def moments(draw: st.DrawFn) -> tuple[float, float, int]:
    """Start, end and number of clips, in quarters of a second so that sums are exact; the moment starts in the video."""
    clips = draw(st.integers(1, 30))
    start = draw(st.integers(0, clips * 6 - 1))
    return start / 4, (start + draw(st.integers(1, 100))) / 4, clips


@given(moments())
def test_outward_takes_every_clip_that_the_moment_touches_and_at_least_two(moment: tuple[float, float, int]) -> None:
    start, end, clips = moment
    touched = [clip for clip in range(clips) if clip * 1.5 < end and start < (clip + 1) * 1.5]
    second = min(touched[0] + 1, clips - 1)
    assert moment_clips(start, end, 1.5, clips, "outward") == (touched[0], max(touched[-1], second))


@given(moments())
def test_middle_takes_the_clips_whose_middle_lies_in_the_moment(moment: tuple[float, float, int]) -> None:
    start, end, clips = moment
    within = [clip for clip in range(clips) if start <= (clip + 0.5) * 1.5 < end]
    first, last = moment_clips(start, end, 1.5, clips, "middle")
    if within:
        assert (first, last) == (within[0], within[-1])
    else:
        # Shorter than a clip and between two middles, or after the last one: the clip of the next middle.
        later = [clip for clip in range(clips) if (clip + 0.5) * 1.5 >= start] or [clips - 1]
        assert first == last == later[0]


@pytest.mark.parametrize("rounding", ["outward", "middle"])
@given(st.floats(0, 500), st.floats(0.001, 500), st.integers(1, 100), st.sampled_from([0.5, 1.0, 1.5, 2.0]))
def test_the_clips_lie_in_the_video_in_order(
    rounding: Any, start: float, length: float, clips: int, interval: float
) -> None:
    first, last = moment_clips(start, start + length, interval, clips, rounding)
    assert 0 <= first <= last < clips


def test_moments_of_the_authors_preprocessing() -> None:
    """st = floor(t0 / 1.5), ed = min(max(ceil(t1 / 1.5) - 1, st + 1), clips - 1)."""
    for moment, expected in {
        (32.78, 37.79): (21, 25),
        (0.0, 1.5): (0, 1),
        (3.0, 6.0): (2, 3),
        (3.0, 6.1): (2, 4),
        (57.0, 59.84): (38, 38),
    }.items():
        assert moment_clips(*moment, 1.5, 39) == expected
