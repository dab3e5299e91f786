"""Dataclasses from JSON that may come from anyone: nothing missing, nothing unknown, nothing of another type."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from hero_sdk.errors import BundleError, InputError

T = TypeVar("T")


def strict_json(text: str) -> Any:
    """Parse JSON without names given twice, NaN or infinity.

    Raises:
        ValueError: it is no such JSON.
        RecursionError: it is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object without a name that stands there twice, of which each reader would take the one it likes."""
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"an object has the names {sorted({name for name in names if names.count(name) > 1})} twice")
    return content


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def build(kind: type[T], content: object, where: str) -> T:
    """Make a dataclass from parsed JSON; every field must be there with the right type unless it has a default."""
    if not isinstance(content, Mapping):
        raise BundleError(
            f"{where} is {type(content).__name__}; expected an object with the fields of {kind.__name__}."
        )
    hints = get_type_hints(kind)
    fields = {item.name: item for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(content) - set(fields)):
        raise BundleError(f"{where} has unknown entries {unknown}; expected {sorted(fields)}.")
    values = {}
    for name, item in fields.items():
        if name in content:
            values[name] = _convert(hints[name], content[name], f"{where}: {name}")
            _check_limits(item.metadata, values[name], f"{where}: {name}")
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise BundleError(f"{where} has no entry '{name}'. Export the bundle again.")
    try:
        return kind(**values)
    except InputError as error:
        raise BundleError(f"{where} does not fit: {error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, UnionType):  # only ever "or None"
        return None if value is None else _convert(get_args(hint)[0], value, where)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where)  # type: ignore[arg-type]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise BundleError(f"{where} is {value!r}; expected a list.")
        return tuple(_convert(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise BundleError(f"{where} is {value!r}; expected an object.")
        return {key: _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        # A number beyond all floats becomes infinite, or cannot be made one.
        if not -sys.float_info.max <= value <= sys.float_info.max:
            raise BundleError(f"{where} is {value!r:.40}; expected a finite float.")
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise BundleError(f"{where} is {value!r}; expected {hint.__name__}.")
    return value


_LIMITS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "minimum": ("at least", lambda value, limit: value >= limit),
    "exclusiveMinimum": ("more than", lambda value, limit: value > limit),
    "pattern": ("the form", lambda value, limit: re.fullmatch(limit, value) is not None),
    # Each name is looked at by check_names, which says more about it.
    "propertyNames": ("", lambda value, limit: True),
}
"""What a field's metadata may limit, by the word of JSON schema, which ``manifest_schema`` hands on: in plain words, the check."""


def _check_limits(limits: Mapping[str, Any], value: Any, where: str) -> None:
    for word, limit in limits.items():
        plain, fits = _LIMITS[word]
        if not fits(value, limit):
            raise BundleError(f"{where} is {value!r}; expected {plain} {limit}.")
