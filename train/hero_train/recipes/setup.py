"""What every recipe does before it trains: output folder, tokenizer, model and frame features, each checked first."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hero_sdk.frame_encoder import FrameEncoder
from hero_sdk.tokens import TextTokenizer
from hero_train.config import HeroConfig
from hero_train.data.corpus import read_all_subtitles
from hero_train.data.features import VideoFeatures, extract_features, find_videos, missing_videos
from hero_train.errors import ConfigError, DataError
from hero_train.geometry import check_geometry
from hero_train.model.hero import HeroModel
from hero_train.official import model_from_official, read_official
from hero_train.roberta import model_from_roberta
from hero_train.run_config import ROBERTA, BaseRunConfig, dump_run_config
from hero_train.tokenizer import embedding_rows, load_tokenizer_json, train_tokenizer_json
from hero_train.training_state import latest_state


def prepare_output(config: BaseRunConfig, resume: bool) -> None:
    """Make the output folder and record the configuration in it.

    Raises:
        ConfigError: it holds checkpoints of an earlier run, and this one does not resume.
    """
    if latest_state(config.output / "steps") and not resume:
        raise ConfigError(
            f"{config.output} holds checkpoints of an earlier run. Pass --resume to go on with it, or choose another output folder."
        )
    config.output.mkdir(parents=True, exist_ok=True)
    (config.output / "config.yaml").write_text(dump_run_config(config), encoding="utf-8")


def make_tokenizer(config: BaseRunConfig, texts: Iterable[str], video_ids: Iterable[str]) -> str:
    """The ``tokenizer.json`` that the configuration names, or one that is trained on texts and on the subtitles of videos."""
    if config.tokenizer.source:
        return load_tokenizer_json(config.tokenizer.source)
    spoken = read_all_subtitles(config.data.subtitles, video_ids)
    said = [subtitle.text for subtitles in spoken.values() for subtitle in subtitles]
    return train_tokenizer_json([*texts, *said], config.tokenizer.vocabulary)


def make_model(config: BaseRunConfig, tokenizer: TextTokenizer, encoder: FrameEncoder, console: Console) -> HeroModel:
    """The initial checkpoint, or a model with random or RoBERTa's weights that fits the tokenizer and the frame encoder.

    Raises:
        ConfigError: the model does not fit the tokenizer, the frame encoder or the rows.
        CheckpointError: the initial checkpoint cannot be read.
    """
    width = encoder.spec.feature_dim
    if config.initial is None:
        vocabulary = embedding_rows(tokenizer.vocabulary_size)
        model = HeroModel(
            HeroConfig.from_dict({**config.model, "vocab_size": vocabulary, "feature_dim": width}, "model")
        )
    elif config.initial.startswith(ROBERTA):
        model = model_from_roberta(config.initial.removeprefix(ROBERTA), {**config.model, "feature_dim": width})
        if embedding_rows(tokenizer.vocabulary_size) != model.config.vocab_size:
            raise ConfigError(
                f"{config.initial} has {model.config.vocab_size} rows of words (a multiple of 8) and the tokenizer "
                f"{tokenizer.vocabulary_size} ids. Set tokenizer.source to the same RoBERTa."
            )
    else:
        model = _with_settings(_initial(config.initial, console), config)
        if model.config.feature_dim != width or model.config.vocab_size < tokenizer.vocabulary_size:
            raise ConfigError(
                f"{config.initial} reads features of width {model.config.feature_dim} and {model.config.vocab_size} token ids; "
                f"the frame encoder gives {width} and the tokenizer has {tokenizer.vocabulary_size}. Use those that belong to it."
            )
    check_geometry(config.rows, model.config)
    return model


def _initial(source: str, console: Console) -> HeroModel:
    if not source.endswith(".pt"):
        return HeroModel.from_pretrained(source)
    model, report = model_from_official(read_official(Path(source)))
    console.print(
        f"Imported {len(report.loaded)} official parameters; left out {len(report.left_out)}, new {len(report.fresh)}."
    )
    return model


def _with_settings(model: HeroModel, config: BaseRunConfig) -> HeroModel:
    """The model with the configuration's entries, such as dropout, in place of the checkpoint's."""
    settings = HeroConfig.from_dict({**dataclasses.asdict(model.config), **config.model}, "model")
    changed = HeroModel(settings)
    try:
        changed.load_state_dict(model.state_dict())
    except RuntimeError as error:
        raise ConfigError(
            f"The entries {config.model} of model do not fit the weights of {config.initial} ({error}). Leave out those that are "
            "the checkpoint's to decide."
        ) from error
    return changed


def start_from(model: HeroModel, features: dict[str, VideoFeatures], video_ids: Iterable[str]) -> None:
    """Give a model whose weights for frames are random its start for the training videos' features."""
    sample = np.concatenate([features[video_id].features for video_id in dict.fromkeys(video_ids)])
    model.standardise_features(torch.from_numpy(sample))
    model.moment.initialise_edges()


def read_features(
    config: BaseRunConfig,
    encoder: FrameEncoder,
    clip_interval: float,
    wanted: Sequence[str],
    console: Console,
) -> dict[str, VideoFeatures]:
    """Features of the videos of these ids.

    Raises:
        DataError: a video is missing or cannot be read.
    """
    there = find_videos(config.data.videos)
    if absent := [video_id for video_id in dict.fromkeys(wanted) if video_id not in there]:
        raise DataError(
            f"{len(absent)} videos that the annotations name are not in {config.data.videos}, such as {', '.join(absent[:5])}. "
            "Add the files, or take their lines out of the annotations."
        )
    videos = {video_id: there[video_id] for video_id in dict.fromkeys(wanted)}
    with progress_bar(console) as progress:
        bar = progress.add_task("features", total=len(videos))
        found, dropped = extract_features(
            videos, encoder, clip_interval, config.data.features, lambda _: progress.advance(bar)
        )
    if missing := missing_videos(wanted, found):
        raise DataError(
            f"{len(missing)} videos cannot be read, such as {missing[0]}: {dropped[missing[0]]} "
            "Replace the files, or leave these videos out of the training set."
        )
    return found


def progress_bar(console: Console) -> Progress:
    """The progress bar of this package."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console)
