"""What every recipe does before it trains: tokenizer, features and model, each checked before the next."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from rich.console import Console

from hero_sdk.frame_encoder import FrameEncoder, load_frame_encoder
from hero_sdk.tokens import TextTokenizer
from hero_train.checkpoint import TOKENIZER_FILE, resolve_folder
from hero_train.data.corpus import read_all_subtitles
from hero_train.data.features import (
    VideoFeatures,
    check_interval,
    extract_features,
    find_videos,
    load_features,
    missing_videos,
)
from hero_train.data.texts import read_texts
from hero_train.errors import CheckpointError, ConfigError, DataError
from hero_train.evaluation import evenly
from hero_train.geometry import check_geometry, check_text_geometry
from hero_train.initial import start_model
from hero_train.losses import RetrievalLossConfig
from hero_train.model.answers import HeroWithText
from hero_train.model.hero import HeroEncoders, HeroModel
from hero_train.progress import progress_bar
from hero_train.run_config import ROBERTA, BaseRunConfig, OptimisationSection, PretrainingData
from hero_train.tokenizer import load_tokenizer_json, train_tokenizer_json
from hero_train.training import Session

Model = TypeVar("Model", bound=HeroEncoders)


TOLD_BY = 2000
"""Texts that tell how well a tokenizer knows the words of all of them."""

FEW_TOKENS = 2.0
"""Tokens per word that a tokenizer needs at most for texts that it was made for; RoBERTa's has 1.3 for English."""


def make_tokenizer(session: Session, texts: Sequence[str], video_ids: Iterable[str]) -> str:
    """The ``tokenizer.json`` of the run.

    It is the one that the configuration names; else that of ``initial``; else it is trained on texts, those of the configuration's
    files and the subtitles of videos. Whoever trains is told when it does not know the words of the texts.

    Args:
        session: of the run.
        texts: that people wrote about the training split's videos.
        video_ids: of the training split.

    Raises:
        ConfigError: the tokenizer cannot be loaded, or ``initial`` has none: another one would give its words other ids.
        CheckpointError: ``initial`` cannot be found.
        DataError: texts or subtitles that cannot be read.
    """
    config = session.config
    settings = config.tokenizer
    if settings.source or config.initial is not None:
        found = load_tokenizer_json(settings.source) if settings.source else _tokenizer_of(str(config.initial))
        _tell_pieces(session, found, texts)
        return found
    spoken = read_all_subtitles(config.data.subtitles, video_ids)
    said = [subtitle.text for subtitles in spoken.values() for subtitle in subtitles]
    others = [text for path in settings.texts for text in read_texts(path)]
    return train_tokenizer_json([*texts, *others, *said], settings.vocabulary)


def _tell_pieces(session: Session, tokenizer_json: str, texts: Sequence[str]) -> None:
    """Tell whoever trains when a tokenizer made for other texts cuts words into pieces, which learn slowly."""
    tokenizer, some = TextTokenizer(tokenizer_json), evenly(texts, TOLD_BY)
    words = sum(len(text.split()) for text in some)
    tokens = sum(len(tokenizer.encode(text)) for text in some)
    if tokens > FEW_TOKENS * words:
        session.console.print(
            f"The tokenizer cuts each word of the training texts into {tokens / words:.1f} tokens, for it was made for others, and "
            "the model will learn slowly. Pre-train with these annotations among tokenizer.texts, or set another tokenizer.source."
        )


def _tokenizer_of(initial: str) -> str:
    """The ``tokenizer.json`` of what a run starts from."""
    source = initial.removeprefix(ROBERTA)
    is_file = Path(source).is_file()
    if source.endswith(".pt") and not is_file:
        raise CheckpointError(f"There is no file {source}.")
    if initial.startswith(ROBERTA) and not is_file:
        return load_tokenizer_json(source)
    if not is_file and (path := resolve_folder(source) / TOKENIZER_FILE).is_file():
        return path.read_text(encoding="utf-8")
    raise ConfigError(
        f"{initial} has no tokenizer, and without its own it would read other words than it has learnt. Set tokenizer.source: "
        "a tokenizer.json, a folder or a hub id, such as roberta-base for a checkpoint of the authors."
    )


def tell_cuts(session: Session, texts: str, lengths: Sequence[int]) -> None:
    """Tell whoever trains how many texts are longer than a row reads, for what is cut is never learnt.

    Args:
        session: of the run.
        texts: what they are, in the plural.
        lengths: of all of the training split, in tokens.
    """
    limit = session.config.rows.query_tokens
    cut = sum(length > limit for length in lengths)
    if cut:
        session.console.print(
            f"{cut / len(lengths):.0%} of the {texts} have more than rows.query_tokens, {limit}, and lose their end; the longest "
            f"has {max(lengths)} tokens. Raise it, or train a tokenizer with a larger tokenizer.vocabulary."
        )


