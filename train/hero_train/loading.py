"""Non-strict loading: what fits goes into a model, and everything else is reported with its reason."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ImportReport:
    """What an import did with each weight of a source and of the model.

    Attributes:
        loaded: names in the source that found their place.
        left_out: names in the source without a place in the model, with the reason.
        adapted: names in the source that were loaded, but not as they are, with what was done.
        fresh: names in the model that the source does not have; they keep their initial values.
    """

    loaded: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    adapted: dict[str, str] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)

    @property
    def fresh_frames(self) -> bool:
        """Whether the projections that read frames keep their initial values, and are to be fitted to the features."""
        return "cross_modal.frames.linear.weight" in self.fresh

    def describe(self) -> str:
        """The report as lines of text: how many weights were loaded, and each group that was not, with the reason."""
        raise NotImplementedError
