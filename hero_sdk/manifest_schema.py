"""The JSON schema of ``manifest.json``, made from the dataclasses that read it, so that the two cannot drift apart.

It ships as ``hero_sdk/manifest.schema.json``, for programs that are not written in Python. ``python -m hero_sdk.manifest_schema``
writes that file after a change of the dataclasses; a test fails until it has been run.

The reader refuses more than a schema can say: a file that no entry lists, shapes that contradict one another, two names for
one file.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from importlib.resources import files
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from hero_sdk.manifest import FORMAT_VERSION, Manifest

SCHEMA_FILE = "manifest.schema.json"
DRAFT = "https://json-schema.org/draft/2020-12/schema"

_SIMPLE = {str: "string", int: "integer", float: "number", bool: "boolean"}


def manifest_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of the manifests that this version reads and writes."""
    definitions: dict[str, Any] = {}
    root = _object(Manifest, definitions)
    root["properties"]["format_version"] = {"const": FORMAT_VERSION}
    # Every manifest that is read must say its version, though the dataclass has a default for those that are made.
    root["required"].append("format_version")
    return {
        "$schema": DRAFT,
        "title": f"Manifest of a HERO bundle, format {FORMAT_VERSION}",
        **root,
        "$defs": definitions,
    }


def shipped_schema() -> dict[str, Any]:
    """The schema as it lies in the installed package."""
    return dict(json.loads((files("hero_sdk") / SCHEMA_FILE).read_text(encoding="utf-8")))


def schema_text() -> str:
    """The schema as the text of its file."""
    return json.dumps(manifest_schema(), indent=2) + "\n"


def _object(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    hints, (summary, descriptions) = get_type_hints(kind), _described(kind)
    properties, required = {}, []
    for item in dataclasses.fields(kind):
        properties[item.name] = {
            **descriptions.get(item.name, {}),
            **_type(hints[item.name], definitions),
            **item.metadata,
        }
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            required.append(item.name)
        elif item.default is not dataclasses.MISSING:
            properties[item.name]["default"] = item.default
    return {
        "description": summary,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _type(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if dataclasses.is_dataclass(hint):
        name = hint.__name__  # type: ignore[union-attr]
        if name not in definitions:
            definitions[name] = _object(hint, definitions)
        return {"$ref": f"#/$defs/{name}"}
    if isinstance(hint, UnionType):  # "or None"
        return {
            "anyOf": [{"type": "null"} if part is NoneType else _type(part, definitions) for part in get_args(hint)]
        }
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        return {"type": "array", "items": _type(arguments[0], definitions)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _type(arguments[1], definitions)}
    return {"type": _SIMPLE[hint]}


def _described(kind: Any) -> tuple[str, dict[str, dict[str, str]]]:
    """The first paragraph of a class's docstring, and the description of each field under its ``Attributes:``."""
    text, _, attributes = inspect.cleandoc(kind.__doc__).partition("Attributes:")
    descriptions = {}
    # An entry begins at the first indentation; its further lines are indented deeper.
    for entry in re.split(r"\n {4}(?! )", attributes):
        names, _, description = entry.partition(": ")
        for name in names.split(","):
            descriptions[name.strip()] = {"description": " ".join(description.split())}
    return " ".join(text.split("\n\n")[0].split()), descriptions


if __name__ == "__main__":
    (Path(__file__).parent / SCHEMA_FILE).write_text(schema_text(), encoding="utf-8")
