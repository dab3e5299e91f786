"""The Python environment that NVIDIA's Triton server runs from: finding one, and making one.

The wheel ``nvidia-pytriton`` carries the ``tritonserver`` binary with its Python backend, for CPUs and GPUs. The Python models
of a repository need onnxruntime and a numpy below 2 beside it, older than this SDK's, so the server gets an environment of its
own: ``hero-triton`` in the current one, or where ``HERO_TRITON_ENV`` says.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hero_sdk.errors import InputError, MissingPackageError, ServerError

__all__ = ["ENVIRONMENT_VARIABLE", "ServerEnvironment", "create_server_environment", "find_server_environment"]

ENVIRONMENT_VARIABLE = "HERO_TRITON_ENV"

SERVER_WHEEL = "nvidia-pytriton==0.7.0"
LIBRARIES = (
    "onnxruntime==1.23.2; python_version < '3.11'",  # the last with wheels for Python 3.10
    "onnxruntime==1.32.0; python_version >= '3.11'",
    "numpy==1.26.4",  # the Python models crash on text tensors with numpy 2, whose array layout the server's stubs do not know
)
MARKER_FILE = "hero-triton.json"
INSTALL_SECONDS = 900
PROBE_SECONDS = 60

# Runs in the environment's own interpreter. The stub of the Python backend links to libpython, which a Python may have built in
# instead (conda's, Debian's without libpython3.x); loading the library is the one sure way to know.
PROBE = """
import ctypes, importlib.metadata, importlib.util, json, sys, sysconfig
def folder(name):
    spec = importlib.util.find_spec(name)
    return spec.submodule_search_locations[0] if spec and spec.submodule_search_locations else None
version = f"{sys.version_info[0]}.{sys.version_info[1]}"
library, libpython = sysconfig.get_config_var("LIBDIR"), None
for candidate in (f"{library}/libpython{version}.so.1.0", f"libpython{version}.so.1.0"):
    try:
        ctypes.CDLL(candidate)
    except OSError:
        continue
    libpython = candidate
    break
