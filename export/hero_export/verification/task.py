"""The task of a bundle: what PyTorch and each variant make of the same split, metric beside metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from hero_export.errors import ExportError
from hero_export.verification.bootstrap import paired_interval
from hero_export.verification.report import MetricResult
from hero_sdk.engines import Engine
from hero_sdk.manifest import CAPTIONING, QUESTION_ANSWERING, RETRIEVAL, STATEMENTS
from hero_sdk.rows import RowGeometry
from hero_train import evaluate_answers
from hero_train.caption_metrics import score_captions
from hero_train.evaluate import encode_corpus, encode_query_tokens, search_corpus
from hero_train.evaluate_captions import references_of, write_captions
from hero_train.evaluation import Metrics
from hero_train.metrics import query_hits, recalls
from hero_train.metrics_answers import Judged
from hero_train.model.hero import HeroEncoders
from hero_train.recipes import captions, questions, retrieval, statements
from hero_train.run_config import BaseRunConfig, FineTuningConfig, Split

Judge = HeroEncoders | Engine
"""What can be asked: the model, or an engine that runs its graphs."""

JUDGED = {
    RETRIEVAL: ("VR/R@1", "SVMR/R@1/IoU=0.7", "VCMR/R@1/IoU=0.7"),
    QUESTION_ANSWERING: ("accuracy",),
    STATEMENTS: ("accuracy",),
    CAPTIONING: ("BLEU-4", "ROUGE-L", "CIDEr"),
}
"""The metrics that a budget holds for, by the task of a bundle."""

SHOWN = {
    RETRIEVAL: tuple(
        f"{task}/R@{rank}{iou}"
        for task, ious in (("VR", ("",)), ("SVMR", ("/IoU=0.5", "/IoU=0.7")), ("VCMR", ("/IoU=0.5", "/IoU=0.7")))
        for rank in (1, 5)
        for iou in ious
    ),
    QUESTION_ANSWERING: ("accuracy",),
    STATEMENTS: ("accuracy",),
    CAPTIONING: ("BLEU-4", "METEOR", "ROUGE-L", "CIDEr"),
}
"""The metrics that a report has."""


@dataclass(frozen=True)
class Scores:
    """What one system reaches on a split.

    Attributes:
        metrics: by name.
        items: (items,) of each metric that is a mean over items, in the same order for every system.
        absent: why a metric is missing.
    """

    metrics: Metrics
    items: Mapping[str, np.ndarray]
    absent: dict[str, str]


class TaskSplit(ABC):
    """A split of a task's data, ready to be asked of the model or of an engine.

    Attributes:
        model: of the checkpoint, in evaluation mode.
        geometry: rows to pack into, those of the bundle.
    """

    task: str
    model: HeroEncoders
    geometry: RowGeometry

    @abstractmethod
    def score(self, judge: Judge) -> Scores:
        """What the model, or an engine, reaches."""

    @abstractmethod
    def calls(self, judge: Judge) -> dict[str, Any]:
        """What a user asks for, by its name: functions without arguments, each for one item of the split."""

    def compare(self, torch: Scores, found: Scores, variant: str, budget: float) -> list[MetricResult]:
        """What a variant loses, metric by metric.

        Args:
            torch: what the model reaches.
            found: what the variant does.
            variant: its name.
            budget: points (hundredths) that may be lost of each metric that is judged.
        """
        results = []
        for metric in SHOWN[self.task]:
            if metric not in torch.metrics or metric not in found.metrics:
                continue
            loss = 100 * (torch.metrics[metric] - found.metrics[metric])
            low = high = None
            items = len(next(iter(torch.items.values())))
            if metric in torch.items:
                items = len(torch.items[metric])
                low, high = (100 * end for end in paired_interval(torch.items[metric], found.items[metric]))
            judged = metric in JUDGED[self.task]
            results.append(
                MetricResult(
                    variant=variant,
                    metric=metric,
                    items=items,
                    torch=torch.metrics[metric],
                    found=found.metrics[metric],
                    loss=loss,
                    low=low,
                    high=high,
                    budget=budget if judged else None,
                    # One ulp of a mean is no loss.
                    passed=not judged or loss <= budget + 1e-9,
                )
            )
        return results


class RetrievalSplit(TaskSplit):
    """Queries and the videos that they are about."""

    task = RETRIEVAL

    def __init__(self, config: Any, checkpoint: Path, split: Split, geometry: RowGeometry, most: int | None) -> None:
        self.geometry = geometry
        self.model, _, self._corpus = retrieval.load(config, checkpoint, split, most, _quiet())

    def score(self, judge: Judge) -> Scores:
        """Recalls, every moment competing."""
        results = search_corpus(judge, self._corpus, self.geometry).results  # type: ignore[arg-type]
        hits = {name: np.array(values, dtype=np.float64) for name, values in query_hits(results).items()}
        return Scores(recalls(results), hits, {})

    def calls(self, judge: Judge) -> dict[str, Any]:
        """One video of middling length, and one query."""
        video = _middle(self._corpus, lambda one: len(one.input.features))
        query = video.queries[0].tokens
        return {
            "encode a video": lambda: encode_corpus(judge, [video], self.geometry),  # type: ignore[arg-type]
            "encode a query": lambda: encode_query_tokens(judge, [query], self.geometry),  # type: ignore[arg-type]
        }


class AnswerSplit(TaskSplit):
    """Questions with their answers, or statements."""

    def __init__(self, config: Any, checkpoint: Path, split: Split, geometry: RowGeometry, most: int | None) -> None:
        self.geometry = geometry
        self.task = QUESTION_ANSWERING if config.task == "questions" else STATEMENTS
        recipe: Any = questions if self.task == QUESTION_ANSWERING else statements
        self.model, _, self._items = recipe.load(config, checkpoint, split, most, _quiet())

    def score(self, judge: Judge) -> Scores:
        """Accuracy."""
        judged = self._judged(judge, self._items)
        if not judged:
            raise ExportError(
                "No question or statement of the split has a known answer; expected at least one. Verify on another --split."
            )
        right = np.array([one.said == one.right for one in judged], dtype=np.float64)
        return Scores({"accuracy": float(right.mean())}, {"accuracy": right}, {})

    def _judged(self, judge: Any, items: Sequence[Any]) -> list[Judged]:
        if self.task == QUESTION_ANSWERING:
            return evaluate_answers.judged_questions(judge, items, self.geometry)
        return evaluate_answers.judged_statements(judge, items, self.geometry)

    def calls(self, judge: Judge) -> dict[str, Any]:
        """One question or statement about a video of middling length."""
        item = _middle(self._items, lambda one: len(one.video.features))
        name = "answer a question" if self.task == QUESTION_ANSWERING else "judge a statement"
        return {name: lambda: self._judged(judge, [item])}


class CaptionSplit(TaskSplit):
    """Moments that people have captioned."""

    task = CAPTIONING

    def __init__(
        self, config: Any, checkpoint: Path, split: Split, geometry: RowGeometry, most: int | None, limit: int
    ) -> None:
        self.geometry, self._limit = geometry, limit
        self.model, self._tokenizer, _, self._videos = captions.load(config, checkpoint, split, most, _quiet())
        self._references = references_of(self._videos)

    def score(self, judge: Judge) -> Scores:
        """The field's scores of greedy search; METEOR, which takes half a minute to start, is left out."""
        written = self._write(judge, self._videos)
        written = {moment: written[moment] for moment in self._references}
        scores = score_captions({"": written}, self._references, meteor=False)[""]
        items = {name: np.array(values) for name, values in scores.moments.items()}
        return Scores(scores.metrics, items, {"METEOR": "it takes half a minute to start; `hero-train eval` has it"})

    def _write(self, judge: Any, videos: Sequence[Any]) -> dict[str, str]:
        return write_captions(judge, videos, self.geometry, self._tokenizer, limit=self._limit)

    def calls(self, judge: Judge) -> dict[str, Any]:
        """One moment of a video of middling length, its video encoded too."""
        video = _middle([one for one in self._videos if one.moments], lambda one: len(one.input.features))
        one_moment = replace(video, moments=video.moments[:1])
        return {"caption a moment": lambda: self._write(judge, [one_moment])}


