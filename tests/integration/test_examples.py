"""The scripts in ``examples/`` run, and print what the library finds."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import hero_sdk
from tests.tiny_bundle import FEATURES
from tests.unit.tiny_videos import write_collection, write_srt

EXAMPLES = Path(__file__).parents[2] / "examples"
SENTENCE = "the robot takes the red gem"

RunExample = Callable[..., list[str]]


@pytest.fixture
def run_example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> RunExample:
    """Run a script as ``python examples/NAME.py ...`` in an empty folder; gives the lines that it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)

    def run(name: str, *arguments: object) -> list[str]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capsys.readouterr()
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        out, err = capsys.readouterr()
        assert err == ""
        return out.splitlines()

    return run


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    write_collection(tmp_path / "videos")
    (tmp_path / "videos" / "broken.mp4").write_text("no video")
    return tmp_path / "videos"


def found_by_the_library(bundle: Path, corpus: Path) -> list[list[str]]:
    """What a script has to print, as words."""
    with hero_sdk.load(bundle) as hero:
        moments = hero.corpus(corpus, create=False).search(SENTENCE, 5)
    assert len(moments) == 5
    return [
        f"{moment.score:.2e} {moment.video_id} {moment.start:.1f} s to {moment.end:.1f} s {moment.subtitle}".split()
        for moment in moments
    ]


@pytest.mark.parametrize("script", ["search_folder.py", "serve_and_search.py"])
def test_a_folder_is_indexed_once_and_searched(
    run_example: RunExample, tiny_bundle: Path, tiny_repository: Path, videos: Path, tmp_path: Path, script: str
) -> None:
    source = tiny_bundle if script == "search_folder.py" else tiny_repository
    first = run_example(script, source, videos, SENTENCE)
    broken, added, moments = first[0], first[1:4], first[4:]
    assert broken.startswith(f"broken.mp4: {videos / 'broken.mp4'} cannot be read as a video")
    assert added == ["one.mp4: added", "three.mkv: added", "two.mp4: added"]
    assert [line.split() for line in moments] == found_by_the_library(tiny_bundle, tmp_path / "corpus")
    if script == "search_folder.py":  # a server takes seconds to start, and the rest is the same code
        assert run_example(script, source, videos, SENTENCE) == [broken, *moments]


def test_features_from_elsewhere_are_searched(run_example: RunExample, tiny_bundle: Path, tmp_path: Path) -> None:
    features = tmp_path / "features"
    features.mkdir()
    rng = np.random.default_rng(0)
    for name, clips in (("first", 7), ("second", 30)):
        np.save(features / f"{name}.npy", rng.uniform(0, 255, (clips, FEATURES)).astype(np.float16))
    write_srt(features / "first.srt", ["where is the gem", "who takes it"])
    printed = run_example("own_features.py", tiny_bundle, features, SENTENCE)
    assert [line.split() for line in printed] == found_by_the_library(tiny_bundle, tmp_path / "corpus")
    with hero_sdk.load(tiny_bundle) as hero:
        corpus = hero.corpus(tmp_path / "corpus")
        assert corpus.video_ids() == ["first", "second"]
        said = " ".join(moment.subtitle for moment in corpus.search(SENTENCE, videos=["first"]))
    assert "who takes it" in said
    assert run_example("own_features.py", tiny_bundle, features, SENTENCE) == printed


def test_each_script_is_tested() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "search_folder.py",
        "serve_and_search.py",
        "own_features.py",
    }
