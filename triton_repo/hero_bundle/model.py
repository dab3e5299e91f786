"""Hands the manifest and the tokenizer of a HERO bundle to clients, inside Triton's Python backend.

Input ``file``, BYTES [1]: ``manifest.json`` or the tokenizer's path as the manifest has it. Output ``content``, BYTES [1].
No other file can be had, whatever its name: both are read when the model loads, and requests only look them up.
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

MANIFEST_FILE = "manifest.json"


class TritonPythonModel:
    """One instance of the model; Triton calls these methods by name."""

    def initialize(self, args):
        """Read both files and check the tokenizer against the manifest.

        Raises:
            pb_utils.TritonModelException: the tokenizer is not the one of the manifest; the model does not load.
        """
        folder = Path(args["model_repository"]) / args["model_version"]
        manifest = (folder / MANIFEST_FILE).read_bytes()
        content = json.loads(manifest)
        name = content["tokenizer"]
        tokenizer = (folder / name).read_bytes()
        found, expected = hashlib.sha256(tokenizer).hexdigest(), content["files"][name]["sha256"]
        if found != expected:
            raise pb_utils.TritonModelException(
                f"{name} is not the file of the bundle: found sha256 {found}, expected {expected}. "
                "Write the repository again with hero-export triton."
            )
        self._files = {MANIFEST_FILE: manifest, name: tokenizer}

    def execute(self, requests):
        """Answer each request with the file that it names, or with an error that says which there are."""
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        name = pb_utils.get_input_tensor_by_name(request, "file").as_numpy()[0].decode("utf-8", errors="replace")
        if name not in self._files:
            error = f"There is no file {name!r} to be had here; expected one of {sorted(self._files)}."
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(error, pb_utils.TritonError.INVALID_ARG))
        content = np.array([self._files[name]], dtype=np.object_)
        return pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor("content", content)])
