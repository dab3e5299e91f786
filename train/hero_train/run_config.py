"""The configuration of a training run: one YAML file, checked once, before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hero_sdk.rows import RowGeometry
from hero_train.data.annotations import Rounding
from hero_train.data.pretraining import PretrainingSampling
from hero_train.data.sampling import SamplingConfig
from hero_train.errors import ConfigError
from hero_train.losses import RetrievalLossConfig
from hero_train.metrics import METRICS

Precision = Literal["auto", "fp32", "bf16", "fp16"]

ROBERTA = "roberta:"
"""In front of a folder or hub id of transformers: ``initial`` is then a RoBERTa and no HERO."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VideoSection(_Section):
    """Where the videos lie. Relative paths count from the configuration file's folder.

    Attributes:
        videos: folder of video files; a video's id is its file name without suffix.
        subtitles: folder of ``<id>.srt`` or ``<id>.vtt``; None trains without text.
        features: folder that keeps extracted features between runs.
    """

    videos: Path
    subtitles: Path | None = None
    features: Path


class DataSection(VideoSection):
    """Where the training set lies: videos, and what people wrote about them.

    Attributes:
        train, validation, test: annotation files in the format of TVR (JSONL).
        rounding: which clips a moment is trained to reach; see ``moment_clips``.
    """

    train: Path
    validation: Path | None = None
    test: Path | None = None
    rounding: Rounding = "outward"


class TokenizerSection(_Section):
    """Which tokenizer to use.

    Attributes:
        source: a folder or hub id that transformers' AutoTokenizer loads, or a ``tokenizer.json``; None trains one on the
            training split's queries and subtitles.
        vocabulary: size of a tokenizer that is trained.
    """

    source: str | None = None
    vocabulary: int = Field(default=2000, ge=300)


