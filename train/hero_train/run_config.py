"""The configuration of a training run: one YAML file, checked once, before anything is loaded.

``task`` says which recipe the file is for; ``CONFIGS`` has the kinds of run by task.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hero_sdk.rows import RowGeometry
from hero_train.caption_metrics import CAPTION_METRICS, METEOR
from hero_train.data.annotations import Rounding
from hero_train.data.answer_sampling import AnswerSampling, QuestionSampling
from hero_train.data.captions import CaptionSamplingConfig
from hero_train.data.pretraining import PretrainingSampling
from hero_train.data.sampling import SamplingConfig
from hero_train.errors import ConfigError
from hero_train.losses import RetrievalLossConfig
from hero_train.metrics import METRICS
from hero_train.metrics_answers import ANSWER_METRICS

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Tracker = Literal["tensorboard", "wandb", "mlflow", "comet_ml", "aim", "clearml", "swanlab", "trackio"]

ROBERTA = "roberta:"
"""In front of a folder or hub id of transformers: ``initial`` is then a RoBERTa and no HERO."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VideoSection(_Section):
    """Where the videos lie. Relative paths count from the configuration file's folder.

    Attributes:
        videos: folder of video files; a video's id is its file name without suffix. None: ``features`` was prepared.
        subtitles: folder of ``<id>.srt`` or ``<id>.vtt``, or a JSONL file of all subtitles; None trains without text.
        features: folder that keeps extracted features between runs; without ``videos``, one that ``hero-train prepare`` wrote.
    """

    videos: Path | None = None
    subtitles: Path | None = None
    features: Path


class PretrainingData(VideoSection):
    """Which videos to pre-train on.

    Attributes:
        ids: JSON file with a list of video ids, so that those of other splits can be left out; None takes all videos.
    """

    ids: Path | None = None


class DataSection(VideoSection):
    """Where the training set lies: videos, and what people wrote about them.

    Attributes:
        train, validation, test: annotation files of the task (JSONL).
        rounding: which clips a moment is trained to reach; see ``moment_clips``.
    """

    train: Path
    validation: Path | None = None
    test: Path | None = None
    rounding: Rounding = "outward"

    def annotations(self) -> dict[Split, Path]:
        """The annotation files that there are, by split."""
        return {split: path for split in SPLITS if (path := getattr(self, split)) is not None}


class TokenizerSection(_Section):
    """Which tokenizer to use.

    Attributes:
        source: a folder or hub id that transformers' AutoTokenizer loads, or a ``tokenizer.json``; None takes that of ``initial``,
            or, without one, trains one on the training split's texts and subtitles.
        vocabulary: size of a tokenizer that is trained.
        texts: more that a trained tokenizer learns its words from, annotations or text files, see ``data.texts``. Pre-training has
            subtitles alone: words of the tasks to come, cut into single letters, are hard to learn.
    """

    source: str | None = None
    vocabulary: int = Field(default=2000, ge=300)
    texts: tuple[Path, ...] = ()


