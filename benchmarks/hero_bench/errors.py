"""Errors of the benchmark package; they derive from the SDK's.

HeroError
└── BenchmarkError             a measurement that cannot be made
    └── UnequalResultsError    two ways to the same thing that do not give the same thing
"""

from __future__ import annotations

from hero_sdk.errors import HeroError


class BenchmarkError(HeroError):
    """A measurement cannot be made, or would say nothing."""


class UnequalResultsError(BenchmarkError):
    """What is to be compared does not compute the same; its times are not comparable. Nothing was timed."""
