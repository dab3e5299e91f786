"""``reports/reproduce.sh`` of a bundle: the export that made it."""

from __future__ import annotations

from collections.abc import Mapping

from hero_export.bundles.sources import Sources
from hero_export.report import tool_versions
from hero_export.reproduce import SCRIPT_FILE, Variable, Word, reproduce_script
from hero_sdk.frame_encoder import GRAPH_FILE, SPEC_FILE
from hero_sdk.manifest import sha256_of
from hero_train.checkpoint import FRAME_ENCODER_FOLDER, TOKENIZER_FILE, WEIGHTS_FILE
from hero_train.config import CONFIG_FILE

REPORT_SCRIPT = f"reports/{SCRIPT_FILE}"


def export_script(
    sources: Sources, options: Mapping[str, str | int], *, own_tokenizer: bool, own_frame_encoder: bool
) -> str:
    """The script that makes a bundle again. Every option stands there, for a default may be another one in another version.

    Args:
        sources: what the bundle was made from.
        options: every option of the export that changes the result, by name.
        own_tokenizer, own_frame_encoder: whether they lie elsewhere than with the checkpoint.
    """
    tokenizer = Variable("TOKENIZER") if own_tokenizer else Variable("CHECKPOINT", TOKENIZER_FILE)
    frames = Variable("FRAME_ENCODER") if own_frame_encoder else Variable("CHECKPOINT", FRAME_ENCODER_FOLDER)
    command: list[Word] = ["hero-export", "onnx", Variable("CHECKPOINT"), "--out", Variable("OUT")]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", value]
    variables = {"CHECKPOINT": "the folder of the checkpoint", "OUT": "the folder to write the bundle to"}
    if own_tokenizer:
        command += ["--tokenizer", tokenizer]
        variables["TOKENIZER"] = f"the file {TOKENIZER_FILE}"
    if own_frame_encoder:
        command += ["--frame-encoder", frames]
        variables["FRAME_ENCODER"] = "the folder of the frame encoder"
    inputs = {
        Variable("CHECKPOINT", name): sha256_of(sources.checkpoint / name) for name in (CONFIG_FILE, WEIGHTS_FILE)
    }
    inputs[tokenizer] = sha256_of(sources.tokenizer)
    for name in (GRAPH_FILE, SPEC_FILE):
        inside = f"{frames.below}/{name}" if frames.below else name
        inputs[Variable(frames.name, inside)] = sha256_of(sources.frame_encoder / name)
    return reproduce_script(command, variables=variables, inputs=inputs, tools=tool_versions())
