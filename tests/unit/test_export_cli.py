"""The command ``hero-export``: options, exit codes, what goes to which stream."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from hero_export.cli import app, main
from hero_sdk.rows import RowGeometry
from tests.tiny_bundle import write_tiny_bundle
from tests.tiny_checkpoint import write_checkpoint
from tests.unit.hero_export_command import RunExport, make_export_run
from tests.unit.test_export_inspection import add_nodes

COMMANDS = (
    *("onnx", "calibrate", "plan", "frame-encoder", "triton", "inspect", "diff", "keygen", "sign", "push", "pull"),
    *("verify", "replay", "mix"),
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RunExport:
    return make_export_run(monkeypatch, capsys)


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
    output = capsys.readouterr()
    assert output.out == ""
    assert "Traceback" not in output.err
    # A bundle that is refused has a code of its own; see test_export_exit_codes.
    assert caught.value.code == (4 if "BundleError" in output.err or "FingerprintError" in output.err else 3)
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
def test_an_error_is_one_message_and_an_exit_code(
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
    for text in ("temporal", "Task retrieval, fingerprint tiny-0.", "slots 16", "All 6 files"):
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


def test_inspect_fails_where_a_graph_was_rewritten(bundle: Path, run: RunExport) -> None:
    add_nodes(bundle, "query", "Gelu")
    done = run("inspect", bundle)
    assert done.code == 6
    assert "query" in done.out
    assert "FusionError: Graphs have other fused operators" in " ".join(done.err.split())


@pytest.mark.parametrize("command", [(), *((command,) for command in COMMANDS)], ids=lambda command: " ".join(command))
def test_help_loads_nothing_that_it_does_not_need(command: tuple[str, ...]) -> None:
    """What makes it slow is what it imports; typer and rich are what is left."""
    code = (
        "import sys\n"
        f"sys.argv = ['hero-export', *{command!r}, '--help']\n"
        "import hero_export\n"
        "from hero_export.cli import main\n"
        "try: main()\n"
        "finally: print(*sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Usage: hero-export" in done.stdout
    loaded = {name.split(".")[0] for name in done.stderr.split()}
    assert "typer" in loaded
    assert not loaded & {
        "torch", "onnx", "onnxruntime", "transformers", "numpy", "tokenizers", "safetensors", "google",
        "huggingface_hub", "cryptography", "tritonclient", "grpc", "hero_train",
    }  # fmt: skip


def test_help_lists_every_command_under_a_heading() -> None:
    result = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120", "TERM": "dumb"})
    for text in (*COMMANDS, "Make a bundle", "Look at a bundle", "Sign a bundle", "Share a bundle", "Serve a bundle"):
        assert text in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_speaks_json_and_says_before_what_it_would_write(command: str) -> None:
    options = {name for option in get_command(app).commands[command].params for name in option.opts}  # type: ignore[attr-defined]
    assert "--json" in options
    assert "--dry-run" in options or command in ("plan", "inspect", "diff", "replay")
    assert "--require-signature" in options or command in ("onnx", "plan", "frame-encoder", "keygen", "sign")


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_dry_run_of_an_export(checkpoint: Path, tmp_path: Path, run: RunExport) -> None:
    shapes = ["--slots", 32, "--frames", 16, "--temporal-slots", 30, "--query-tokens", 12]
    arguments = ["onnx", checkpoint, "--out", tmp_path / "bundle", *shapes]
    done = run(*arguments, "--dry-run", "--json")
    assert done.code == 0, done.err
    plan = json.loads(done.out)
    sizes = {file["path"]: (file["bytes"], file["exact"]) for file in plan["files"]}
    assert sizes["tokenizer.json"] == ((checkpoint / "tokenizer.json").stat().st_size, True)
    assert (plan["place"], plan["replaces"]) == (str(tmp_path / "bundle"), False)
    assert list(tmp_path.iterdir()) == []
    assert "Nothing was written." in run(*arguments, "--dry-run").out
    for wrong, code in ((["--slots", 0], 3), (["--tokenizer", "nowhere"], 3)):
        assert run(*arguments, *wrong, "--dry-run").code == code
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "mine").touch()
    assert run(*arguments, "--dry-run", "--force").code == 3


def test_a_dry_run_of_a_repository(bundle: Path, tmp_path: Path, run: RunExport) -> None:
    out = tmp_path / "repository"
    for backend in ("python", "onnxruntime"):
        arguments = ["triton", bundle, "--out", out, "--backend", backend]
        plan = json.loads(run(*arguments, "--dry-run", "--json").out)
        assert not out.exists()
        assert run(*arguments).code == 0
        written = content(out)
        assert {file["path"] for file in plan["files"]} == set(written)
        assert all(file["bytes"] == len(written[file["path"]]) for file in plan["files"] if file["exact"])
        assert json.loads(run(*arguments, "--dry-run", "--json").out)["replaces"] is True
        shutil.rmtree(out)
    (bundle / "tokenizer.json").write_text("{}")
    assert run("triton", bundle, "--out", out, "--dry-run").code == 4


def test_keys_and_signatures(bundle: Path, tmp_path: Path, run: RunExport, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "release"
    assert run("keygen", "--out", key, "--dry-run").code == 0
    assert not key.exists()
    made = json.loads(run("keygen", "--out", key, "--json").out)
    assert (made["private"], made["public"]) == (str(key), f"{key}.pub")
    assert run("keygen", "--out", key).code == 3
    assert run("keygen", "--out", key, "--dry-run").code == 3
    plan = json.loads(run("sign", bundle, "--key", key, "--dry-run", "--json").out)
    assert plan["files"] == [{"path": "manifest.sig", "bytes": 64, "exact": True}]
    assert not (bundle / "manifest.sig").exists()
    assert json.loads(run("sign", bundle, "--key", key, "--json").out)["key_id"] == made["key_id"]
    assert run("sign", bundle, "--key", key).code == 3
    assert run("sign", bundle, "--key", key, "--force").code == 0
    trusted = run("inspect", bundle, "--require-signature", f"{key}.pub")
    assert (trusted.code, "A required key signed the bundle." in trusted.out) == (0, True)

    monkeypatch.setenv("HERO_KEY_PASSPHRASE", "open sesame")
    assert run("keygen", "--out", tmp_path / "second", "--passphrase").code == 0
    assert run("sign", bundle, "--key", tmp_path / "second", "--force").code == 0
    done = run("inspect", bundle, "--require-signature", f"{key}.pub")
    assert (done.code, done.out) == (5, "")
    both = ["--require-signature", f"{key}.pub", "--require-signature", tmp_path / "second.pub"]
    assert run("inspect", bundle, *both).code == 0
    monkeypatch.delenv("HERO_KEY_PASSPHRASE")
    done = run("sign", bundle, "--key", tmp_path / "second", "--force")
    assert (done.code, "typed at a terminal or in HERO_KEY_PASSPHRASE" in done.err) == (3, True)


def test_a_passphrase_is_asked_for_twice_and_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HERO_KEY_PASSPHRASE", raising=False)
    arguments = ["keygen", "--out", str(tmp_path / "key"), "--passphrase"]
    result = CliRunner().invoke(app, arguments, input="open sesame\nopen sesame\n")
    assert result.exit_code == 0, result.output
    assert "open sesame" not in result.output
    assert (tmp_path / "key").read_bytes().startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----")


def test_names_from_a_bundle_are_no_markup_and_steer_no_terminal(bundle: Path, run: RunExport) -> None:
    path = bundle / "manifest.json"
    text = path.read_text(encoding="utf-8")
    text = text.replace('"mean colour"', '"[bold]x\\u001b[31m"').replace('"tiny-0"', '"[/nothing]"')
    path.write_text(text, encoding="utf-8")
    done = run("inspect", bundle)
    assert done.code == 0, done.err
    assert "Frame encoder: [bold]x\N{REPLACEMENT CHARACTER}[31m." in done.out
    assert "[/nothing]" in done.out
