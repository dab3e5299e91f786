"""Runs one graph of a HERO bundle with onnxruntime, inside Triton's Python backend.

All it needs lies in its own version folder and in the parameters of its configuration:

    sha256:FILE   the sha256 that the bundle's manifest gives for a file of the version folder; the first is the graph
    threads       threads of one run; 0 means every core that the server may use
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

GRAPH_FILE = "model.onnx"
SHA256_PREFIX = "sha256:"


class TritonPythonModel:
    """One instance of the model; Triton calls these methods by name."""

    def initialize(self, args):
        """Check the files against the manifest's sha256 and open the graph.

        Raises:
            pb_utils.TritonModelException: a file is missing or is not the one of the bundle; the model does not load.
        """
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        parameters = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        _check_files(folder, parameters)
        self._session = onnxruntime.InferenceSession(
            str(folder / GRAPH_FILE),
            sess_options=_session_options(int(parameters.get("threads", "0"))),
            providers=_providers(args["model_instance_kind"], args["model_instance_device_id"]),
        )
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]

    def execute(self, requests):
        """Run the requests of one dynamic batch in one go; one response per request, in order."""
        batches = [
            {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs}
            for request in requests
        ]
        try:
            return self._run_joined(batches)
        except Exception:
            if len(requests) == 1:
                raise
        # One client's bad input (a token id beyond the vocabulary, say) must not fail the requests that it was batched with.
        return [self._run_alone(batch) for batch in batches]

    def _run_joined(self, batches):
        feed = {name: np.concatenate([batch[name] for batch in batches]) for name in self._inputs}
        outputs = self._session.run(self._outputs, feed)
        ends = np.cumsum([len(batch[self._inputs[0]]) for batch in batches])[:-1]
        pieces = zip(*(np.split(output, ends) for output in outputs), strict=True)
        return [self._response(arrays) for arrays in pieces]

    def _run_alone(self, batch):
        try:
            return self._response(self._session.run(self._outputs, batch))
        except Exception as error:  # noqa: BLE001 - the protocol's way to report it; the client raises it
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))

    def _response(self, arrays):
        tensors = [
            pb_utils.Tensor(name, np.ascontiguousarray(array))
            for name, array in zip(self._outputs, arrays, strict=True)
        ]
        return pb_utils.InferenceResponse(output_tensors=tensors)


def _check_files(folder, parameters):
    expected = {key[len(SHA256_PREFIX) :]: value for key, value in parameters.items() if key.startswith(SHA256_PREFIX)}
    if GRAPH_FILE not in expected:
        raise pb_utils.TritonModelException(
            f"config.pbtxt has no parameter {SHA256_PREFIX}{GRAPH_FILE}. Write the repository again with hero-export triton."
        )
    for name, sha256 in expected.items():
        path = folder / name
        found = _sha256(path) if path.is_file() else "no file"
        if found != sha256:
            raise pb_utils.TritonModelException(
                f"{name} is not the file of the bundle: found {found}, expected sha256 {sha256}. "
                "Write the repository again with hero-export triton."
            )


def _sha256(path):
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def _session_options(threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Several models share the cores; a thread that spins while it waits takes them from the others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _providers(kind, device):
    if kind != "GPU":
        return ["CPUExecutionProvider"]
    available = onnxruntime.get_available_providers()
    if "CUDAExecutionProvider" not in available:
        raise pb_utils.TritonModelException(
            f"The configuration asks for a GPU, and this onnxruntime has only {available}. Install onnxruntime-gpu in place of "
            "onnxruntime in the server's Python, or write the repository with --device cpu."
        )
    return [("CUDAExecutionProvider", {"device_id": device}), "CPUExecutionProvider"]
