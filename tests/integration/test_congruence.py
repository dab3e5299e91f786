"""One set of tests for both ways to run a bundle: in this process, and on NVIDIA's real tritonserver.

Each is compared with the same bundle in ONNX's own reference evaluator (numpy), so that an error which both share shows too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from hero_sdk import (
    CorpusError,
    EncodedVideo,
    EngineError,
    Hero,
    InputError,
    MediaError,
    Moment,
    Query,
    Subtitle,
    SubtitleError,
    connect,
    load,
)
from hero_sdk.engines import Engine
from hero_sdk.engines.local import LocalEngine
from hero_sdk.engines.triton import TritonEngine
from hero_sdk.manifest import MANIFEST_FILE, read_bundle
from hero_sdk.serve import Server
from tests.made_videos import brightness
from tests.made_videos import write_video as write_subtitled_video
from tests.real_videos import real_video
from tests.same_moments import assert_same_moments
from tests.tiny_bundle import FEATURES, HIDDEN, MAX_BATCH, VOCABULARY, example_inputs
from tests.unit.hero_command import make_run, stored
from tests.unit.tiny_videos import write_collection, write_srt, write_video

IN_PROCESS, TRITON = "in process", "Triton"
GRAPHS = ("frames", "cross_modal", "temporal", "query", "moment")
QUERIES = ["the robot takes a red gem", "WHERE", "who takes the gem", "Füße 動画", "a " * 40]
TOLERANCE = 1e-4
HALF_PRECISION = 2.0**-10  # what a corpus keeps; engines that differ by 1e-7 may be rounded to neighbours


class ReferenceEngine:
    """The graphs of a bundle in ONNX's reference evaluator, the whole batch in one call."""

    def __init__(self, bundle: Path) -> None:
        self.manifest = read_bundle(bundle)
        self.tokenizer_json = (bundle / self.manifest.tokenizer).read_text()
        files = {name: bundle / graph.file for name, graph in self.manifest.graphs.items()}
        self._graphs = {name: ReferenceEvaluator(str(file)) for name, file in files.items()}

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        evaluator = self._graphs[graph]
        return dict(zip(evaluator.output_names, evaluator.run(None, dict(inputs)), strict=True))

    def close(self) -> None:
        self._graphs.clear()


def open_engine(kind: str, bundle: Path, server: Server) -> LocalEngine | TritonEngine:
    return LocalEngine(bundle, threads=1) if kind == IN_PROCESS else TritonEngine(server.grpc_url)


@pytest.fixture(scope="module", params=[IN_PROCESS, TRITON])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def engine(kind: str, tiny_bundle: Path, triton_server: Server) -> Iterator[Engine]:
    with open_engine(kind, tiny_bundle, triton_server) as engine:
        yield engine


@pytest.fixture(scope="module")
def hero(engine: Engine) -> Hero:
    return Hero(engine)


@pytest.fixture(scope="module")
def other(kind: str, tiny_bundle: Path, triton_server: Server) -> Iterator[Hero]:
    """The way that ``hero`` is not."""
    with load(tiny_bundle) if kind == TRITON else connect(triton_server.grpc_url) as hero:
        yield hero