def _quiet() -> Console:
    """Standard output is for the report."""
    return Console(quiet=True)


def _middle(items: Sequence[Any], size: Any) -> Any:
    return sorted(items, key=size)[len(items) // 2]


TASKS = {"retrieval": RETRIEVAL, "questions": QUESTION_ANSWERING, "statements": STATEMENTS, "captions": CAPTIONING}
"""Tasks of runs, by the task of the bundle that they make."""


def load_split(
    config: BaseRunConfig,
    checkpoint: Path,
    engine: Engine,
    *,
    split: Split | None = None,
    most: int | None = None,
    limit: int = 30,
) -> tuple[TaskSplit, Split]:
    """Read the split of a run's data that a bundle is judged on.

    Args:
        config: of the run.
        checkpoint: its folder.
        engine: of the bundle, whose row shapes both sides are judged with.
        split: None takes the test split, or else the validation split.
        most: annotations at most, evenly over the file; None takes all.
        limit: most tokens of a caption, as the bundle was exported for.

    Returns:
        The split, and which it is.

    Raises:
        ExportError: the run is for another task than the bundle, or has no such split.
        DataError, CheckpointError: data or a checkpoint that cannot be read.
    """
    task = engine.manifest.task
    if not isinstance(config, FineTuningConfig) or TASKS[config.task] != task:
        raise ExportError(
            f"The run is for {config.task}, and the bundle for {task}; expected a run of the bundle's task. Name its YAML file "
            "with --data."
        )
    there = config.data.annotations()
    chosen: Split = split or ("test" if "test" in there else "validation")
    if chosen not in there:
        raise ExportError(
            f"The run has no data.{chosen}; there is {', '.join(there)}. Choose one of them with --split."
        )
    geometry = engine.manifest.geometry
    if task == CAPTIONING:
        return CaptionSplit(config, checkpoint, chosen, geometry, most, limit), chosen
    kind = RetrievalSplit if task == RETRIEVAL else AnswerSplit
    return kind(config, checkpoint, chosen, geometry, most), chosen
