"""Evaluation of captioning: what a model writes about the moments of a split, and how near that is to what people wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from hero_sdk.engines import Engine
from hero_sdk.rows import RowGeometry, pack_videos
from hero_sdk.sentence_search import BeamConfig
from hero_sdk.tokens import TextTokenizer
from hero_train import judged
from hero_train.caption_metrics import score_captions
from hero_train.data.captions import CaptionVideo
from hero_train.errors import DataError
from hero_train.evaluation import ALL, Evaluation
from hero_train.model.captioning import HeroForCaptioning

BATCH = 8

BEAM = "beam"
"""The group of the captions that a beam search wrote."""


def write_captions(
    model: HeroForCaptioning | Engine,
    videos: Sequence[CaptionVideo],
    geometry: RowGeometry,
    tokenizer: TextTokenizer,
    *,
    beam: BeamConfig | None = None,
    limit: int | None = None,
) -> dict[str, str]:
    """A caption for each moment of some videos, by the moment's id.

    Args:
        model: put into evaluation mode for the time of the call; or an engine that runs its graphs.
        videos: with their moments.
        geometry: rows to pack into; of an engine its bundle's.
        tokenizer: of the model.
        beam, limit: see ``hero_train.judged.write_captions``.
    """
    written: dict[str, str] = {}
    with_moments = [video for video in videos if video.moments]
    for start in range(0, len(with_moments), BATCH):
        part = with_moments[start : start + BATCH]
        places = [(number, moment) for number, video in enumerate(part) for moment in video.moments]
        rows = np.array([(number, moment.first, moment.stop) for number, moment in places], dtype=np.int32)
        packed = pack_videos([video.input for video in part], geometry)
        with judged.evaluating(model):
            captions = judged.write_captions(model, packed, rows, limit=limit, beam=beam)
        for (_, moment), tokens in zip(places, captions, strict=True):
            written[moment.annotation.moment_id] = tokenizer.decode(tokens)
    return written


def evaluate_captions(
    model: HeroForCaptioning | Engine,
    videos: Sequence[CaptionVideo],
    geometry: RowGeometry,
    tokenizer: TextTokenizer,
    training_captions: Sequence[str],
    *,
    beam: BeamConfig | None = None,
    limit: int | None = None,
    meteor: bool = True,
) -> Evaluation:
    """Score the captions that a model writes about the moments of a split that people have captioned.

    The group "all" has the scores of greedy search, which the authors report, and "beam" those of a beam search. The baselines have
    not seen the videos: ``frequent`` says of every moment the caption that training has most often, ``random`` any of training.

    Args:
        model, videos, geometry, tokenizer, limit: as for ``write_captions``.
        training_captions: what the baselines say; none leaves them out.
        beam: search with a beam too.
        meteor: whether to ask for METEOR, which takes half a minute to start; see ``score_captions``.

    Raises:
        DataError: no moment with a caption.
        MissingPackageError: the scorers are not installed.
    """
    references = references_of(videos)
    systems = {ALL: write_captions(model, videos, geometry, tokenizer, limit=limit)}
    if beam is not None:
        systems[BEAM] = write_captions(model, videos, geometry, tokenizer, beam=beam, limit=limit)
    systems = {name: {moment: written[moment] for moment in references} for name, written in systems.items()}
    baselines = _baselines(list(references), training_captions)
    scores = score_captions({**systems, **baselines}, references, meteor=meteor)
    return Evaluation(
        metrics={name: scores[name].metrics for name in systems},
        baselines={name: scores[name].metrics for name in baselines},
        counts={"moments": len(references), "captions": sum(map(len, references.values())), "videos": len(videos)},
        absent=scores[ALL].absent,
    )


def references_of(videos: Sequence[CaptionVideo]) -> dict[str, tuple[str, ...]]:
    """What people wrote about each moment that they captioned, by the moment's id.

    Raises:
        DataError: no moment with a caption.
    """
    references = {
        moment.annotation.moment_id: moment.annotation.captions
        for video in videos
        for moment in video.moments
        if moment.annotation.captions
    }
    if not references:
        raise DataError("The split has no moment with a caption to evaluate; check its annotation file.")
    return references


def _baselines(moments: Sequence[str], captions: Sequence[str]) -> dict[str, dict[str, str]]:
    if not captions:
        return {}
    ((frequent, _),) = Counter(captions).most_common(1)
    drawn = np.random.default_rng(0).integers(len(captions), size=len(moments))
    return {
        "frequent": dict.fromkeys(moments, frequent),
        "random": {moment: captions[place] for moment, place in zip(moments, drawn, strict=True)},
    }