class OptimisationSection(_Section):
    """AdamW with linear warm-up and decay; the defaults are the paper's for TVR.

    Attributes:
        steps: of the optimiser, in total.
        warmup: steps until the full learning rate.
        learning_rate: at its highest.
        weight_decay: not applied to biases and norms.
        max_gradient_norm: gradients are scaled down to it.
        accumulation: batches per optimiser step.
        hard_negatives_after: steps after which hard negatives count more (paper: 2000 for TVR); None never.
    """

    steps: int = Field(default=5000, ge=1)
    warmup: int = Field(default=500, ge=0)
    learning_rate: float = Field(default=1e-4, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: float = 1e-6
    max_gradient_norm: float = Field(default=1.0, gt=0)
    accumulation: int = Field(default=1, ge=1)
    hard_negatives_after: int | None = None


class BaseRunConfig(_Section):
    """What every run has.

    Attributes:
        output: folder of the run. Its ``checkpoint/`` is what ``hero-export`` takes.
        data, tokenizer, optimisation: see the sections.
        frame_encoder: folder that ``hero-export frame-encoder`` wrote.
        model: entries of ``HeroConfig``; ``vocab_size`` and ``feature_dim`` follow from the tokenizer and the frame encoder.
        initial: checkpoint folder, hub id or official ``.pt`` to start from, or ``roberta:`` with a folder or hub id; None starts
            from random weights.
        rows: shapes to pack batches into.
        precision: "auto" takes bf16 where the processor multiplies it in hardware and fp32 elsewhere.
        threads: of the CPU; None leaves it to torch.
        checkpoint_every: in optimiser steps; 0 keeps none to resume from.
    """

    output: Path
    data: VideoSection
    frame_encoder: Path
    tokenizer: TokenizerSection = TokenizerSection()
    model: dict[str, Any] = Field(default_factory=dict)
    initial: str | None = None
    optimisation: OptimisationSection = OptimisationSection()
    rows: RowGeometry = RowGeometry()
    precision: Precision = "auto"
    threads: int | None = Field(default=None, ge=1)
    seed: int = 77
    checkpoint_every: int = Field(default=0, ge=0)

    @property
    def has_random_frames(self) -> bool:
        """Whether the weights that read frames begin at random: RoBERTa has words only."""
        return self.initial is None or self.initial.startswith(ROBERTA)

    @model_validator(mode="after")
    def _follows_from_the_data(self) -> BaseRunConfig:
        if derived := {"vocab_size", "feature_dim"} & set(self.model):
            raise ValueError(
                f"model sets {sorted(derived)}, which follow from the tokenizer and the frame encoder; leave them out"
            )
        return self


class RunConfig(BaseRunConfig):
    """A run of fine-tuning for moment retrieval.

    Attributes:
        data, sampling, loss: see the sections.
        evaluate_every: in optimiser steps; 0 does so only at the end.
        best_metric: decides which checkpoint is kept as the best on the validation split.
    """

    data: DataSection
    sampling: SamplingConfig = SamplingConfig()
    loss: RetrievalLossConfig = RetrievalLossConfig()
    evaluate_every: int = Field(default=0, ge=0)
    best_metric: str = "VCMR/R@1/IoU=0.7"

    @model_validator(mode="after")
    def _is_evaluated(self) -> RunConfig:
        if self.best_metric not in METRICS:
            raise ValueError(
                f"best_metric is {self.best_metric!r}, which no evaluation has; expected one of {', '.join(METRICS)}"
            )
        return self


class PretrainingConfig(BaseRunConfig):
    """A run of pre-training, which needs videos with subtitles and no annotations.

    Attributes:
        sampling: see the section.
        loss: of video-subtitle matching.
    """

    sampling: PretrainingSampling = PretrainingSampling()
    loss: RetrievalLossConfig = RetrievalLossConfig()


Config = TypeVar("Config", bound=BaseRunConfig)


def load_config(path: Path, overrides: list[str] | None, kind: type[Config]) -> Config:
    """Read a configuration file.

    Args:
        path: of the YAML file.
        overrides: such as ``optimisation.steps=100``; values are YAML.
        kind: of run.

    Raises:
        ConfigError: no such file, not YAML, an entry that no run has or a value that does not fit; the message names each.
    """
    if not path.is_file():
        raise ConfigError(f"There is no configuration file {path}.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not YAML ({error}).") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds {type(content).__name__}; expected the sections of a run.")
    for override in overrides or []:
        _apply(content, override)
    try:
        config = kind.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'run'}: {item['msg']}" for item in error.errors())
        raise ConfigError(f"{path} does not describe a run: {problems}.") from error
    return _resolve(config, path.parent)


def load_run_config(path: Path, overrides: list[str] | None = None) -> RunConfig:
    """``load_config`` of a run of fine-tuning for moment retrieval."""
    return load_config(path, overrides, RunConfig)


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


def _resolve(config: Config, base: Path) -> Config:
    """Make relative paths count from the configuration file."""
    data = config.data
    data = data.model_copy(
        update={
            name: base / value for name in type(data).model_fields if isinstance(value := getattr(data, name), Path)
        }
    )
    tokenizer = config.tokenizer.model_copy(update={"source": _file_or_id(config.tokenizer.source, base)})
    return config.model_copy(
        update={
            "data": data,
            "tokenizer": tokenizer,
            "output": base / config.output,
            "frame_encoder": base / config.frame_encoder,
            "initial": _file_or_id(config.initial, base),
        }
    )


def _file_or_id(source: str | None, base: Path) -> str | None:
    """A path that counts from the configuration file, where there is one; a hub id stays as it is."""
    if source is not None and source.startswith(ROBERTA):
        return f"{ROBERTA}{_file_or_id(source.removeprefix(ROBERTA), base)}"
    return source if source is None or not (base / source).exists() else str(base / source)


def dump_run_config(config: BaseRunConfig) -> str:
    """The resolved configuration as YAML, for the record of a run."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
