"""The architecture of a HERO, as it is stored beside its weights in ``config.json``."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hero_train.errors import ConfigError

if TYPE_CHECKING:
    from typing import Self

CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class HeroConfig:
    """Sizes and data conventions of one HERO. The defaults are the paper's (121 M parameters with all heads).

    Attributes:
        vocab_size: rows of the word embedding; RoBERTa's 50,265 padded to a multiple of 8.
        feature_dim: width of a frame feature; the paper joins ResNet-152 (2048) and SlowFast (2304).
        hidden_size, num_heads, intermediate_size: of every transformer layer.
        cross_modal_layers, temporal_layers: depth of the two stages.
        text_positions, temporal_positions, query_positions: rows of the position tables.
        frame_positions: rows of the table of frame positions within a subtitle.
        hidden_dropout, attention_dropout: probabilities in training.
        initializer_range: standard deviation of the encoders' initial weights.
        conv_kernel: width of the moment head's convolutions, in clips.
        clip_interval: seconds per clip.
        clip_limit: most clips of a video that the model reads at once.
        subtitle_context: previous subtitles repeated in front of each one.
        min_span_clips, max_span_clips: the shortest and longest moment that search returns, in clips, both inclusive.
        nms_iou: search drops moments that overlap a better one of their video by a temporal IoU above it; 1.0 keeps all.
    """

    task: ClassVar[str | None] = None
    """What ``config.json`` calls the task of the model; None is retrieval, which has no such entry."""

    vocab_size: int = 50272
    feature_dim: int = 4352
    hidden_size: int = 768
    num_heads: int = 12
    intermediate_size: int = 3072
    cross_modal_layers: int = 6
    temporal_layers: int = 3
    text_positions: int = 514
    temporal_positions: int = 514
    query_positions: int = 514
    frame_positions: int = 100
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    initializer_range: float = 0.02
    conv_kernel: int = 5
    clip_interval: float = 1.5
    clip_limit: int = 100
    subtitle_context: int = 0
    min_span_clips: int = 3
    max_span_clips: int = 16
    nms_iou: float = 0.5

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check(field.name, str(field.type), getattr(self, field.name))
        if self.hidden_size % self.num_heads:
            raise ConfigError(
                f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}; "
                "every attention head needs the same width."
            )
        if self.conv_kernel % 2 == 0:
            raise ConfigError(
                f"conv_kernel is {self.conv_kernel}; it must be odd, so that a span stays centred on its clip."
            )
        if self.clip_limit > self.temporal_positions:
            raise ConfigError(
                f"clip_limit {self.clip_limit} exceeds temporal_positions {self.temporal_positions}; every clip needs a position."
            )
        if self.min_span_clips > self.max_span_clips:
            raise ConfigError(
                f"min_span_clips {self.min_span_clips} exceeds max_span_clips {self.max_span_clips}; no moment is that long."
            )

    @classmethod
    def of(cls, config: HeroConfig) -> Self:
        """The same sizes, for a model of this class's task; those that ``config`` does not have get their default."""
        there = dataclasses.asdict(config)
        return cls(**{field.name: there[field.name] for field in dataclasses.fields(cls) if field.name in there})

    @classmethod
    def from_dict(cls, values: Any, origin: str = CONFIG_FILE) -> Self:
        """Make a configuration from parsed JSON or YAML.

        Raises:
            ConfigError: no object, of another task, an entry that no HERO has, or a value that does not fit.
        """
        if not isinstance(values, dict):
            raise ConfigError(
                f"{origin} holds a {type(values).__name__}; expected an object with the entries of a HERO."
            )
        values = dict(values)
        if (task := values.pop("task", None)) != cls.task:
            raise ConfigError(
                f"{origin} is of a model for {task or 'retrieval'}; expected one for {cls.task or 'retrieval'}. "
                "Load it with the model class of its task."
            )
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ConfigError(f"{origin} has unknown entries {unknown}; a HERO has {sorted(known)}.")
        return cls(**values)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read ``config.json`` of a checkpoint folder.

        Raises:
            ConfigError: no such file, not JSON, or as ``from_dict``.
        """
        path = folder / CONFIG_FILE
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ConfigError(
                f"{folder} has no {CONFIG_FILE}; expected a checkpoint that save_pretrained wrote."
            ) from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not JSON ({error}).") from error
        return cls.from_dict(values, str(path))

    def save(self, folder: Path) -> None:
        """Write ``config.json`` into a folder."""
        entries = ({} if self.task is None else {"task": self.task}) | dataclasses.asdict(self)
        (folder / CONFIG_FILE).write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class CaptioningConfig(HeroConfig):
    """Sizes of a HERO that writes captions. The defaults are the authors' for TVC (137 M parameters).

    Attributes:
        decoder_layers: depth of the decoder; its layers are as wide as the encoders'.
        decoder_positions: rows of its position table, and so the most tokens of a caption.
    """

    task: ClassVar[str | None] = "captioning"

    decoder_layers: int = 2
    decoder_positions: int = 1024


def _check(name: str, kind: str, value: object) -> None:
    """Refuse a value of another type than its field, or out of the field's range."""
    numeric = isinstance(value, int if kind == "int" else int | float) and not isinstance(value, bool)
    if not numeric:
        raise ConfigError(f"{name} is {value!r}; expected a number of type {kind}.")
    assert isinstance(value, int | float)
    if name.endswith("_dropout"):
        fits, expected = 0 <= value < 1, "at least 0 and less than 1"
    elif name == "nms_iou":
        fits, expected = 0 < value <= 1, "above 0 and at most 1"
    elif name == "subtitle_context":
        fits, expected = value >= 0, "0 or more"
    else:
        fits, expected = 0 < value < math.inf, "positive"
    if not fits:
        raise ConfigError(f"{name} is {value}; it must be {expected}.")