packages = {name: folder(name) for name in ("pytriton", "onnxruntime", "numpy")}
numpy = importlib.metadata.version("numpy") if packages["numpy"] else None
print(json.dumps({"version": version, "libpython": libpython, **packages, "numpy": numpy}))
"""


@dataclass(frozen=True)
class ServerEnvironment:
    """What starting the server needs to know of its Python environment.

    Attributes:
        python: the interpreter, in the ``bin`` folder that its environment is found by.
        version: of Python, such as "3.11"; the server has one stub for each.
        triton: the folder ``pytriton/tritonserver`` of the wheel.
        library_folders: what the dynamic linker needs besides the system's.
    """

    python: Path
    version: str
    triton: Path
    library_folders: tuple[Path, ...]

    @property
    def stub(self) -> Path:
        """The program in which the server runs a Python model."""
        return self.triton / "python_backend_stubs" / self.version / "triton_python_backend_stub"


def default_environment_path() -> Path:
    """Where the environment is looked for and made: ``$HERO_TRITON_ENV``, or ``hero-triton`` in the current environment."""
    return Path(os.environ.get(ENVIRONMENT_VARIABLE) or Path(sys.prefix) / "hero-triton")


def find_server_environment(path: Path | str | None = None) -> ServerEnvironment:
    """Find the environment of the server.

    Args:
        path: a virtual environment; None looks at ``$HERO_TRITON_ENV``, then the current environment, then ``hero-triton``
            in it.

    Raises:
        MissingPackageError: there is none.
        ServerError: there is one, and the server cannot run from it.
    """
    if path is None and not os.environ.get(ENVIRONMENT_VARIABLE) and _installed_here():
        return _inspect(Path(sys.executable))
    folder = default_environment_path() if path is None else Path(path)
    python = folder / "bin" / "python"
    if not python.is_file():
        raise MissingPackageError(
            f"NVIDIA's Triton server is not installed: there is no environment at {folder}. "
            "Make it with: python -m hero_sdk.serve --setup"
        )
    return _inspect(python)


def create_server_environment(
    path: Path | str | None = None, *, python: Path | str | None = None, echo: Callable[[str], object] = print
) -> Path:
    """Make a virtual environment with NVIDIA's Triton server, numpy and onnxruntime; about 330 MB. One that is complete stays.

    Args:
        path: where; None for ``$HERO_TRITON_ENV``, or ``hero-triton`` in the current environment.
        python: interpreter to make it from (3.10 to 3.12); None for the current one.
        echo: told what happens, a line at a time.

    Returns:
        The folder of the environment.

    Raises:
        InputError: the folder holds something else.
        ServerError: a step failed, or the server cannot run from the result.
    """
    folder = default_environment_path() if path is None else Path(path)
    marker = folder / MARKER_FILE
    wanted = {"requirements": [SERVER_WHEEL, *LIBRARIES]}
    if marker.is_file() and json.loads(marker.read_text(encoding="utf-8")) == wanted:
        find_server_environment(folder)
        echo(f"The Triton server is installed in {folder}")
        return folder
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").is_file():
        raise InputError(
            f"{folder} exists and is not a virtual environment; nothing was changed. Choose another folder."
        )
    echo(f"Installing NVIDIA's Triton server ({SERVER_WHEEL}, 55 MB) and onnxruntime into {folder}")
    _run([str(python or sys.executable), "-m", "venv", "--clear", str(folder)])
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--quiet"]
    _run([*pip, *LIBRARIES])
    _run([*pip, "--no-deps", SERVER_WHEEL])
    find_server_environment(folder)
    marker.write_text(
        json.dumps(wanted, indent=2) + "\n", encoding="utf-8"
    )  # last: without it, the next call starts again
    return folder


def _installed_here() -> bool:
    """Whether the current environment can run the server; this SDK works with a numpy below 2 too."""
    installed = all(importlib.util.find_spec(name) is not None for name in ("pytriton", "onnxruntime"))
    return installed and int(importlib.metadata.version("numpy").split(".")[0]) < 2


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    except OSError as error:
        raise ServerError(f"`{command[0]}` could not be started ({error}); expected a Python interpreter.") from error
    except subprocess.TimeoutExpired as error:
        raise ServerError(
            f"`{' '.join(command)}` took more than {INSTALL_SECONDS} s. Check the network, then try again."
        ) from error
    if done.returncode != 0:
        raise ServerError(
            f"Installing the Triton server failed: `{' '.join(command)}` ended with {done.returncode}:\n"
            f"{(done.stderr or done.stdout).strip()[-2000:]}\n"
            f"It needs Linux on x86-64 with glibc 2.35, Python 3.10 to 3.12, and a package index. "
            f"Set {ENVIRONMENT_VARIABLE} to put it elsewhere."
        )


def _inspect(python: Path) -> ServerEnvironment:
    """Ask an interpreter for what the server needs, and check that it is all there."""
    command = [str(python), "-I", "-c", PROBE]
    advice = "Make the environment again: python -m hero_sdk.serve --setup"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerError(f"{python} does not run ({error}). {advice}") from error
    if done.returncode != 0:
        raise ServerError(f"{python} does not run ({done.stderr.strip()[-500:]}). {advice}")
    found = json.loads(done.stdout)
    if missing := [name for name in ("pytriton", "onnxruntime", "numpy") if found[name] is None]:
        raise MissingPackageError(
            f"The environment of {python} has no {', '.join(missing)}; expected NVIDIA's Triton server (the wheel "
            f"{SERVER_WHEEL}), onnxruntime and numpy. Make it again: python -m hero_sdk.serve --setup"
        )
    if int(found["numpy"].split(".")[0]) >= 2:
        raise ServerError(
            f"The environment of {python} has numpy {found['numpy']}; this Triton server crashes on text tensors with "
            "numpy 2. Let the server have its own environment: python -m hero_sdk.serve --setup"
        )
    package = Path(found["pytriton"])
    environment = ServerEnvironment(
        python=python,
        version=found["version"],
        triton=package / "tritonserver",
        library_folders=_library_folders(package, found["libpython"]),
    )
    if not environment.stub.is_file():
        stubs = sorted(folder.name for folder in environment.stub.parents[1].glob("3.*"))
        raise ServerError(
            f"{python} is Python {environment.version}; this Triton server runs Python models with one of {stubs}. "
            "Make the environment from such a Python: python3.12 -m hero_sdk.serve --setup"
        )
    bundled = any(
        (package.parent / "nvidia_pytriton.libs").glob(f"libpython3-*.{environment.version.split('.')[1]}.so*")
    )
    if found["libpython"] is None and not bundled:
        raise ServerError(
            f"The shared library libpython{environment.version}.so.1.0 is missing, which the Triton server needs to run Python "
            f"models. On Debian or Ubuntu: apt-get install libpython{environment.version}"
        )
    return environment


def _library_folders(package: Path, libpython: str | None) -> tuple[Path, ...]:
    folders = [package.parent / "nvidia_pytriton.libs"]
    if libpython is not None and os.path.isabs(libpython):
        folders.append(Path(libpython).parent)
    return tuple(folders)
