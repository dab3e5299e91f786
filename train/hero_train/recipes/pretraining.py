"""Pre-training (MLM, MFM, FOM, VSM) on videos with subtitles, without annotations.

Run with ``hero-train run CONFIG.yaml``, ``task: pretraining``. The output folder gets

    config.yaml         the configuration, resolved
    log.jsonl           one line per logged step, with the mean loss of each task since the last
    steps/step-N/       states to resume from
    checkpoint/         the model with its heads, its tokenizer and frame encoder: what fine-tuning takes as ``initial``
"""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from torch import nn

from hero_sdk.alignment import build_segments
from hero_sdk.rows import VideoInput
from hero_sdk.tokens import TextTokenizer
from hero_train.config import HeroConfig
from hero_train.data.corpus import read_all_subtitles
from hero_train.data.features import VideoFeatures, find_videos, prepared_videos
from hero_train.data.masking import WordIds
from hero_train.data.pretraining import PretrainingSampler
from hero_train.errors import DataError
from hero_train.model.pretraining import HeroForPretraining
from hero_train.recipes.setup import Frames, loss_of_step, make_model, make_tokenizer, start_from
from hero_train.run_config import PretrainingData, PretrainingRunConfig
from hero_train.tasks.pretraining import PretrainingTask
from hero_train.training import RunResult, Session


def run(config: PretrainingRunConfig, *, resume: bool = False, console: Console | None = None) -> RunResult:
    """Pre-train; arguments and errors as in ``recipes.retrieval``.

    The heads of pre-training begin anew unless the ``initial`` checkpoint has them.
    """
    session = Session(config, resume, console)
    data = config.data
    video_ids = read_ids(data)
    tokenizer_json = make_tokenizer(session, [], video_ids)
    tokenizer, ids = TextTokenizer(tokenizer_json), WordIds.of(tokenizer_json)
    frames = Frames.of(config, video_ids)
    model = make_model(HeroForPretraining, session, tokenizer, frames.width)
    session.prepare_output()
    features = frames.read(session, model.config.clip_interval, video_ids)
    if config.has_random_frames:
        start_from(model, features, video_ids)
    sampler = PretrainingSampler(
        build(features, data.subtitles, tokenizer, model.config),
        ids,
        config.sampling,
        config.rows,
        config.seed,
        config.optimisation.accumulation,
        session.rank,
        session.world,
    )

    def before_step(task: nn.Module, step: int) -> None:
        assert isinstance(task, PretrainingTask)
        task.matching = loss_of_step(config.loss, config.optimisation, step)

    session.train(
        PretrainingTask(model, config.loss),
        model,
        batch=sampler.batch,
        save=lambda judged: session.save_checkpoint(judged, tokenizer_json),
        before_step=before_step,
        name_step=sampler.task,
    )
    session.close()
    return RunResult(config.output / "checkpoint", {})


def read_ids(data: PretrainingData) -> list[str]:
    """The videos to pre-train on.

    Raises:
        DataError: the list cannot be read, or there is no video at all.
    """
    if data.ids is None:
        return list(find_videos(data.videos)) if data.videos is not None else prepared_videos(data.features)
    try:
        ids = json.loads(data.ids.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{data.ids} cannot be read as a list of video ids ({error}).") from error
    if not isinstance(ids, list) or not ids or not all(isinstance(one, str) for one in ids):
        raise DataError(f"{data.ids} holds {str(ids)[:60]}; expected a JSON list of video ids.")
    return ids


def build(
    features: dict[str, VideoFeatures], subtitles: Path | None, tokenizer: TextTokenizer, config: HeroConfig
) -> list[VideoInput]:
    """The videos as pre-training reads them: cut to the clip limit, and without subtitle context."""
    spoken = read_all_subtitles(subtitles, features)
    videos = []
    for video_id, extracted in features.items():
        cut = extracted.features[: config.clip_limit]
        segments = build_segments(spoken[video_id], len(cut), clip_interval=config.clip_interval, tokenizer=tokenizer)
        videos.append(VideoInput(cut, segments))
    return videos
