"""The engine that runs the graphs of a bundle on a Triton Inference Server, over gRPC.

The server is one that serves a model repository of ``hero-export triton``: one model per graph, and ``hero_bundle``, from
which the client reads the manifest and the tokenizer, so that the address is all it needs.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np

from hero_sdk.engines.batching import run_in_batches
from hero_sdk.errors import EngineError, InputError, ServerError, require
from hero_sdk.manifest import MANIFEST_FILE, Manifest, TensorSpec, check_task
from hero_sdk.variants import Variant

__all__ = [
    "BUNDLE_MODEL",
    "FINGERPRINT_PARAMETER",
    "GRAPH_FILE",
    "SHA256_PARAMETER",
    "VARIANT_PARAMETER",
    "TritonEngine",
    "model_name",
]

BUNDLE_MODEL = "hero_bundle"
"""The model that hands out the manifest and the tokenizer."""

GRAPH_FILE = "model.onnx"
"""Name of a graph in the version folder of its model."""

FINGERPRINT_PARAMETER = "fingerprint"
SHA256_PARAMETER = "sha256:"
"""Parameters of a model's configuration: the bundle's fingerprint; with a file name behind it, that file's sha256."""

VARIANT_PARAMETER = "variant"
"""Parameter of the bundle's model: which of its variants is served; the bundle's own graphs where there is none."""

DEFAULT_PORT = 8001
WRITE_AGAIN = "Write the model repository again with `hero-export triton` and restart the server."

FIRST_DELAY, LONGEST_DELAY = 0.5, 8.0  # seconds between attempts to connect

T = TypeVar("T")


def model_name(graph: str) -> str:
    """Name of the Triton model that runs a graph of the manifest."""
    return f"hero_{graph}"


