"""The command ``hero``: what it prints where, and its exit codes. The bundle, the videos and the corpus are real and tiny."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hero_sdk
from hero_export.bundles.signing import make_keys, sign_bundle
from hero_sdk.manifest import MANIFEST_FILE
from hero_sdk.server_environment import ENVIRONMENT_VARIABLE
from tests.tiny_bundle import write_tiny_bundle
from tests.unit.hero_command import Run, ids_in, make_run
from tests.unit.tiny_videos import write_collection

COMMAND = Path(sys.executable).with_name("hero")
IDS = ["one.mp4", "three.mkv", "two.mp4"]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return make_run(monkeypatch, capsys)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("cli") / "bundle")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_collection(folder)
    return folder


@pytest.fixture(scope="module")
def corpus(bundle: Path, videos: Path) -> Path:
    """Not to be changed; made without the command."""
    folder = bundle.parent / "corpus"
    with hero_sdk.load(bundle) as hero:
        hero.corpus(folder).add_many([(videos / name, None, name) for name in IDS])
    return folder


def test_help_is_quick_and_loads_no_engine() -> None:
    code = (
        "import sys; sys.argv = ['hero', '--help']\n"
        "from hero_sdk.cli import main\n"
        "try: main()\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    for name in ("index", "search", "videos", "remove", "info", "serve"):
        assert f"  {name} " in done.stdout
    loaded = {name.split(".")[0] for name in done.stderr.split()}
    assert not loaded & {
        "numpy",
        "onnxruntime",
        "lancedb",
        "pyarrow",
        "av",
        "torch",
        "tokenizers",
        "tritonclient",
        "grpc",
    }

    def processor_seconds() -> float:
        process = subprocess.Popen([COMMAND, "--help"], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = status
        assert status == 0
        return usage.ru_utime + usage.ru_stime

    # Processor time, since the clock on the wall also counts what other processes do.
    assert min(processor_seconds() for _ in range(3)) < 0.3


@pytest.mark.parametrize(
    ("typed", "environment", "found"),
    [
        ((), {}, "Neither a bundle nor a server"),
        (("--bundle", "b", "--url", "localhost"), {}, "Both a bundle and a server"),
        ((), {"HERO_BUNDLE": "b", "HERO_URL": "localhost"}, "Both a bundle and a server"),
        ((), {"HERO_BUNDLE": ""}, "Neither a bundle nor a server"),
    ],
)
def test_one_of_bundle_and_url_must_be_named(
    run: Run,
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    typed: tuple[str, ...],
    environment: dict[str, str],
    found: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = run("search", "a robot", "--corpus", corpus, *typed)
    assert done.code == 2
    assert done.err.startswith(f"InputError: {found}")
    for option in ("--bundle", "HERO_BUNDLE", "--url", "HERO_URL"):
        assert option in done.err


def test_the_environment_stands_in_for_options(
    run: Run, bundle: Path, corpus: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run("search", "the robot", "--corpus", corpus, "--bundle", bundle, "--json")
    monkeypatch.setenv("HERO_BUNDLE", str(bundle))
    monkeypatch.setenv("HERO_CORPUS", str(corpus))
    assert run("search", "the robot", "--json") == expected
    assert json.loads(run("videos", "--json").out) != []
    monkeypatch.setenv("HERO_CORPUS", str(tmp_path / "new"))
    assert run("index", videos).code == 0
    assert run("remove", "two.mp4").code == 0
    assert ids_in(tmp_path / "new") == ["one.mp4", "three.mkv"]


def test_what_is_typed_goes_before_the_environment(
    run: Run, bundle: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERO_URL", "http://nobody:1")
    monkeypatch.setenv("HERO_CORPUS", "nowhere")
    assert "is an HTTP address" in run("search", "a robot", "--corpus", corpus).err
    assert run("search", "a robot", "--corpus", corpus, "--bundle", bundle).code == 0
    monkeypatch.delenv("HERO_URL")
    monkeypatch.setenv("HERO_BUNDLE", str(bundle))
    assert "is an HTTP address" in run("search", "a robot", "--corpus", corpus, "--url", "http://nobody:1").err
    assert "nowhere holds no corpus" in run("search", "a robot").err


def test_without_a_corpus_the_option_and_the_variable_are_named(run: Run, bundle: Path) -> None:
    done = run("search", "a robot", "--bundle", bundle)
    assert done.code == 2
    assert "--corpus" in done.err
    assert "HERO_CORPUS" in done.err


def test_moments_as_json_and_as_a_table(run: Run, bundle: Path, corpus: Path) -> None:
    with hero_sdk.load(bundle) as hero:
        expected = hero.corpus(corpus).search("the red gem", 4)
    options = ("--corpus", corpus, "--bundle", bundle, "-k", 4)
    done = run("search", "the red gem", *options, "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out) == [dataclasses.asdict(moment) for moment in expected]
    assert len(expected) == 4
    assert any(moment.subtitle for moment in expected)
    assert run("search", "the red gem", *options, "--json", "--exact") == done

    table = run("search", "the red gem", *options)
    assert (table.code, table.err) == (0, "")
    header, *rows = [line.split() for line in table.out.splitlines() if line.strip(" ─")]
    assert header == ["video", "time", "score", "subtitle"]
    for rank, (moment, row) in enumerate(zip(expected, rows, strict=True), 1):
        start, end = f"0:{moment.start:04.1f}", f"0:{moment.end:04.1f}"
        subtitle = moment.subtitle.split()
        assert row == [str(rank), moment.video_id, start, "-", end, f"{moment.score:.3g}", *subtitle]


def test_a_search_may_be_restricted_to_videos(run: Run, bundle: Path, corpus: Path) -> None:
    options = ("--corpus", corpus, "--bundle", bundle, "--json")
    some = json.loads(run("search", "a robot", *options, "--video", "two.mp4", "--video", "one.mp4").out)
    assert {moment["video_id"] for moment in some} == {"one.mp4", "two.mp4"}
    done = run("search", "a robot", *options, "--video", "four.mp4")
    assert done.code == 2
    assert done.err == f"InputError: The corpus {corpus} has no video 'four.mp4'. `hero videos` lists the ids.\n"


def test_an_empty_corpus_says_so(run: Run, bundle: Path, tmp_path: Path) -> None:
    with hero_sdk.load(bundle) as hero:
        hero.corpus(tmp_path / "c")
    options = ("--corpus", tmp_path / "c", "--bundle", bundle)
    done = run("search", "a robot", *options)
    assert (done.code, done.out) == (0, "")
    assert "The corpus is empty" in done.err
    assert json.loads(run("search", "a robot", *options, "--json").out) == []
    assert json.loads(run("videos", "--corpus", tmp_path / "c", "--json").out) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", "--corpus", "CORPUS"), "InputError: The query is ''"),
        (("a robot", "--corpus", "CORPUS", "-k", "0"), "InputError: top_k is 0"),
        (("a robot", "--corpus", "nowhere"), "CorpusError: nowhere holds no corpus"),
        (("a robot", "--corpus", "CORPUS", "--bundle", "nowhere"), "BundleError: nowhere has no manifest.json"),
    ],
)
def test_a_search_that_cannot_be_made(
    run: Run, bundle: Path, corpus: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = run("search", "--bundle", bundle, *(str(corpus) if word == "CORPUS" else word for word in arguments))
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(message)
    assert done.err.count("\n") == 1
    assert not Path("nowhere").exists()


def test_a_corpus_of_another_bundle_is_refused(run: Run, corpus: Path, videos: Path, tmp_path: Path) -> None:
    other = write_tiny_bundle(tmp_path / "other", seed=1)
    for arguments in (("search", "a robot"), ("index", videos)):
        done = run(*arguments, "--corpus", corpus, "--bundle", other)
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith(f"FingerprintError: The corpus {corpus} was embedded by the bundle tiny-0 ")
        assert "this is the bundle tiny-1 " in done.err
        assert "search with the bundle that made the corpus, or index the videos again" in done.err
    assert ids_in(corpus) == IDS


def test_videos_are_listed(run: Run, corpus: Path, videos: Path) -> None:
    done = run("videos", "--corpus", corpus, "--json")
    assert (done.code, done.err) == (0, "")
    rows = json.loads(done.out)
    assert [row["video_id"] for row in rows] == IDS
    assert [row["duration"] for row in rows] == pytest.approx([9, 6, 6], abs=0.1)
    assert [row["clips"] for row in rows] == [6, 4, 4]
    assert [row["source"] for row in rows] == [str(videos / name) for name in IDS]
    assert all(row["added"].endswith("+00:00") for row in rows)

    table = run("videos", "--corpus", corpus)
    assert (table.code, table.err) == (0, "")
    [line] = [line for line in table.out.splitlines() if "one.mp4" in line]
    assert line.split()[:3] == ["one.mp4", "0:09.0", "6"]


def test_remove_takes_all_or_none(run: Run, corpus: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(corpus, copy)
    done = run("remove", "one.mp4", "four.mp4", "--corpus", copy)
    assert (done.code, done.out) == (2, "")
    assert "has no video 'four.mp4'" in done.err
    assert ids_in(copy) == IDS
    done = run("remove", "one.mp4", "two.mp4", "one.mp4", "--corpus", copy)
    assert (done.code, done.err) == (0, f"2 removed; {copy} has 1 videos.\n")
    assert ids_in(copy) == ["three.mkv"]
    assert run("remove", "one.mp4", "--corpus", tmp_path / "nowhere").code == 2


def test_a_bundle_is_shown(run: Run, bundle: Path) -> None:
    done = run("info", bundle, "--json")
    assert (done.code, done.err) == (0, "")
    assert done.out == (bundle / MANIFEST_FILE).read_text()
    shown = run("info", bundle)
    assert (shown.code, shown.err) == (0, "")
    for fact in ("retrieval", "tiny-0", "one per 1.5 s", "up to 16 clips", "mean colour", "3 to 16 clips"):
        assert fact in shown.out
    for graph in ("frames", "cross_modal", "temporal", "query", "moment"):
        assert any(line.split()[:3] == [graph, "fp32", "4"] for line in shown.out.splitlines())


def test_what_cannot_be_shown(run: Run, bundle: Path, tmp_path: Path) -> None:
    assert run("info", tmp_path).err.startswith(f"BundleError: {tmp_path} has no manifest.json")
    assert run("info", "http://localhost:8000").err.startswith("InputError: http://localhost:8000 is an HTTP address")
    assert run("info", "grpc://localhost:99999").err.startswith("InputError: grpc://localhost:99999 has a port")
    altered = tmp_path / "with: a colon"
    shutil.copytree(bundle, altered)
    with (altered / "tokenizer.json").open("a") as file:
        file.write(" ")
    done = run("info", altered)
    assert done.code == 2
    assert "tokenizer.json is not the file that was exported" in done.err


def test_serve_says_what_is_missing(run: Run, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hero_export.triton import write_repository

    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path / "no server"))
    done = run("serve")
    assert (done.code, done.out) == (2, "")
    assert "There is nothing to serve" in done.err
    done = run("serve", bundle)
    assert done.code == 2
    assert "is not a model repository of HERO" in done.err
    done = run("serve", write_repository(bundle, tmp_path / "repository"), "--grpc-port", 9001)
    assert done.code == 3
    assert "python -m hero_sdk.serve --setup" in done.out
    assert "-p 9001:8001" in done.out


def test_the_server_is_not_installed_over_something_else(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))
    done = run("serve", "--setup")
    assert done.code == 2
    assert f"{tmp_path} exists and is not a virtual environment; nothing was changed" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("arguments", [("nothing",), ("search",), ("search", "a", "robot"), ("videos", "--colour")])
def test_a_command_line_that_cannot_be_read(run: Run, arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "Usage: hero" in done.err


def test_a_signature_may_be_required(run: Run, bundle: Path, videos: Path, corpus: Path, tmp_path: Path) -> None:
    signed = Path(shutil.copytree(bundle, tmp_path / "signed"))
    keys, other = make_keys(tmp_path / "key"), make_keys(tmp_path / "other")
    sign_bundle(signed, keys.private)
    commands = (
        ("search", "the robot", "--corpus", corpus, "--bundle"),
        ("index", videos, "--corpus", tmp_path / "corpus", "--bundle"),
        ("info",),
    )
    for command in commands:
        done = run(*command, bundle, "--require-signature", keys.public)
        assert (done.code, done.err.startswith("SignatureError: ")) == (2, True), done
        done = run(*command, signed, "--require-signature", other.public)
        assert (done.code, done.err.startswith("SignatureError: ")) == (2, True), done
        assert run(*command, signed, "--require-signature", keys.public).code == 0
    assert ids_in(tmp_path / "corpus") == IDS


def test_a_server_cannot_meet_a_required_signature(run: Run, corpus: Path, tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "key")
    for command in (("search", "the robot", "--corpus", corpus, "--url", "localhost:1"), ("info", "localhost:1")):
        done = run(*command, "--require-signature", keys.public)
        assert done.code == 2
        assert "a server was named, which hands out none" in done.err