@pytest.fixture(scope="module")
def reference(tiny_bundle: Path) -> Hero:
    return Hero(ReferenceEngine(tiny_bundle))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Real recordings, and made ones with subtitles beside them, inside them, and none; one of 60 s, where 24 s is the limit."""
    folder = tmp_path_factory.mktemp("videos")
    write_collection(folder)
    write_video(folder / "long.mp4", ["red", "green", "blue", "green"] * 5)
    write_srt(folder / "long.srt", ["the robot", "takes", "a red gem", "where is the robot", "who takes a gem"] * 4)
    times = [0.1 * number for number in range(45)]
    assert len({brightness(time) for time in times}) > 40
    inside = [(0.2, 2.0, "the gem"), (2.0, 4.4, "a robot &amp; a gem")]
    write_subtitled_video(folder / "inside.mkv", times, subtitles=inside)
    made = {path.stem: path for path in folder.iterdir() if path.suffix in (".mp4", ".mkv")}
    return {**made, **{name: real_video(name) for name in ("bikes", "bigbuckbunny")}}


@pytest.fixture(scope="module")
def encoded(reference: Hero, videos: dict[str, Path]) -> dict[str, EncodedVideo]:
    return {name: reference.encode_video(path) for name, path in videos.items()}


def test_the_manifest_and_the_tokenizer_are_those_of_the_bundle(engine: Engine, tiny_bundle: Path) -> None:
    assert engine.manifest.to_json() == (tiny_bundle / MANIFEST_FILE).read_text()
    assert engine.tokenizer_json == (tiny_bundle / "tokenizer.json").read_text()


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("batch", [1, MAX_BATCH, 2 * MAX_BATCH + 3])
def test_graphs(engine: Engine, reference: Hero, tiny_bundle: Path, graph: str, batch: int) -> None:
    inputs = example_inputs(engine.manifest, graph, batch, seed=batch)
    expected = ReferenceEngine(tiny_bundle).run(graph, inputs)
    found = engine.run(graph, inputs)
    assert found.keys() == expected.keys()
    for name, array in found.items():
        assert array.dtype == expected[name].dtype
        np.testing.assert_allclose(array, expected[name], rtol=1e-5, atol=1e-5)
        assert array.flags.writeable


def test_queries(hero: Hero, reference: Hero) -> None:
    for found, expected in zip(hero.encode_queries(QUERIES), reference.encode_queries(QUERIES), strict=True):
        assert found.text == expected.text
        np.testing.assert_allclose(found.vector, expected.vector, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.span_vector, expected.span_vector, rtol=1e-5, atol=1e-5)


def test_videos(hero: Hero, reference: Hero, videos: dict[str, Path], encoded: dict[str, EncodedVideo]) -> None:
    assert {name: len(video.clip_embeddings) for name, video in encoded.items()} == {
        "one": 6,
        "two": 4,
        "three": 4,
        "long": 40,
        "inside": 3,
        "bikes": 7,
        "bigbuckbunny": 4,
    }
    assert {name for name, video in encoded.items() if video.subtitles} == {"one", "three", "long", "inside"}
    for name, path in videos.items():
        found, expected = hero.encode_video(path), encoded[name]
        np.testing.assert_allclose(found.clip_embeddings, expected.clip_embeddings, rtol=1e-4, atol=1e-4)
        assert (found.duration, found.subtitles) == (expected.duration, expected.subtitles)
        for query in QUERIES:
            assert_same_moments(hero.moments(query, found), reference.moments(query, expected), TOLERANCE)


def test_features_from_elsewhere(hero: Hero, reference: Hero) -> None:
    features = np.random.default_rng(0).standard_normal((50, FEATURES)).astype(np.float32) * 100
    subtitles = [Subtitle(3.0 * n, 3.0 * n + 2.5, f"the robot takes gem {n}") for n in range(24, -1, -1)]
    found, expected = (one.encode_features(features, subtitles, 74.0) for one in (hero, reference))
    np.testing.assert_allclose(found.clip_embeddings, expected.clip_embeddings, rtol=1e-4, atol=1e-4)
    assert (found.duration, found.subtitles) == (74.0, expected.subtitles)


def test_a_corpus_built_by_one_is_searched_by_the_other(
    hero: Hero,
    other: Hero,
    reference: Hero,
    videos: dict[str, Path],
    tmp_path: Path,
) -> None:
    folder, again = tmp_path / "corpus", tmp_path / "again"
    for corpus in (built := hero.corpus(folder), reference.corpus(again)):
        results = corpus.add_many((path, None, name) for name, path in videos.items())
        assert [result.error for result in results] == [None] * len(videos)
    columns = ("clips", "duration", "subtitle_start", "subtitle_end", "subtitle_text", "vector")
    for found, wanted in zip(stored(folder, *columns), stored(again, *columns), strict=True):
        np.testing.assert_allclose(found.pop("vector"), wanted.pop("vector"), rtol=HALF_PRECISION, atol=HALF_PRECISION)
        assert found == wanted

    opened, expected = (one.corpus(folder, create=False) for one in (other, reference))
    assert opened.video_ids() == sorted(videos)
    for query in QUERIES:
        moments = expected.search(query, 25)
        assert len({moment.video_id for moment in moments}) > 1
        for corpus in (built, opened):
            assert_same_moments(corpus.search(query, 25), moments, TOLERANCE)
            assert_same_moments(corpus.search(query, 25, exact=True), moments, TOLERANCE)
            some = [moment for moment in moments if moment.video_id in ("one", "long")]
            assert_same_moments(corpus.search(query, 25, videos=["one", "long"])[: len(some)], some, TOLERANCE)
            hits = corpus.search_videos(query)
            assert [hit.video_id for hit in hits] == [hit.video_id for hit in expected.search_videos(query)]


def test_the_command_line_finds_the_same(
    kind: str,
    tiny_bundle: Path,
    triton_server: Server,
    reference: Hero,
    videos: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    corpus = tmp_path / "corpus"
    way = ["--bundle", str(tiny_bundle)] if kind == IN_PROCESS else ["--url", triton_server.grpc_url]

    run = make_run(monkeypatch, capsys)
    assert run("index", videos["one"].parent, "--corpus", corpus, *way).code == 0
    found = [Moment(**moment) for moment in json.loads(run("search", "a gem", "--corpus", corpus, *way, "--json").out)]
    assert_same_moments(found, reference.corpus(corpus, create=False).search("a gem"), TOLERANCE)
    assert {moment.video_id for moment in found} <= {"one.mp4", "two.mp4", "three.mkv", "long.mp4", "inside.mkv"}
    assert run("info", way[1], "--json").out == (tiny_bundle / MANIFEST_FILE).read_text()


BAD_CALLS: dict[str, tuple[type[Exception], Callable[[Hero, Path], object]]] = {
    "an empty sentence": (InputError, lambda hero, folder: hero.encode_query(" ")),
    "no file": (MediaError, lambda hero, folder: hero.encode_video(folder / "none.mp4")),
    "no video": (MediaError, lambda hero, folder: hero.encode_video(folder / "text.mp4")),
    "no subtitles": (SubtitleError, lambda hero, folder: hero.encode_video(folder / "one.mp4", folder / "none.srt")),
    "backwards": (SubtitleError, lambda hero, folder: hero.encode_video(folder / "one.mp4", [Subtitle(2, 1, "x")])),
    "wide features": (InputError, lambda hero, folder: hero.encode_features(np.zeros((3, FEATURES + 1), np.float32))),
    "infinite": (InputError, lambda hero, folder: hero.encode_features(np.full((3, FEATURES), np.inf, np.float32))),
    "no corpus": (CorpusError, lambda hero, folder: hero.corpus(folder / "none", create=False)),
    "no such video": (InputError, lambda hero, folder: hero.corpus(folder / "corpus").search("a gem", videos=["x"])),
    "a wide query": (InputError, lambda hero, folder: hero.corpus(folder / "corpus").search(WIDE)),
}
WIDE = Query("wide", np.zeros(HIDDEN + 1, np.float32), np.zeros(HIDDEN + 1, np.float32))


@pytest.mark.parametrize("bad", BAD_CALLS)
def test_bad_input_is_the_same_error(hero: Hero, tmp_path: Path, bad: str) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    write_video(tmp_path / "one.mp4", ["red"])
    kind, call = BAD_CALLS[bad]
    with pytest.raises(kind) as raised:
        call(hero, tmp_path)
    assert type(raised.value) is kind


def test_bad_arrays_are_the_same_error(engine: Engine) -> None:
    inputs = example_inputs(engine.manifest, "query", 2)
    wrong: list[tuple[str, dict[str, np.ndarray], str]] = [
        ("answer", inputs, "no graph 'answer'"),
        ("query", inputs | {"token_ids": inputs["token_ids"].astype(np.int64)}, r"'token_ids'.*int64.*expected int32"),
        ("query", inputs | {"token_ids": inputs["token_ids"][:, :-1]}, r"'token_ids'.*expected int32 of shape"),
        ("query", inputs | {"token_ids": inputs["token_ids"][:1]}, "same batch size"),
        ("query", {"token_ids": inputs["token_ids"]}, r"without inputs \['segment_ids'\]"),
        ("query", {name: array[:0] for name, array in inputs.items()}, "empty batch"),
    ]
    for graph, arrays, message in wrong:
        with pytest.raises(InputError, match=message):
            engine.run(graph, arrays)


def test_a_graph_that_fails_is_the_same_error_and_the_next_call_works(engine: Engine) -> None:
    inputs = example_inputs(engine.manifest, "query", 1)
    before = engine.run("query", inputs)["query_vector"]
    with pytest.raises(EngineError, match=rf"query.*idx={VOCABULARY}(.|\n)*must be within") as raised:
        engine.run("query", inputs | {"token_ids": np.full_like(inputs["token_ids"], VOCABULARY)})
    assert type(raised.value) is EngineError
    np.testing.assert_array_equal(engine.run("query", inputs)["query_vector"], before)


def test_what_is_closed_says_so(kind: str, tiny_bundle: Path, triton_server: Server) -> None:
    engine = open_engine(kind, tiny_bundle, triton_server)
    with Hero(engine) as hero:
        hero.encode_query("a gem")
    engine.close()
    with pytest.raises(EngineError, match="closed") as raised:
        hero.encode_query("a gem")
    assert type(raised.value) is EngineError
