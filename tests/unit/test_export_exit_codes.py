"""Each kind of failure has its own exit code, and every error of the packages has one."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import hero_train.errors
from hero_export import errors as export_errors
from hero_export.exit_codes import ExitCode, exit_code_of
from hero_sdk import errors as sdk_errors
from hero_sdk.errors import HeroError
from tests.tiny_bundle import write_tiny_bundle
from tests.unit.hero_export_command import RunExport, make_export_run

PAGE = (Path(__file__).parents[2] / "docs" / "bundles.md").read_text(encoding="utf-8")

EXPECTED = {
    "BundleError": 4,
    "FingerprintError": 4,
    "SignatureError": 5,
    "CalibrationError": 4,
    "FusionError": 6,
    "PrecisionError": 6,
    "BuildError": 6,
    "VerificationError": 6,
    "MissingPackageError": 7,
    "EngineError": 7,
    "ServerError": 7,
    "HubError": 8,
    "BudgetError": 9,
}
"""All others are about what was passed in: 3."""

KINDS = {
    kind
    for module in (sdk_errors, export_errors, hero_train.errors)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, HeroError)
}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunExport:
    return make_export_run(monkeypatch, capsys)


@pytest.mark.parametrize("kind", sorted(KINDS, key=lambda kind: kind.__name__), ids=lambda kind: kind.__name__)
def test_an_error_has_the_code_of_its_kind(kind: type[HeroError]) -> None:
    assert exit_code_of(kind("x")) == EXPECTED.get(kind.__name__, 3)
    assert exit_code_of(kind("x"), "diff") == 2


def test_the_documentation_lists_the_codes() -> None:
    listed = re.findall(r"^\| (\d+) \| `(\w+)` \|", PAGE, re.MULTILINE)
    assert {(int(code), name) for code, name in listed} == {(code.value, code.name) for code in ExitCode}


def test_a_wrong_command_line(run: RunExport) -> None:
    for arguments in (["inspect"], ["nothing"], ["onnx", "x", "--slots", "many"], ["triton", "x", "--device", "tpu"]):
        assert run(*arguments).code == ExitCode.USAGE


def test_kinds_of_failure(run: RunExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    assert run("inspect", bundle).code == ExitCode.OK
    assert run("triton", bundle, "--out", tmp_path / "mine").code == ExitCode.INPUT
    assert run("inspect", tmp_path / "mine").code == ExitCode.REFUSED
    assert run("keygen", "--out", tmp_path / "key").code == ExitCode.OK
    assert run("inspect", bundle, "--require-signature", tmp_path / "key.pub").code == ExitCode.SIGNATURE
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.serialization", None)
    missing = run("keygen", "--out", tmp_path / "other")
    assert missing.code == ExitCode.ENVIRONMENT
    assert 'pip install "hero-video-sdk[sign]"' in missing.err


def test_a_mistake_of_the_program_is_told_from_a_difference(run: RunExport, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr("hero_export.bundles.diff.diff_bundles", fail)
    done = run("diff", "a", "b")
    assert done.code == ExitCode.INTERNAL
    assert "ZeroDivisionError" in done.err
    assert "a mistake" in done.err


def test_an_interruption(run: RunExport, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hero_export.bundles.diff.diff_bundles", interrupt)
    assert run("diff", "a", "b").code == ExitCode.INTERRUPTED


def test_debug_shows_the_traceback_and_keeps_the_code(run: RunExport, tmp_path: Path) -> None:
    plain, debug = run("inspect", tmp_path), run("inspect", tmp_path, "--debug")
    assert (plain.code, debug.code) == (ExitCode.REFUSED, ExitCode.REFUSED)
    assert "Traceback" not in plain.err
    assert "Traceback" in debug.err
