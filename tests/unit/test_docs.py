"""What ``docs/searching.md`` shows runs, and what it says is so."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer.main

import hero_sdk
from hero_export.triton import write_repository
from hero_sdk import cli
from hero_sdk.corpus.rows import Identity, video_row
from hero_sdk.corpus.table import VideoTable
from hero_sdk.serve import running_server
from tests.tiny_bundle import FEATURES, write_tiny_bundle
from tests.unit.hero_command import ids_in, make_run
from tests.unit.tiny_videos import write_srt, write_video

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "searching.md").read_text(encoding="utf-8")
SERVER = "grpc://localhost:8001"


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code, with the number of the line that it begins after."""

    language: str
    line: int
    code: str


def blocks() -> list[Block]:
    found = re.finditer(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [Block(match[1], PAGE.count("\n", 0, match.start(2)), match[2]) for match in found]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the page's paths are relative to."""
    write_tiny_bundle(tmp_path / "bundle")
    write_video(tmp_path / "videos" / "episode.mp4", ["red", "green", "blue"])
    write_srt(tmp_path / "videos" / "episode.srt", ["where is the gem", "the robot takes it"])
    np.save(tmp_path / "features.npy", np.ones((5, FEATURES), np.float32))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_block_of_code_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert {block.language for block in blocks()} == {"sh", "python"}
    run = make_run(monkeypatch, capsys)
    printed = ""
    for line in "".join(block.code for block in blocks() if block.language == "sh").splitlines():
        command, *arguments = shlex.split(line, comments=True) or [""]
        if command == "hero":
            done = run(*arguments)
            assert done.code == 0, (line, done)
            printed += done.out
        elif command == "export":
            for name, value in (argument.split("=", 1) for argument in arguments):
                monkeypatch.setenv(name, value)
        else:
            assert (command, arguments[:1]) in [("pip", ["install"]), ("", [])], line
    assert "where is the gem" in printed
    assert ids_in(folder / "corpus") == []  # the last command removes the one video

    (folder / "videos" / "broken.mp4").write_text("no video")
    names: dict[str, object] = {}
    with running_server(write_repository(folder / "bundle", folder / "repository")) as server:
        for block in blocks():
            if block.language == "python":
                code = "\n" * block.line + block.code.replace(SERVER, server.grpc_url)
                exec(compile(code, "docs/searching.md", "exec"), names)
    printed = capsys.readouterr().out
    assert printed.count("videos/broken.mp4 cannot be read as a video") == 2
    assert "s01e01 added" in printed
    assert printed.count("Moment(video_id='episode'") > 0
    hero, corpus, video = names["hero"], names["corpus"], names["video"]
    assert isinstance(hero, hero_sdk.Hero)
    assert isinstance(corpus, hero_sdk.Corpus)
    assert corpus.video_ids() == ["encoded before", "from a file", "from a list", "pictures only", "s01e01"]
    assert isinstance(video, hero_sdk.EncodedVideo)
    assert len(video.clip_embeddings) == 5
    hero.close()


def test_what_it_installs_exists() -> None:
    extras = re.findall(r'pip install "hero-video-sdk\[([\w,]+)\]"', PAGE)
    assert extras == ["local,video", "serve"]
    provided = set(importlib.metadata.metadata("hero-video-sdk").get_all("Provides-Extra") or [])
    assert {name for names in extras for name in names.split(",")} <= provided


def test_the_variables_are_those_of_the_command() -> None:
    commands = typer.main.get_command(cli.app).commands.values()  # type: ignore[attr-defined]
    read = {
        (option.envvar, option.opts[0])
        for command in commands
        for option in command.params
        if getattr(option, "envvar", None)
    }
    assert read == set(re.findall(r"^\| `(HERO_\w+)` \| `(--\w+) ", PAGE, re.MULTILINE))
    assert len(read) == 4


def test_the_errors_are_those_of_the_sdk() -> None:
    section = PAGE.split("## Errors")[1]
    classes = {name for name in hero_sdk.__all__ if name.endswith("Error")}
    assert set(re.findall(r"`(?:hero_sdk\.)?(\w+Error)`", section)) - {"ValueError", "ImportError"} == classes


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert links
    assert [link for link in links if not (DOCS / link).is_file()] == []


def test_scores_are_what_the_formula_says(folder: Path) -> None:
    assert "score = P(start) * P(end) * exp(20 * (cosine - 1))" in PAGE
    with hero_sdk.load("bundle", threads=1) as hero:
        query, video = hero.encode_query("the robot takes the red gem"), hero.encode_video("videos/episode.mp4")
        moments = hero.moments(query, video)
        # The convolutions of this bundle leave the products as they are.
        assert hero.manifest.moment.start_taps == hero.manifest.moment.end_taps == (0, 0, 1, 0, 0)
    clips = video.clip_embeddings.astype(np.float64)
    cosine = max(clip @ query.vector / np.linalg.norm(clip) / np.linalg.norm(query.vector) for clip in clips)
    products = np.exp(clips @ query.span_vector)
    assert moments
    for moment in moments:
        first, last = round(moment.start / 1.5), math.ceil(moment.end / 1.5) - 1
        expected = products[first] * products[last] / products.sum() ** 2 * math.exp(20 * (cosine - 1))
        assert moment.score == pytest.approx(expected, rel=1e-3)


def test_an_hour_of_video_is_as_large_as_it_says(tmp_path: Path) -> None:
    assert "3.8 MB per hour of video" in PAGE
    identity = Identity("f" * 64, 768, 1.5)
    subtitles = tuple(
        hero_sdk.Subtitle(3.0 * n, 3.0 * n + 2.5, "and then the two of them walked out of the door")
        for n in range(1200)
    )
    clips = np.random.default_rng(0).standard_normal((2400, 768)).astype(np.float32)
    hour = hero_sdk.EncodedVideo(clips, 1.5, 3600.0, subtitles)
    VideoTable.open(tmp_path, create=identity).insert(video_row("an hour", hour, None, identity), replace=False)
    size = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert size / 1e6 == pytest.approx(3.8, abs=0.1)
