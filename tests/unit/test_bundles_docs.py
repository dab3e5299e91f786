"""docs/bundles.md: its commands are ones that there are, its limits those of the code, its openssl line one that works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import hero_export
import hero_sdk
from hero_export.cli import app as export_app
from hero_sdk import bundle_files
from hero_sdk.cli import app as hero_app
from hero_sdk.manifest_schema import SCHEMA_FILE, schema_text

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "bundles.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^    ((?:hero|hero-export) .*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_one_that_there_is(command: str) -> None:
    words = shlex.split(command, comments=True)
    group: Any = typer.main.get_command(export_app if words[0] == "hero-export" else hero_app)
    assert group.commands[words[1]].make_context(words[1], words[2:]).params


def test_every_command_around_a_bundle_is_shown() -> None:
    shown = {shlex.split(command)[1] for command in COMMANDS}
    assert {"keygen", "sign", "inspect", "triton", "diff", "push", "pull", "onnx", "search"} <= shown


def test_the_limits_are_those_of_the_code() -> None:
    assert f"at most {bundle_files.MAX_MANIFEST_BYTES >> 20} MiB" in PAGE
    assert f"at most {bundle_files.MAX_FILES:,} files" in PAGE
    limits = bundle_files.MAX_BYTES
    sizes = f"{limits['.onnx'] >> 30} GiB for `.onnx`, {limits['.md'] >> 20} MiB for text"
    assert f"at most {sizes}, {bundle_files.MAX_OTHER_BYTES >> 30} GiB for others" in PAGE


def test_what_the_package_offers_can_be_had() -> None:
    for name in hero_export.__all__:
        assert getattr(hero_export, name)


def test_the_schema_is_where_it_says() -> None:
    assert f"hero_sdk/{SCHEMA_FILE}" in PAGE
    assert (Path(hero_sdk.__file__).parent / SCHEMA_FILE).read_text(encoding="utf-8") == schema_text()


@pytest.mark.parametrize("page", ["bundles.md", "exporting.md", "serving.md", "searching.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    for name, heading in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]+))?\)", text):
        target = DOCS / (name or page)
        assert target.is_file(), (page, name)
        headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
        assert not heading or heading in {
            re.sub(r"[^a-z0-9 -]", "", line.lower()).replace(" ", "-") for line in headings
        }


def test_the_extras_are_those_of_the_package() -> None:
    pyproject = (DOCS.parent / "pyproject.toml").read_text(encoding="utf-8")
    for extra in re.findall(r'hero-video-sdk\[([\w,]+)\]"', PAGE):
        for name in extra.split(","):
            assert re.search(rf"^{name} = \[", pyproject, re.MULTILINE), name
