"""Reading .srt and .vtt files as they occur."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hero_sdk.errors import SubtitleError
from hero_sdk.subtitles import clean_text, read_subtitles, sort_subtitles
from hero_sdk.types import Subtitle

SRT = """1
00:00:01,000 --> 00:00:02,500
<i>One</i> {\\an8}top
and two

00:00:03,000 --> 00:00:04,000 X1:10 X2:20
no counter

3
00:00:05,000 --> 00:00:06,000

4
00:00:07,000 --> 00:00:08,000
with a

blank line
5
00:00:09,000 --> 00:00:10,000
2001

6
100:00:00.5 --> 100:00:01,25
a < b, AT&amp;T\\Nend
"""

VTT = """WEBVTT - a title

STYLE
::cue { color: red }

NOTE in this one
00:00:00.000 stands alone

intro
00:01.000 --> 00:04.000 align:start position:10%
<v Bob>Hello <i.loud>there</i></v>
second line

NOTE
not spoken

5
00:00:05.000 --> 00:00:06.500
a <00:00:05.500>b <00:00:06.000><c>c</c> &amp; &lt;d&gt;

1:00:07.000 --> 1:00:08.000
late"""


def write(folder: Path, content: str | bytes, name: str = "subtitles.srt") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_srt(tmp_path: Path) -> None:
    assert read_subtitles(write(tmp_path, SRT)) == (
        Subtitle(1.0, 2.5, "One top and two"),
        Subtitle(3.0, 4.0, "no counter"),
        Subtitle(7.0, 8.0, "with a blank line"),
        Subtitle(9.0, 10.0, "2001"),
        Subtitle(360000.5, 360001.25, "a < b, AT&T end"),
    )


def test_vtt(tmp_path: Path) -> None:
    assert read_subtitles(write(tmp_path, VTT)) == (
        Subtitle(1.0, 4.0, "Hello there second line"),
        Subtitle(5.0, 6.5, "a b c & <d>"),
        Subtitle(3607.0, 3608.0, "late"),
    )


@pytest.mark.parametrize("text", [SRT, VTT])
def test_content_decides_and_line_ends_and_marks_do_not_matter(tmp_path: Path, text: str) -> None:
    expected = read_subtitles(write(tmp_path, text, "plain.txt"))
    dos = text.replace("\n", "\r\n")
    for content in (dos.encode(), dos.encode("utf-8-sig"), text.encode("utf-16"), text.replace("\n", "\r").encode()):
        assert read_subtitles(write(tmp_path, content, "misnamed.vtt")) == expected


def test_encodings(tmp_path: Path) -> None:
    cue = "1\n00:00:01,000 --> 00:00:02,000\nça “va” – naïve\n"
    for encoding in ("utf-8", "cp1252", "utf-16-le"):
        mark = b"\xff\xfe" if encoding == "utf-16-le" else b""
        (subtitle,) = read_subtitles(write(tmp_path, mark + cue.encode(encoding)))
        assert subtitle.text == "ça “va” – naïve"


def test_sorted_by_start_and_equal_starts_keep_their_order(tmp_path: Path) -> None:
    text = "".join(
        f"00:00:0{start},000 --> 00:00:09,000\n{word}\n\n" for start, word in [(5, "c"), (1, "a"), (5, "d"), (2, "b")]
    )
    assert [subtitle.text for subtitle in read_subtitles(write(tmp_path, text))] == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"WEBVTT\n\nNOTE nothing here\n", "no cue with text"),
        (b"[Script Info]\nDialogue: 0,0:00:01.00,0:00:02.00\n", "no cue with text.*ffmpeg"),
        (b"1\n00:00:01,000 --> 00:00:02,000\n<i></i>\n", "no cue with text"),
        (
            b"1\n00:00:05,000 --> 00:00:02,000\nx\n",
            "line 2: the cue '00:00:05,000 --> 00:00:02,000' ends before it starts",
        ),
        (b"1\n00:00:01,000 --> 00:00:02\nx\n", "line 2: .* cannot be read"),
        (b"1\n-00:00:01,000 --> 00:00:02,000\nx\n", "line 2: .* cannot be read"),
        (b"1\n00:00:01,000 --> NaN\nx\n", "line 2: .* cannot be read"),
        (bytes(range(256)) * 4, "is not text"),
        (b"\0\0\0\x20ftypisom", "is not text"),
    ],
)
def test_what_cannot_be_read_says_so(tmp_path: Path, content: bytes, message: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(SubtitleError, match=message) as caught:
        read_subtitles(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.srt", tmp_path):
        with pytest.raises(SubtitleError, match="is not a file"):
            read_subtitles(path)


def test_a_video_passed_as_subtitles_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    with path.open("wb") as file:
        file.truncate(10 << 30)
    with pytest.raises(SubtitleError, match="at most"):
        read_subtitles(path)


@pytest.mark.parametrize("times", [(math.nan, 1.0), (0.0, math.inf), (-1.0, 1.0), (2.0, 1.0), (1.0, math.nan)])
def test_times_that_make_no_sense(times: tuple[float, float]) -> None:
    with pytest.raises(SubtitleError, match=r"Subtitle 1 \('bad'\)"):
        sort_subtitles([Subtitle(0.0, 1.0, "good"), Subtitle(*times, "bad")])


def test_sort_subtitles() -> None:
    assert sort_subtitles([Subtitle(2, 3, "b"), Subtitle(1, 9, "a"), Subtitle(2, 2, "c")]) == (
        Subtitle(1, 9, "a"),
        Subtitle(2, 3, "b"),
        Subtitle(2, 2, "c"),
    )


@given(st.text())
def test_clean_text_is_one_line(text: str) -> None:
    assert clean_text(text) == " ".join(clean_text(text).split())


TIMES = st.integers(0, 10**8)
WORDS = st.lists(st.from_regex(r"[a-zA-Z][a-zA-Z0-9',.?!]{0,8}", fullmatch=True), min_size=1, max_size=5).map(" ".join)


@given(st.lists(st.tuples(TIMES, TIMES, WORDS), min_size=1, max_size=8), st.booleans())
def test_what_was_written_is_read(tmp_path_factory: pytest.TempPathFactory, cues: list, vtt: bool) -> None:
    def stamp(milliseconds: int) -> str:
        seconds, rest = divmod(milliseconds, 1000)
        return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{'.' if vtt else ','}{rest:03}"

    blocks = [
        f"{number}\n{stamp(min(a, b))} --> {stamp(max(a, b))}\n{text}\n" for number, (a, b, text) in enumerate(cues, 1)
    ]
    path = write(tmp_path_factory.mktemp("cues"), ("WEBVTT\n\n" if vtt else "") + "\n".join(blocks))
    expected = sort_subtitles(Subtitle(min(a, b) / 1000, max(a, b) / 1000, text) for a, b, text in cues)
    found = read_subtitles(path)
    assert [subtitle.text for subtitle in found] == [subtitle.text for subtitle in expected]
    for one, other in zip(found, expected, strict=True):
        assert (one.start, one.end) == pytest.approx((other.start, other.end), abs=1e-9)