@dataclasses.dataclass(frozen=True)
class Frames:
    """Where the frame features of a run come from.

    Attributes:
        config: of the run.
        encoder: reads the videos; None where the features were prepared.
        width: of a feature.
    """

    config: BaseRunConfig
    encoder: FrameEncoder | None
    width: int

    @classmethod
    def of(cls, config: BaseRunConfig, video_ids: Sequence[str]) -> Frames:
        """The frame encoder of a run, or, without one, the width of what was prepared.

        Raises:
            DataError: no features were prepared for these videos.
        """
        if config.frame_encoder is not None:
            encoder = load_frame_encoder(config.frame_encoder, threads=1)
            return cls(config, encoder, encoder.spec.feature_dim)
        reasons: dict[str, str] = {}
        for video_id in dict.fromkeys(video_ids):
            found, dropped = load_features(config.data.features, [video_id])
            if found:
                return cls(config, None, found[video_id].features.shape[1])
            reasons |= dropped
        first, reason = next(iter(reasons.items()))
        raise DataError(
            f"{config.data.features} has features of none of the {len(reasons)} videos, such as {first}: {reason} "
            "Run hero-train prepare first."
        )

    def read(self, session: Session, clip_interval: float, wanted: Sequence[str]) -> dict[str, VideoFeatures]:
        """Features of the videos of these ids; the first process fills the cache, the others find it.

        Raises:
            DataError: a video is missing or cannot be read.
        """
        ids = list(dict.fromkeys(wanted))
        with session.accelerator.main_process_first():
            found, dropped = self._read(ids, clip_interval, session.console)
        if missing := missing_videos(ids, found):
            raise DataError(
                f"{len(missing)} videos cannot be read, such as {missing[0]}: {dropped[missing[0]]} "
                "Replace the files, or leave these videos out of the training set."
            )
        return found

    def _read(
        self, ids: Sequence[str], clip_interval: float, console: Console
    ) -> tuple[dict[str, VideoFeatures], dict[str, str]]:
        data = self.config.data
        if self.encoder is None:
            check_interval(data.features, clip_interval)
            return load_features(data.features, ids)
        assert data.videos is not None
        there = find_videos(data.videos)
        if absent := [video_id for video_id in ids if video_id not in there]:
            named = f"{data.ids} names" if isinstance(data, PretrainingData) else "the annotations name"
            raise DataError(
                f"{len(absent)} videos that {named} are not in {data.videos}, such as {', '.join(absent[:5])}. "
                "Add the files, or leave these videos out."
            )
        with progress_bar(console) as progress:
            bar = progress.add_task("features", total=len(ids))
            videos = {video_id: there[video_id] for video_id in ids}
            return extract_features(videos, self.encoder, clip_interval, data.features, lambda _: progress.advance(bar))


def make_model(kind: type[Model], session: Session, tokenizer: TextTokenizer, width: int) -> Model:
    """A model of a task: with the initial checkpoint's weights where it has them, RoBERTa's or random ones elsewhere.

    Args:
        kind: of model.
        session: the run.
        tokenizer: of the run.
        width: of the frame features.

    Raises:
        ConfigError: the model does not fit the tokenizer, the features or the rows.
        CheckpointError: the initial checkpoint cannot be read.
    """
    config = session.config
    torch.manual_seed(config.seed)
    model, report = start_model(
        kind, config.initial, config.model, feature_dim=width, vocabulary=tokenizer.vocabulary_size
    )
    if config.initial is not None:
        session.console.print(f"{config.initial}: {report.describe()}", markup=False, highlight=False)
    check = check_text_geometry if issubclass(kind, HeroWithText) else check_geometry
    check(config.rows, model.config)
    return model


def start_from(model: HeroEncoders, features: dict[str, VideoFeatures], video_ids: Iterable[str]) -> None:
    """Give a model whose weights for frames are random its start for the training videos' features."""
    sample = np.concatenate([features[video_id].features for video_id in dict.fromkeys(video_ids)])
    model.standardise_features(torch.from_numpy(sample))
    if isinstance(model, HeroModel):
        model.moment.initialise_edges()


def load_checkpoint(kind: type[Model], session: Session, folder: Path) -> tuple[Model, TextTokenizer]:
    """A trained model and its tokenizer, to be judged.

    Raises:
        CheckpointError: no such checkpoint, of another task, or one without its tokenizer.
    """
    model = kind.from_pretrained(folder).to(session.accelerator.device)
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        raise CheckpointError(f"{folder} has no {TOKENIZER_FILE}; expected a checkpoint that hero-train run wrote.")
    return model, TextTokenizer(path.read_text(encoding="utf-8"))


def loss_of_step(loss: RetrievalLossConfig, optimisation: OptimisationSection, step: int) -> RetrievalLossConfig:
    """The retrieval loss of a step: hard negatives count more from their step on."""
    after = optimisation.hard_negatives_after
    hard = loss.hard_negatives or (after is not None and step >= after)
    return dataclasses.replace(loss, hard_negatives=hard)


def load_judged(
    kind: type[Model], config: BaseRunConfig, checkpoint: Path, video_ids: Sequence[str], console: Console | None
) -> tuple[Model, TextTokenizer, dict[str, VideoFeatures]]:
    """A checkpoint that is to be judged, its tokenizer, and the features of the videos that it is judged on.

    Args:
        kind: class of the model.
        config: of the run.
        checkpoint: its folder.
        video_ids: of the annotations.
        console: where to show progress.

    Raises:
        CheckpointError: no such checkpoint, of another task, or one without its tokenizer.
        DataError: videos that cannot be read.
    """
    session = Session(config, console=console)
    model, tokenizer = load_checkpoint(kind, session, checkpoint)
    return model, tokenizer, Frames.of(config, video_ids).read(session, model.config.clip_interval, video_ids)
