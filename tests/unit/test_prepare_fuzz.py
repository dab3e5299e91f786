"""Whatever stands in a file, a reader gives records or says what is wrong; it never ends in another error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hero_train.data.subtitles import parse_subtitles
from hero_train.errors import DataError
from hero_train.prepare.pieces import Pieces, to_piece
from hero_train.prepare.records import Unusable
from hero_train.prepare.schemas import SCHEMAS
from hero_train.prepare.tables import read_rows
from tests.unit.releases import DIDEMO, MSRVTT, TVC, TVQA, TVR, VIOLIN

RECORDS: dict[str, list[dict[str, Any]]] = {
    "tvr": [TVR[0]],
    "how2r": [{"video_id": "v", "clip": "[0:60]", "moment": "[1:2]", "query": "a"}, TVR[0]],
    "didemo": [DIDEMO[0], TVR[0]],
    "msrvtt": [
        MSRVTT["sentences"][0] | {"split": "train", "duration": 9.5},
        {"key": "r", "sentence": "a", "video_id": "v"},
    ],
    "tvqa": [TVQA[0]],
    "how2qa": [dict.fromkeys(SCHEMAS["how2qa"].columns, "a") | {"moment": "[1:2]"}, TVQA[0]],
    "violin": [next(iter(VIOLIN.values())), {"id": "a", "statement": "b", "vid_name": "v", "label": 1}],
    "tvc": [TVC[0], {"clip_id": 1, "vid_name": "v", "ts": "1-2", "desc": "a"}],
}

# Text with half characters and control characters, numbers that no float holds, NaN and infinity.
texts = st.text(st.characters(codec=None), max_size=6) | st.sampled_from(
    ["1-2", "[1:2]", "nan-nan", "-", "[", "..", "a/b", "&#x;"]
)
scalars = st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)


@pytest.mark.parametrize("name", SCHEMAS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_record_is_read_or_refused(name: str, data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from(RECORDS[name]))
    changed = data.draw(st.dictionaries(st.sampled_from(sorted(whole)), values, max_size=3))
    missing = data.draw(st.sets(st.sampled_from(sorted(whole)), max_size=1))
    row = {key: value for key, value in (whole | changed).items() if key not in missing}
    try:
        records = [to_piece(record, Pieces(60, every=True)) for record in SCHEMAS[name].parse(row, 7)]
    except Unusable:
        return
    for record in records:
        line = json.loads(json.dumps(record.as_line(), allow_nan=False))
        assert line["vid_name"]
        json.dumps(line, ensure_ascii=False).encode()


@settings(max_examples=60, deadline=None)
@given(
    lines=values
    | st.lists(
        st.fixed_dictionaries({"text": texts | scalars, "start": scalars, "end": scalars}), min_size=1, max_size=3
    )
)
def test_subtitles_are_read_or_refused(lines: Any) -> None:
    try:
        found = parse_subtitles(lines, "Line 1")
    except DataError:
        return
    assert all(0 <= one.start <= one.end for one in found)


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=60) | st.lists(values.map(lambda value: json.dumps(value).encode())).map(b"\n".join))
@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, suffix: str, content: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / f"file{suffix}"
    path.write_bytes(content)
    for schema in SCHEMAS.values():
        try:
            rows = list(read_rows(path, schema.columns, schema.positional, schema.flatten))
        except DataError:
            continue
        assert all((row.content is None) == (row.problem is not None) for row in rows)


@pytest.mark.parametrize("line", ["1" * 5000, "[" * 100_000, '{"a": ' * 100_000, "{}" * 3])
def test_a_line_that_breaks_the_parser_is_a_row_with_a_problem(
    tmp_path_factory: pytest.TempPathFactory, line: str
) -> None:
    path = tmp_path_factory.mktemp("deep") / "file.jsonl"
    path.write_text(f'{{"a": 1}}\n{line}\n')
    whole, broken = read_rows(path, (), positional=False, flatten=None)
    assert whole.content == {"a": 1}
    assert broken.problem is not None
    path.write_text(line)
    (alone,) = read_rows(path, (), positional=False, flatten=None)
    assert alone.problem is not None
