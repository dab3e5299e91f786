"""The engine in this process: the graphs of a bundle, or of one of its variants, each in the engine that it is for."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from hero_sdk.engines.batching import Arrays, run_in_batches
from hero_sdk.engines.session import GraphSession, OpenTensor, open_graph
from hero_sdk.errors import BundleError, EngineError, InputError
from hero_sdk.manifest import GraphSpec, Manifest, TensorSpec, read_bundle
from hero_sdk.signature import PublicKeys
from hero_sdk.variants import ONNXRUNTIME


class LocalEngine:
    """Runs the graphs of a bundle in this process.

    A graph is opened on its first use, so that a program that only searches never loads the encoders. ``run`` may be called
    from several threads at once.

    Args:
        bundle: folder that ``hero-export onnx`` wrote.
        variant: name in the manifest of what runs instead of the bundle's own graphs; None runs those.
        threads: how many threads compute one call; default: the physical cores that this process may use.
        providers: onnxruntime's execution providers; default: CUDA where it can be used, then the CPU.
        require_signature: public keys of which one must have signed the bundle; None asks for no signature.

    Raises:
        BundleError: the bundle is incomplete, altered or of another format.
        SignatureError: none of the required keys signed it.
        InputError: no such variant in the bundle.
    """

    def __init__(
        self,
        bundle: Path | str,
        *,
        variant: str | None = None,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
        require_signature: PublicKeys | None = None,
    ) -> None:
        self._bundle = Path(bundle)
        self._manifest = read_bundle(self._bundle, require_signature=require_signature)
        self._variant = None if variant is None else self._manifest.variant(variant)
        self._tokenizer_json = (self._bundle / self._manifest.tokenizer).read_text(encoding="utf-8")
        self._threads = threads
        self._providers = providers
        self._sessions: dict[str, GraphSession] = {}
        self._lock = threading.Lock()
        self._closed = False

    @property
    def manifest(self) -> Manifest:
        """The manifest of the bundle."""
        return self._manifest

    @property
    def tokenizer_json(self) -> str:
        """The bundle's tokenizer in the format of the ``tokenizers`` library."""
        return self._tokenizer_json

    def run(self, graph: str, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Run one graph; batches beyond ``max_batch`` of the graph are cut and joined again.

        Args:
            graph: name in the manifest.
            inputs: the arrays by input name, with the dtypes and shapes of the manifest and any batch size from 1 on.

        Returns:
            The outputs by name.

        Raises:
            InputError: no such graph in the bundle, or inputs that are not what the manifest says.
            BundleError: the graph's file is not what the manifest says.
            MissingPackageError: what runs the graph is not installed.
            EngineError: the graph failed, cannot run on this machine, or the engine is closed.
        """
        spec = self._manifest.graphs.get(graph)
        if spec is None:
            raise InputError(
                f"The bundle {self._bundle} has no graph '{graph}'; it has {sorted(self._manifest.graphs)}."
            )
        session = self._session(graph, spec)
        names = [tensor.name for tensor in spec.outputs]

        def call(piece: Arrays) -> Arrays:
            try:
                return dict(zip(names, session.run(names, piece), strict=True))
            except Exception as error:  # the engines' exceptions share no base class but Exception
                raise EngineError(
                    f"Graph '{graph}' of {self._bundle} failed in {self._place(graph, spec)[1]} ({error}). "
                    "If memory ran out, use smaller batches; otherwise export the bundle again."
                ) from error

        return run_in_batches(spec, graph, inputs, call)

    def close(self) -> None:
        """Free the graphs; the engine cannot run afterwards. A second call does nothing."""
        with self._lock:
            self._closed = True
            self._sessions.clear()

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"LocalEngine({str(self._bundle)!r})"

    def _place(self, graph: str, spec: GraphSpec) -> tuple[str, str, str]:
        """File, engine and precision of what runs a graph."""
        if self._variant is not None and graph in self._variant.graphs:
            return self._variant.graphs[graph].file, self._variant.engine, self._variant.precision
        return spec.file, ONNXRUNTIME, spec.precision

    def _session(self, graph: str, spec: GraphSpec) -> GraphSession:
        with self._lock:
            if self._closed:
                raise EngineError(f"The engine of {self._bundle} is closed. Load the bundle again to run '{graph}'.")
            if graph not in self._sessions:
                file, engine, precision = self._place(graph, spec)
                path = self._bundle / file
                session = open_graph(path, engine, precision, threads=self._threads, providers=self._providers)
                for tensors, found in ((spec.inputs, session.inputs), (spec.outputs, session.outputs)):
                    _check_tensors(path, tensors, found)
                self._sessions[graph] = session
            return self._sessions[graph]


def _check_tensors(path: Path, tensors: Sequence[TensorSpec], found: Mapping[str, OpenTensor]) -> None:
    """Compare the inputs or outputs of a graph with the manifest; a dimension that the graph leaves open fits every size."""
    expected = {tensor.name: tensor for tensor in tensors}
    same = found.keys() == expected.keys() and all(
        found[name].dtype == tensor.dtype
        and len(found[name].shape) == len(tensor.shape)
        and all(size is None or size == want for size, want in zip(found[name].shape, tensor.shape, strict=True))
        for name, tensor in expected.items()
    )
    if not same:
        shown = {name: (tensor.dtype, tensor.shape) for name, tensor in found.items()}
        wanted = {name: (tensor.dtype, tensor.shape) for name, tensor in expected.items()}
        raise BundleError(f"{path} has the tensors {shown}; its manifest says {wanted}. Export the bundle again.")
