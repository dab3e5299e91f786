"""``Corpus.add_many`` when something goes wrong on the way: for one video, or for all that are still to come."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from hero_sdk import EngineError, Hero, HeroError, InputError, ServerError
from hero_sdk.corpus.corpus import ENCODE_TOGETHER, AddResult
from tests.unit.numpy_engine import NumpyEngine
from tests.unit.tiny_videos import write_video

COUNT = ENCODE_TOGETHER + 3


class FailingEngine(NumpyEngine):
    """Fails where ``trouble`` gives an error for a graph and its inputs."""

    def __init__(self, trouble: Callable[[str, Mapping[str, np.ndarray]], HeroError | None]) -> None:
        super().__init__()
        self._trouble = trouble

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if error := self._trouble(graph, inputs):
            raise error
        return super().run(graph, inputs)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, tuple[()], str]]:
    """All blue but the third."""
    folder = tmp_path_factory.mktemp("videos")
    return [
        (write_video(folder / f"{number:02d}.mp4", ["red" if number == 2 else "blue"]), (), f"{number:02d}")
        for number in range(COUNT)
    ]


def outcome(results: list[AddResult]) -> dict[str, type[HeroError] | None]:
    return {result.video_id: type(result.error) if result.error else None for result in results}


def test_a_video_that_the_engine_cannot_encode_fails_alone(
    videos: list[tuple[Path, tuple[()], str]], tmp_path: Path
) -> None:
    def red_fails(graph: str, inputs: Mapping[str, np.ndarray]) -> HeroError | None:
        features = inputs.get("frame_features")
        red = graph == "cross_modal" and features is not None and features[..., 0].max() > 0.5
        return EngineError("out of memory") if red else None

    corpus = Hero(FailingEngine(red_fails)).corpus(tmp_path)
    found = outcome(corpus.add_many(videos))
    assert found == {video_id: EngineError if video_id == "02" else None for _, _, video_id in videos}
    assert corpus.video_ids() == sorted(set(found) - {"02"})


@pytest.mark.parametrize("graph", ["frames", "cross_modal"])
def test_a_server_that_is_gone_ends_it_and_keeps_what_was_reported(
    videos: list[tuple[Path, tuple[()], str]], tmp_path: Path, graph: str
) -> None:
    calls = {"frames": ENCODE_TOGETHER + 1, "cross_modal": 1}  # those that succeed

    def gone(called: str, _: Mapping[str, np.ndarray]) -> HeroError | None:
        calls[called] = calls.get(called, COUNT) - (called == graph)
        return ServerError("gone") if calls[called] < 0 else None

    corpus = Hero(FailingEngine(gone)).corpus(tmp_path)
    reported: list[AddResult] = []
    with pytest.raises(ServerError, match="gone"):
        corpus.add_many(videos, report=reported.append)
    first = [video_id for _, _, video_id in videos[:ENCODE_TOGETHER]]
    assert outcome(reported) == dict.fromkeys(first)
    assert corpus.video_ids() == first


@pytest.mark.parametrize("replace", [False, True])
def test_two_videos_of_one_id_are_never_both_said_to_be_added(
    videos: list[tuple[Path, tuple[()], str]], tmp_path: Path, replace: bool
) -> None:
    corpus = Hero(NumpyEngine()).corpus(tmp_path)
    (first, _, _), (second, _, _) = videos[:2]
    results = corpus.add_many([(first, (), "same"), (second, (), "same")], replace=replace)
    assert {result.video: type(result.error) for result in results} == {
        str(first): type(None),
        str(second): InputError,
    }
    [row] = corpus._table.column("source")
    assert row == {"video_id": "same", "source": str(first)}
