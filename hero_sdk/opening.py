"""How a Hero is made: from a bundle in this process, or from a server that runs one."""

from __future__ import annotations

import os
from collections.abc import Sequence

from hero_sdk.hero import Hero
from hero_sdk.signature import PublicKeys


def load(
    bundle: str | os.PathLike[str],
    *,
    variant: str | None = None,
    threads: int | None = None,
    providers: Sequence[str] | None = None,
    require_signature: PublicKeys | None = None,
) -> Hero:
    """Run a bundle in this process.

    Args:
        bundle: folder that ``hero-export onnx`` wrote, or ``hub:OWNER/NAME`` for one on the Hugging Face hub, with ``@REVISION``
            behind it for a branch, tag or commit; it is kept in the hub's cache.
        variant: name in the manifest of the graphs to run, such as "openvino-int8". None: the bundle's own, in float32.
        threads: of the engine. None: one per core that this process may use.
        providers: onnxruntime execution providers, in order of preference. None: CUDA where it is, then CPU.
        require_signature: public keys (PEM files or texts) of which one must have signed the bundle. None asks for no signature.

    Raises:
        BundleError: the bundle is incomplete or altered.
        SignatureError: none of the required keys signed it.
        HubError: the hub cannot be reached, or has no such bundle.
        InputError: no such variant in the bundle.
        MissingPackageError: the engine, or what the hub or a signature needs, is not installed.
    """
    from hero_sdk.engines.local import LocalEngine
    from hero_sdk.hub import local_bundle

    folder = local_bundle(bundle, require_signature=require_signature)
    return Hero(
        LocalEngine(folder, variant=variant, threads=threads, providers=providers, require_signature=require_signature)
    )


def connect(url: str, *, timeout: float = 60.0, retries: int = 3) -> Hero:
    """Use a Triton server that runs a repository of ``hero-export triton``.

    Args:
        url: ``grpc://host:8001`` or ``host:8001``.
        timeout: seconds for one request.
        retries: how often a call is tried again when the server cannot be reached.

    Raises:
        ServerError: the server cannot be reached or is not ready.
    """
    from hero_sdk.engines.triton import TritonEngine

    return Hero(TritonEngine(url, timeout=timeout, retries=retries))
