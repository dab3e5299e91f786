"""Errors of the export package; they derive from the SDK's, so that one ``except`` serves a whole pipeline.

HeroError
├── ExportError
│   ├── BuildError           an engine's builder refuses a graph
│   ├── FusionError          a graph lacks an operator that the architecture implies
│   ├── CalibrationError     a calibration set is damaged, or of another bundle than the one that it is used with
│   ├── PrecisionError       a graph cannot be had in a precision, or is not in the one that was asked for
│   ├── VerificationError    a graph does not compute what the model computes
│   └── BudgetError          a variant loses more of its task's metric than it may
└── InputError
    └── GeometryError        row shapes that the model cannot serve
"""

from __future__ import annotations

from hero_sdk.errors import HeroError, InputError


class ExportError(HeroError):
    """An export cannot be made, or its result is not what it must be. Nothing was written."""


class BuildError(ExportError):
    """The builder of an engine refuses a graph."""


class FusionError(ExportError):
    """An exported graph lacks fused operators, or holds what they should have replaced."""


class CalibrationError(ExportError):
    """A calibration set cannot be read, or was made with another bundle: its ranges would be those of another graph."""


class PrecisionError(ExportError):
    """A graph cannot be had in a precision, or came out in another one than was asked for."""


class VerificationError(ExportError):
    """An exported graph does not compute what the model computes."""


class BudgetError(ExportError):
    """A variant loses more of its task's metric than its budget; its numbers are what its precision lets expect."""


class GeometryError(InputError):
    """The requested row shapes do not go with the model's position tables or limits."""
