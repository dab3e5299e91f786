"""How ``hero-export`` ends: one code per kind of failure, so that a script can tell a wrong path from a forged bundle."""

from __future__ import annotations

from enum import IntEnum

from hero_export.errors import (
    BudgetError,
    BuildError,
    CalibrationError,
    FusionError,
    PrecisionError,
    VerificationError,
)
from hero_sdk.errors import BundleError, EngineError, HeroError, HubError, MissingPackageError, SignatureError


class ExitCode(IntEnum):
    """The codes. ``hero-export diff`` uses the first three only, as ``diff`` does."""

    OK = 0
    """Done; with ``diff``, nothing differs."""

    DIFFERENT = 1
    """``diff`` alone: the two bundles differ."""

    USAGE = 2
    """The command line itself is wrong; with ``diff``, any trouble."""

    INPUT = 3
    """What was named cannot be used: a checkpoint, a shape, a key, a place to write to."""

    REFUSED = 4
    """A bundle is incomplete, altered, of another format, or its parts do not go together, such as a stale calibration set."""

    SIGNATURE = 5
    """A bundle is unsigned, or another key signed it."""

    VERIFICATION = 6
    """An exported graph is not fused, not in the precision that was asked for, refused by an engine, or computes something else."""

    ENVIRONMENT = 7
    """A package is missing, or an engine fails on this machine."""

    HUB = 8
    """The hub cannot be reached, refuses, or has no such bundle."""

    BUDGET = 9
    """A variant loses more of its task's metric than its budget."""

    INTERNAL = 70
    """A mistake of this program; the traceback is shown."""

    INTERRUPTED = 130
    """Ctrl-C."""


_CODES: tuple[tuple[type[HeroError], ExitCode], ...] = (
    (SignatureError, ExitCode.SIGNATURE),
    (BundleError, ExitCode.REFUSED),
    (CalibrationError, ExitCode.REFUSED),
    (FusionError, ExitCode.VERIFICATION),
    (PrecisionError, ExitCode.VERIFICATION),
    (BuildError, ExitCode.VERIFICATION),
    (VerificationError, ExitCode.VERIFICATION),
    (BudgetError, ExitCode.BUDGET),
    (MissingPackageError, ExitCode.ENVIRONMENT),
    (EngineError, ExitCode.ENVIRONMENT),
    (HubError, ExitCode.HUB),
    (HeroError, ExitCode.INPUT),
)
"""The first class that an error is of decides."""


def exit_code_of(error: HeroError, command: str = "") -> ExitCode:
    """What a command ends with after an error.

    Args:
        error: that ended it.
        command: its name, such as "diff".
    """
    if command == "diff":
        return ExitCode.USAGE
    return next(code for kind, code in _CODES if isinstance(error, kind))