class TritonEngine:
    """Runs graphs on a Triton Inference Server. Safe to use from several threads; their requests batch on the server.

    Args:
        url: ``grpc://host:port`` or ``host:port``, the server's gRPC address; the port defaults to 8001.
        timeout: seconds for connecting (all attempts together), and again for each request.
        retries: how many more times to try a connection that is refused or does not answer. Requests that run graphs are
            not repeated: the caller knows better whether the answer is still wanted.

    Raises:
        InputError: the address is not a gRPC address.
        ServerError: the server cannot be reached, is not ready, or serves something else than its manifest says.
        BundleError: the server's manifest is of a format that this version does not read.
    """

    def __init__(self, url: str, *, timeout: float = 60.0, retries: int = 3) -> None:
        if timeout <= 0 or retries < 0:
            raise InputError(f"timeout is {timeout} and retries {retries}; expected timeout > 0 s and retries >= 0.")
        self._address = _grpc_address(url)
        self._timeout = timeout
        self._grpc = require("tritonclient.grpc", "serve", "reach a Triton server")
        self._error = require("tritonclient.utils", "serve", "reach a Triton server").InferenceServerException
        self._closed = False
        self._client = self._grpc.InferenceServerClient(
            self._address,
            channel_args=[
                ("grpc.max_send_message_length", -1),  # a batch of rows exceeds gRPC's 4 MB
                ("grpc.max_receive_message_length", -1),
                # Below the delays of the retry policy here, or an attempt would fail without trying.
                ("grpc.initial_reconnect_backoff_ms", 250),
                ("grpc.max_reconnect_backoff_ms", 1000),
            ],
        )
        try:
            self._connect(retries)
            manifest = self._fetch(MANIFEST_FILE)
            origin = f"The manifest served at {self._address}"
            self._manifest = Manifest.from_json(manifest.decode("utf-8"), origin)
            check_task(self._manifest, origin)
            self._tokenizer_json = self._fetch_tokenizer().decode("utf-8")
            self._variant = self._served_variant()
            self._check_models()
        except BaseException:
            self.close()
            raise

    @property
    def manifest(self) -> Manifest:
        """The manifest of the bundle that the server runs."""
        return self._manifest

    @property
    def tokenizer_json(self) -> str:
        """The bundle's tokenizer in the format of the ``tokenizers`` library."""
        return self._tokenizer_json

    @property
    def variant(self) -> str | None:
        """The variant of the bundle that the server runs; None for the bundle's own graphs."""
        return None if self._variant is None else self._variant.name

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one graph; see ``hero_sdk.engines.Engine.run``.

        Raises:
            InputError: no such graph, or inputs that the manifest does not allow.
            EngineError: the graph failed on the server, the engine is closed, or the answer is not what the manifest says.
            ServerError: the server did not answer in time, cannot be reached any more, or refuses.
        """
        if self._closed:
            raise EngineError(f"This connection to {self._address} is closed; connect again.")
        if graph not in self._manifest.graphs:
            raise InputError(f"There is no graph '{graph}' at {self._address}; it has {sorted(self._manifest.graphs)}.")
        spec = self._manifest.graphs[graph]
        outputs = tuple(tensor.name for tensor in spec.outputs)
        model = model_name(graph)

        def call(piece: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            with self._server_errors(f"running '{model}'", EngineError):
                return self._infer(model, piece, outputs)

        return run_in_batches(spec, graph, inputs, call)

    def server_version(self) -> str:
        """The version of the Triton server."""
        with self._server_errors("describing the server"):
            return str(self._client.get_server_metadata(client_timeout=self._timeout).version)

    def close(self) -> None:
        """Close the connection; a second call does nothing."""
        if not self._closed:
            self._closed = True
            self._client.close()

    def __enter__(self) -> TritonEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _infer(self, model: str, arrays: Mapping[str, np.ndarray], outputs: tuple[str, ...]) -> dict[str, np.ndarray]:
        to_triton = require("tritonclient.utils", "serve", "reach a Triton server").np_to_triton_dtype
        inputs = []
        for name, array in arrays.items():
            tensor = self._grpc.InferInput(name, list(array.shape), to_triton(array.dtype))
            inputs.append(tensor.set_data_from_numpy(array))
        requested = [self._grpc.InferRequestedOutput(name) for name in outputs]
        result = self._client.infer(model, inputs, outputs=requested, client_timeout=self._timeout)
        found = {name: result.as_numpy(name) for name in outputs}
        # as_numpy gives read-only views of the message; the engine in this process gives arrays that can be written to.
        return {name: np.array(array) for name, array in found.items() if array is not None}

    def _connect(self, retries: int) -> None:
        """Wait until the server answers, and see that it is one of ours."""

        def live(seconds: float) -> bool:
            return bool(self._client.is_server_live(client_timeout=seconds))

        if not self._with_retries(live, retries):
            raise ServerError(
                f"The Triton server at {self._address} answers and says that it is not live. Look at its log."
            )
        if not self._ready(BUNDLE_MODEL):
            raise ServerError(
                f"The server at {self._address} has no model '{BUNDLE_MODEL}', or it is not ready; expected a model repository "
                "that `hero-export triton` wrote. Serve one with `hero serve REPO`, and look at the server's log."
            )

    def _ready(self, model: str) -> bool:
        with self._server_errors(f"asking for '{model}'"):
            return bool(self._client.is_model_ready(model, client_timeout=self._timeout))

    def _with_retries(self, attempt: Callable[[float], T], retries: int) -> T:
        """Call ``attempt(seconds)`` until it answers: the only retry policy of this client.

        Only what may pass is tried again, no connection and no answer. Delays double from 0.5 s to 8 s with jitter, so that
        many clients do not come back at once; all together takes no longer than the timeout.
        """
        end = time.monotonic() + self._timeout
        for number in range(retries + 1):
            seconds = max((end - time.monotonic()) / (retries + 1 - number), 0.01)
            try:
                return attempt(seconds)
            except self._error as error:
                delay = min(FIRST_DELAY * 2**number, LONGEST_DELAY) * random.uniform(0.75, 1.0)
                passing = error.status() in ("StatusCode.UNAVAILABLE", "StatusCode.DEADLINE_EXCEEDED")
                if not passing or number == retries or time.monotonic() + delay >= end:
                    raise self._translated(error, f"connecting ({number + 1} attempts)") from error
            time.sleep(delay)
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _fetch(self, file: str) -> bytes:
        """A file of the bundle that the server hands out."""
        name = np.array([file.encode("utf-8")], dtype=np.object_)
        with self._server_errors(f"asking for {file}"):
            content = self._infer(BUNDLE_MODEL, {"file": name}, ("content",))
        return bytes(content["content"][0])

    def _fetch_tokenizer(self) -> bytes:
        name = self._manifest.tokenizer
        content = self._fetch(name)
        expected = self._manifest.files[name].sha256 if name in self._manifest.files else "none in the manifest"
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            raise ServerError(
                f"The tokenizer served at {self._address} has sha256 {found}; the manifest says {expected}. "
                f"{WRITE_AGAIN}"
            )
        return content

    def _served_variant(self) -> Variant | None:
        with self._server_errors(f"describing '{BUNDLE_MODEL}'"):
            config = self._client.get_model_config(BUNDLE_MODEL, client_timeout=self._timeout).config
        if VARIANT_PARAMETER not in config.parameters:
            return None
        name = config.parameters[VARIANT_PARAMETER].string_value
        if name not in self._manifest.variants:
            raise ServerError(
                f"The server at {self._address} says that it runs the variant {name!r}; its manifest has "
                f"{sorted(self._manifest.variants) or 'none'}. {WRITE_AGAIN}"
            )
        return self._manifest.variants[name]

    def _check_models(self) -> None:
        """Compare what the server runs with what its manifest says, so that a mixed-up repository fails here and not silently."""
        if waiting := [name for name in map(model_name, self._manifest.graphs) if not self._ready(name)]:
            raise ServerError(
                f"The server at {self._address} has models that are missing or not ready: {', '.join(waiting)}. "
                "Look at its log, or connect again when they are loaded."
            )
        for graph, spec in self._manifest.graphs.items():
            name = model_name(graph)
            with self._server_errors(f"describing '{name}'"):
                metadata = self._client.get_model_metadata(name, client_timeout=self._timeout)
                config = self._client.get_model_config(name, client_timeout=self._timeout).config
            for kind, found, expected in (
                ("inputs", metadata.inputs, spec.inputs),
                ("outputs", metadata.outputs, spec.outputs),
            ):
                if _served(found) != (wanted := self._wanted(expected)):
                    raise ServerError(
                        f"Model '{name}' at {self._address} has the {kind} {_served(found)}; the manifest says {wanted}. "
                        f"{WRITE_AGAIN}"
                    )
            if config.max_batch_size < spec.max_batch:
                raise ServerError(
                    f"Model '{name}' at {self._address} takes batches of {config.max_batch_size}; "
                    f"the manifest says {spec.max_batch}. {WRITE_AGAIN}"
                )
            for key, want in self._wanted_parameters(graph).items():
                have = config.parameters[key].string_value if key in config.parameters else "nothing"
                if have != want:
                    raise ServerError(
                        f"Model '{name}' at {self._address} was written from another bundle than the manifest served there: "
                        f"its {key} is {have}, expected {want}. {WRITE_AGAIN}"
                    )

    def _wanted(self, tensors: tuple[TensorSpec, ...]) -> dict[str, tuple[str, tuple[int, ...]]]:
        to_triton = require("tritonclient.utils", "serve", "reach a Triton server").np_to_triton_dtype
        return {tensor.name: (to_triton(np.dtype(tensor.dtype)), tensor.shape) for tensor in tensors}

    def _wanted_parameters(self, graph: str) -> dict[str, str]:
        file = self._manifest.file_of(graph, self._variant)
        return {
            FINGERPRINT_PARAMETER: self._manifest.fingerprint,
            SHA256_PARAMETER + GRAPH_FILE: self._manifest.files[file].sha256,
        }

    @contextmanager
    def _server_errors(self, doing: str, in_model: type[EngineError] = ServerError) -> Iterator[None]:
        try:
            yield
        except self._error as error:
            raise self._translated(error, doing, in_model) from error

    def _translated(self, error: Any, doing: str, in_model: type[EngineError] = ServerError) -> EngineError:
        """What the server or gRPC reported, as the SDK's error with what to do; ``in_model`` for what failed inside a model."""
        status = (error.status() or "").removeprefix("StatusCode.")
        advice = {
            "UNAVAILABLE": "Is it running, and is this its gRPC address (port 8001 by default, not HTTP's 8000)?",
            "DEADLINE_EXCEEDED": f"It did not answer within {self._timeout:g} s: it is overloaded or the timeout too short.",
            "INVALID_ARGUMENT": "Check the input that this request was made from.",
        }.get(status, "Look at the server's log.")
        kind = in_model if status in ("INTERNAL", "INVALID_ARGUMENT") else ServerError
        return kind(f"The Triton server at {self._address} failed while {doing}: {status}: {error.message()}. {advice}")


def _served(tensors: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {tensor.name: (tensor.datatype, tuple(tensor.shape)) for tensor in tensors}


def _grpc_address(url: str) -> str:
    """``host:port`` of an address that may have ``grpc://`` in front."""
    parts = urlsplit(url if "://" in url else f"grpc://{url}")
    if parts.scheme in ("http", "https"):
        raise InputError(
            f"{url} is an HTTP address; this client speaks gRPC. Use grpc://{parts.hostname or 'host'}:{DEFAULT_PORT} "
            "(Triton's gRPC port is 8001 by default)."
        )
    try:
        host, port = parts.hostname, parts.port or DEFAULT_PORT
    except ValueError as error:
        raise InputError(
            f"{url} has a port that is not a number from 1 to 65535; expected grpc://host:port."
        ) from error
    if parts.scheme != "grpc" or not host or parts.path.strip("/") or parts.query or parts.username:
        raise InputError(f"{url} is not the address of a Triton server; expected grpc://host:port or host:port.")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
