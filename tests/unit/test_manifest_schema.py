"""The schema that ships is the dataclasses' own, and a public validator judges by it as the reader judges."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from hero_sdk.errors import BundleError
from hero_sdk.manifest import FORMAT_VERSION, GraphSpec, Manifest, ModelSpec, MomentSpec
from hero_sdk.manifest_schema import _type, manifest_schema, shipped_schema
from tests.tiny_bundle import write_tiny_bundle
from tests.unit.test_manifest import manifest

SCHEMA = shipped_schema()
ODD = [None, True, -1, 0, 1, 1.5, "", "x", [], ["x"], {}, {"x": 1}]


def fits_schema(content: object) -> bool:
    return Draft202012Validator(SCHEMA).is_valid(content)


def is_read(content: object) -> bool:
    try:
        Manifest.from_json(json.dumps(content))
    except BundleError:
        return False
    return True


def test_what_ships_is_what_the_dataclasses_say() -> None:
    assert manifest_schema() == SCHEMA, "run python -m hero_sdk.manifest_schema"


def test_it_is_a_schema_of_the_draft_that_it_names() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(SCHEMA)


def test_manifests_fit(tmp_path: Path) -> None:
    written = json.loads((write_tiny_bundle(tmp_path / "bundle") / "manifest.json").read_text(encoding="utf-8"))
    for content in (written, json.loads(manifest().to_json())):
        Draft202012Validator(SCHEMA).validate(content)
        assert is_read(content)


def test_every_entry_is_described() -> None:
    definitions = SCHEMA["$defs"]
    for kind in (ModelSpec, GraphSpec):
        properties = definitions[kind.__name__]["properties"]
        assert list(properties) == [item.name for item in dataclasses.fields(kind)]
    described = {name for name, value in definitions["ModelSpec"]["properties"].items() if value.get("description")}
    assert described == {item.name for item in dataclasses.fields(ModelSpec)}
    assert definitions["GraphSpec"]["properties"]["outputs"]["description"] == "in the order of the graph."
    assert SCHEMA["properties"]["format_version"] == {"const": FORMAT_VERSION}


def test_an_entry_that_may_be_nothing() -> None:
    definitions: dict[str, Any] = {}
    assert _type(MomentSpec | None, definitions) == {"anyOf": [{"$ref": "#/$defs/MomentSpec"}, {"type": "null"}]}
    assert list(definitions) == ["MomentSpec"]


def places(value: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def changed(content: Any, path: tuple[Any, ...], value: object) -> Any:
    if not path:
        return value
    result = copy.deepcopy(content)
    inner = result
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return result


def without(content: Any, path: tuple[Any, ...]) -> Any:
    result = copy.deepcopy(content)
    inner = result
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return result


CONTENT = json.loads(manifest().to_json())


@pytest.mark.parametrize("path", list(places(CONTENT)), ids=lambda path: "/".join(map(str, path)) or "all")
def test_what_the_reader_takes_the_schema_takes(path: tuple[Any, ...]) -> None:
    variants = [changed(CONTENT, path, value) for value in ODD] + ([without(CONTENT, path)] if path else [])
    for content in variants:
        if is_read(content):
            assert fits_schema(content), (path, content)


def test_what_the_schema_refuses_is_most_of_what_the_reader_refuses() -> None:
    """The rest is what a schema cannot say: files that are used and not listed, more frames than slots."""
    refused, by_schema = 0, 0
    for path in places(CONTENT):
        for value in ODD:
            content = changed(CONTENT, path, value)
            if not is_read(content):
                refused += 1
                by_schema += not fits_schema(content)
    assert refused > 500
    assert by_schema / refused > 0.95


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("author",), "x"),
        (("geometry", "slots"), 0),
        (("model", "clip_interval"), 0),
        (("files", "../x"), {"sha256": "0" * 64, "bytes": 1}),
        (("files", "x"), {"sha256": "0" * 63, "bytes": 1}),
        (("files", "x"), {"sha256": "0" * 64, "bytes": -1}),
        (("graphs", "query", "max_batch"), 0),
        (("graphs", "query", "inputs", 0, "shape"), ["batch", 4]),
        (("format_version",), FORMAT_VERSION + 1),
    ],
)
def test_what_both_refuse(path: tuple[Any, ...], value: object) -> None:
    content = changed(CONTENT, path, value)
    assert not is_read(content)
    assert not fits_schema(content)
