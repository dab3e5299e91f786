"""The command ``hero-export``: options, exit codes, what goes to which stream."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hero_export.cli import app, main
from hero_sdk.rows import RowGeometry
from tests.tiny_bundle import write_tiny_bundle
from tests.tiny_checkpoint import write_checkpoint
from tests.unit.test_export_inspection import add_nodes


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "bundle")


def failing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run the command as the console script does; it must fail with one message and nothing on standard output."""
    monkeypatch.setattr(sys, "argv", ["hero-export", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "Traceback" not in output.err
    return " ".join(output.err.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--slots", 41, "--frames", 16], "GeometryError: A row of 41 slots can hold a text of as many tokens"),
        (["--slots", 0], "InputError: RowGeometry.slots is 0; it must be at least 1."),
        (["--slots", 32], "RowGeometry has 64 frames in a row of 32 slots"),
        (["--slots", 40, "--frames", 16, "--query-tokens", 12, "--max-batch", 0], "Change --max-batch"),
        (["--tokenizer", "nowhere.json"], "ExportError: There is no file nowhere.json"),
        (["--frame-encoder", "nowhere"], "ExportError: There is no folder nowhere"),
    ],
)
def test_an_error_is_one_message_and_exit_code_2(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[object],
    message: str,
) -> None:
    assert message in failing(monkeypatch, capsys, "onnx", checkpoint, "--out", tmp_path / "bundle", *options)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    message = failing(monkeypatch, capsys, "onnx", tmp_path / "nowhere", "--out", tmp_path / "bundle")
    assert "CheckpointError" in message
    assert "is not a folder" in message


def test_the_place_is_looked_at_before_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert "is not a bundle" in failing(monkeypatch, capsys, "onnx", "nowhere", "--out", tmp_path, "--force")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_inspect_as_json(bundle: Path) -> None:
    result = CliRunner().invoke(app, ["inspect", str(bundle), "--json"])
    assert result.exit_code == 0
    content = json.loads(result.stdout)
    assert content["manifest"] == json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    assert [graph["name"] for graph in content["graphs"]] == ["frames", "cross_modal", "temporal", "query", "moment"]


def test_inspect_as_a_table(bundle: Path) -> None:
    result = CliRunner().invoke(app, ["inspect", str(bundle)])
    assert result.exit_code == 0
    for text in ("graphs/temporal.onnx", "Task retrieval, fingerprint tiny-0.", "slots 16", "All 6 files"):
        assert text in result.stdout


def test_inspect_refuses_a_damaged_bundle(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with (bundle / "graphs" / "query.onnx").open("ab") as file:
        file.write(b"\0")
    assert "query.onnx is not the file that was exported" in failing(monkeypatch, capsys, "inspect", bundle)


def test_help_shows_the_defaults_of_the_geometry() -> None:
    result = CliRunner().invoke(app, ["onnx", "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    lines = {line.split()[1]: line for line in result.stdout.splitlines() if "--" in line and len(line.split()) > 1}
    for name in ("slots", "frames", "query_tokens"):
        assert f"[default: {getattr(RowGeometry(), name)}]" in lines[f"--{name.replace('_', '-')}"]


def test_inspect_fails_where_a_graph_was_rewritten(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add_nodes(bundle, "query", "Gelu")
    monkeypatch.setattr(sys, "argv", ["hero-export", "inspect", str(bundle)])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    output = capsys.readouterr()
    assert "graphs/query.onnx" in output.out
    assert "FusionError: Graphs have other fused operators" in " ".join(output.err.split())


def test_help_and_import_take_no_torch() -> None:
    code = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "import hero_export\n"
        "from hero_export.cli import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "print(*{'torch', 'onnx', 'onnxruntime', 'transformers'} & sys.modules.keys())\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
