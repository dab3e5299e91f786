"""What was kept, mended and dropped, and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hero_train.data.lmdb_store import Damage
from hero_train.prepare.records import Unusable


@dataclass(frozen=True)
class Dropped:
    """Something that is not in the set.

    Attributes:
        file: that it was read from.
        line: of its row; None where it has none.
        id: of the annotation or the video; empty where it cannot be read.
        kind: the few words under which it is counted.
        reason: what is wrong with it.
    """

    file: str
    line: int | None
    id: str
    kind: str
    reason: str

    def as_line(self) -> dict[str, Any]:
        """The object that is written, one per line."""
        return {"file": self.file, "line": self.line, "id": self.id, "reason": self.reason}


@dataclass
class Report:
    """What became of everything that was read.

    Attributes:
        dropped: in the order in which it was.
        mended: how often something was put right, by what it was.
        annotations, features, subtitles: what of each is damaged, and how much was read.
    """

    dropped: list[Dropped] = field(default_factory=list)
    mended: Counter[str] = field(default_factory=Counter)
    annotations: Damage = field(default_factory=Damage)
    features: Damage = field(default_factory=Damage)
    subtitles: Damage = field(default_factory=Damage)

    def drop(
        self, damage: Damage | None, source: Path, problem: Unusable, line: int | None = None, name: str | int = ""
    ) -> None:
        """Note that something is not in the set.

        Args:
            damage: what it counts against; None for something that is not damaged.
            source: where it was read from.
            problem: what is wrong with it.
            line: of its row.
            name: its id.
        """
        if damage is not None:
            damage.reasons[f"{source}:{line if line is not None else name}"] = str(problem)
        self.dropped.append(Dropped(str(source), line, str(name), problem.kind, str(problem)))

    def counts(self) -> dict[str, int]:
        """How many were dropped, by kind."""
        return dict(Counter(one.kind for one in self.dropped))