class OptimisationSection(_Section):
    """AdamW with linear warm-up and decay; the defaults are the paper's for TVR.

    Attributes:
        steps: of the optimiser, in total.
        warmup: steps until the full learning rate.
        learning_rate: at its highest.
        head_rate: factor on the learning rate of all weights outside the two encoders (paper: 10 for TVQA and TVC, 8 for VIOLIN).
        weight_decay: not applied to biases and norms.
        max_gradient_norm: gradients are scaled down to it.
        accumulation: batches per optimiser step.
        hard_negatives_after: steps after which hard negatives count more (paper: 2000 for TVR); None never.
    """

    steps: int = Field(default=5000, ge=1)
    warmup: int = Field(default=500, ge=0)
    learning_rate: float = Field(default=1e-4, gt=0)
    head_rate: float = Field(default=1.0, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: float = 1e-6
    max_gradient_norm: float = Field(default=1.0, gt=0)
    accumulation: int = Field(default=1, ge=1)
    hard_negatives_after: int | None = None


class BaseRunConfig(_Section):
    """What every run has.

    Attributes:
        task: which recipe runs it.
        output: folder of the run. Its ``checkpoint/`` is what ``hero-export`` takes.
        data, tokenizer, optimisation: see the sections.
        frame_encoder: folder that ``hero-export frame-encoder`` wrote; None where the features were prepared.
        model: entries of ``HeroConfig``; ``vocab_size`` and ``feature_dim`` follow from the tokenizer and the features.
        initial: checkpoint folder, hub id or official ``.pt`` to start from, or ``roberta:`` with a folder or hub id; None starts
            from random weights.
        rows: shapes to pack batches into.
        precision: "auto" takes bf16 where the processor multiplies it in hardware and fp32 elsewhere.
        threads: of the CPU; None leaves it to torch.
        distributed: "ddp" keeps whole weights in each process, "fsdp" a share of them; one process alone takes no notice.
        activation_checkpointing: computes what the encoder layers did once more for the gradients instead of keeping it.
        compile: the encoder layers by ``torch.compile``.
        checkpoint_every: in optimiser steps; 0 keeps none to resume from.
        trackers: where to log beside ``log.jsonl``: names that Accelerate knows, such as tensorboard, wandb or mlflow.
    """

    task: str
    output: Path
    data: VideoSection
    frame_encoder: Path | None = None
    tokenizer: TokenizerSection = TokenizerSection()
    model: dict[str, Any] = Field(default_factory=dict)
    initial: str | None = None
    optimisation: OptimisationSection = OptimisationSection()
    rows: RowGeometry = RowGeometry()
    precision: Precision = "auto"
    threads: int | None = Field(default=None, ge=1)
    distributed: Literal["ddp", "fsdp"] = "ddp"
    activation_checkpointing: bool = False
    compile: bool = False
    seed: int = 77
    checkpoint_every: int = Field(default=0, ge=0)
    trackers: tuple[Tracker, ...] = ()

    @property
    def has_random_frames(self) -> bool:
        """Whether the weights that read frames begin at random: RoBERTa has words only."""
        return self.initial is None or self.initial.startswith(ROBERTA)

    def dump(self) -> str:
        """The configuration as YAML, for the record of a run."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    @model_validator(mode="after")
    def _follows_from_the_data(self) -> BaseRunConfig:
        if derived := {"vocab_size", "feature_dim"} & set(self.model):
            raise ValueError(
                f"model sets {sorted(derived)}, which follow from the tokenizer and the features; leave them out"
            )
        return self

    @model_validator(mode="after")
    def _has_features(self) -> BaseRunConfig:
        if (self.data.videos is None) != (self.frame_encoder is None):
            given, lacking = (
                ("frame_encoder", "data.videos") if self.frame_encoder else ("data.videos", "frame_encoder")
            )
            raise ValueError(
                f"{given} is set and {lacking} is not; videos are read through a frame encoder, so set both, or neither where "
                "data.features is a prepared folder"
            )
        return self


class FineTuningConfig(BaseRunConfig):
    """A run on annotations of a task.

    Attributes:
        data: see the section.
        evaluate_every: in optimiser steps; 0 does so only at the end.
        best_metric: decides which checkpoint is kept as the best on the validation split.
        patience: evaluations without a better one, after which the run ends early; None never ends it.
    """

    metrics: ClassVar[tuple[str, ...]] = ()

    data: DataSection
    evaluate_every: int = Field(default=0, ge=0)
    best_metric: str
    patience: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _is_evaluated(self) -> FineTuningConfig:
        if self.best_metric not in self.metrics:
            raise ValueError(
                f"best_metric is {self.best_metric!r}, which no evaluation has; expected one of {', '.join(self.metrics)}"
            )
        return self

    @model_validator(mode="after")
    def _can_be_patient(self) -> FineTuningConfig:
        if self.patience and not (self.data.validation and self.evaluate_every):
            raise ValueError("patience counts evaluations; set data.validation and evaluate_every with it")
        return self


class RetrievalRunConfig(FineTuningConfig):
    """A run of fine-tuning for moment retrieval.

    Attributes:
        sampling, loss: see the sections.
    """

    metrics: ClassVar[tuple[str, ...]] = METRICS

    task: Literal["retrieval"]
    sampling: SamplingConfig = SamplingConfig()
    loss: RetrievalLossConfig = RetrievalLossConfig()
    best_metric: str = "VCMR/R@1/IoU=0.7"


class QuestionRunConfig(FineTuningConfig):
    """A run of fine-tuning for multiple-choice questions.

    Attributes:
        sampling: see the section.
        span_weight: of the moment that answers, beside the answer.
    """

    metrics: ClassVar[tuple[str, ...]] = ANSWER_METRICS

    task: Literal["questions"]
    sampling: QuestionSampling = QuestionSampling()
    span_weight: float = Field(default=0.4, ge=0)
    best_metric: str = "accuracy"


class StatementRunConfig(FineTuningConfig):
    """A run of fine-tuning for statements that are true or false.

    Attributes:
        sampling: see the section.
    """

    metrics: ClassVar[tuple[str, ...]] = ANSWER_METRICS

    task: Literal["statements"]
    sampling: AnswerSampling = AnswerSampling()
    best_metric: str = "accuracy"


class CaptionRunConfig(FineTuningConfig):
    """A run of fine-tuning for captions.

    Attributes:
        sampling: see the section.
        smoothing: of the words to predict.
    """

    # METEOR is scored at the end only.
    metrics: ClassVar[tuple[str, ...]] = tuple(name for name in CAPTION_METRICS if name != METEOR)

    task: Literal["captions"]
    sampling: CaptionSamplingConfig = CaptionSamplingConfig()
    smoothing: float = Field(default=0.1, ge=0, lt=1)
    best_metric: str = "CIDEr"


class PretrainingRunConfig(BaseRunConfig):
    """A run of pre-training, which needs videos with subtitles and no annotations.

    Attributes:
        data, sampling: see the sections.
        loss: of video-subtitle matching.
    """

    task: Literal["pretraining"]
    data: PretrainingData
    sampling: PretrainingSampling = PretrainingSampling()
    loss: RetrievalLossConfig = RetrievalLossConfig()


CONFIGS: dict[str, type[BaseRunConfig]] = {
    "pretraining": PretrainingRunConfig,
    "retrieval": RetrievalRunConfig,
    "questions": QuestionRunConfig,
    "statements": StatementRunConfig,
    "captions": CaptionRunConfig,
}
"""Kinds of run by task."""


def load_config(path: Path, overrides: Sequence[str] = ()) -> BaseRunConfig:
    """Read a configuration file.

    Args:
        path: of the YAML file.
        overrides: such as ``optimisation.steps=100``; values are YAML.

    Raises:
        ConfigError: no such file, not YAML, no task or an unknown one, an entry that no such run has or a value that does not
            fit; the message names each.
    """
    if not path.is_file():
        raise ConfigError(f"There is no configuration file {path}.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML ({error}).") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds {type(content).__name__}; expected the sections of a run.")
    for override in overrides:
        _apply(content, override)
    kind = CONFIGS.get(str(content.get("task")))
    if kind is None:
        raise ConfigError(f"{path} has the task {content.get('task')!r}; expected one of {', '.join(CONFIGS)}.")
    try:
        config = kind.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'run'}: {item['msg']}" for item in error.errors())
        raise ConfigError(f"{path} does not describe a run: {problems}.") from error
    return _resolve(config, path.parent)


def _apply(content: dict[str, Any], override: str) -> None:
    name, equals, value = override.partition("=")
    if not equals:
        raise ConfigError(f"The override {override!r} has no '='; expected section.entry=value.")
    *sections, entry = name.split(".")
    node = content
    for section in sections:
        node = node.setdefault(section, {})
        if not isinstance(node, dict):
            raise ConfigError(f"The override {override!r} goes through {section}, which is no section.")
    try:
        node[entry] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"The value of the override {override!r} is not YAML ({error}).") from error


def _resolve(config: BaseRunConfig, base: Path) -> BaseRunConfig:
    """Make relative paths count from the configuration file."""
    data = config.data
    data = data.model_copy(
        update={
            name: base / value for name in type(data).model_fields if isinstance(value := getattr(data, name), Path)
        }
    )
    tokenizer = config.tokenizer.model_copy(
        update={
            "source": _file_or_id(config.tokenizer.source, base),
            "texts": tuple(base / path for path in config.tokenizer.texts),
        }
    )
    return config.model_copy(
        update={
            "data": data,
            "tokenizer": tokenizer,
            "output": base / config.output,
            "frame_encoder": config.frame_encoder and base / config.frame_encoder,
            "initial": _file_or_id(config.initial, base),
        }
    )


def _file_or_id(source: str | None, base: Path) -> str | None:
    """A path that counts from the configuration file, where there is one; a hub id stays as it is."""
    if source is not None and source.startswith(ROBERTA):
        return f"{ROBERTA}{_file_or_id(source.removeprefix(ROBERTA), base)}"
    return source if source is None or not (base / source).exists() else str(base / source)
