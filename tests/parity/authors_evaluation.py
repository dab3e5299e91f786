"""The authors' evaluation of a whole corpus in terms of this project, with its defects in functions that are named after them.

Numbers of quirks are those of the oracle's README.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hero_sdk.manifest import MomentSpec
from hero_sdk.rows import VideoInput, pack_videos
from hero_sdk.spans import Spans, best_spans, non_maximum_suppression, video_similarity
from hero_train.data.corpus import CorpusVideo
from hero_train.evaluate import encode_corpus, encode_query_tokens
from hero_train.model.hero import HeroModel
from hero_train.model.layers import run_layers
from tests.parity.authors import PACKED

Ranked = list[list[float]]
"""Predictions as the authors write them: number of the video, start, end, score."""


@dataclass
class Evaluation:
    """What the authors' evaluation computed, and the same corpus and model as this project has them."""

    dump: dict[str, Any]
    model: HeroModel
    corpus: list[CorpusVideo]

    def __post_init__(self) -> None:
        self.settings: dict[str, Any] = self.dump["model_opts"]
        self.interval: float = self.settings["vfeat_interval"]
        self.numbers: dict[str, int] = self.dump["before_top_n"]["video2idx"]
        self.lengths = [len(video.input.features) for video in self.corpus]
        self.mask: Tensor = self.dump["corpus_mask"].bool()
        places = {video.video_id: place for place, video in enumerate(self.corpus)}
        self.own = [places[name] for name in self.dump["query_batch"]["vids"]]
        queries = {
            annotation.query_id: (query, annotation)
            for video in self.corpus
            for query, annotation in zip(video.queries, video.annotations, strict=True)
        }
        self.queries = [queries[number][0] for number in self.dump["query_batch"]["qids"]]
        self.annotations = [queries[number][1] for number in self.dump["query_batch"]["qids"]]
        self.clips = encode_corpus(self.model, self.corpus, PACKED)
        self.vectors, self.span_vectors = encode_query_tokens(
            self.model, [query.tokens for query in self.queries], PACKED
        )
        # Theirs counts the clips from the first to the last, the last not included: 2 there are 3 here.
        self.moment: MomentSpec = replace(
            self.model.moment_spec(),
            min_clips=self.settings["min_pred_l"] + 1,
            max_clips=self.settings["max_pred_l"],
            nms_iou=self.settings["nms_thd"],
            similarity_scale=self.settings["q2c_alpha"],
        )
        self.similarity = video_similarity(self.vectors, np.concatenate(self.clips), self.lengths)

    def authors_logits(self, query: int) -> tuple[np.ndarray, np.ndarray]:
        """Their start and end logits of a query, quirk 1 included, in the form of ``span_logits``."""
        start, end = (
            self.dump[name][query].masked_fill(~self.mask, -torch.inf).numpy() for name in ("st_logits", "ed_logits")
        )
        return start, end

    def best_videos(self, query: int) -> np.ndarray:
        """Places of the videos that they search, best first."""
        return np.argsort(-self.similarity[query], kind="stable")[: self.settings["max_vcmr_video"]]

    def corpus_spans(self, query: int) -> Spans:
        """Every span of the best videos; ``video`` is the rank of the video."""
        chosen = self.best_videos(query)
        start, end = self.authors_logits(query)
        weights = np.exp(self.settings["q2c_alpha"] * self.similarity[query, chosen].astype(np.float64))
        return best_spans(start[chosen], end[chosen], self.moment, weights=weights)

    def own_spans(self, query: int) -> Spans:
        """Every span of the annotated video."""
        start, end = self.authors_logits(query)
        return best_spans(start[self.own[query]], end[self.own[query]], self.moment)

    def spans(self, task: str, query: int) -> Spans:
        return self.corpus_spans(query) if task == "VCMR" else self.own_spans(query)

    def ranked(self, task: str, query: int, spans: Spans) -> Ranked:
        """Spans of one of the two methods above as the authors write them; no video's end cuts them."""
        chosen = self.best_videos(query) if task == "VCMR" else np.array([self.own[query]])
        numbers = np.array([self.numbers[self.corpus[place].video_id] for place in chosen])[spans.video]
        return np.column_stack([numbers, spans.times(self.interval), spans.score]).tolist()


def authors_padded_clips(model: HeroModel, videos: Sequence[VideoInput]) -> Tensor:
    """Clip embeddings of one batch as the authors' temporal encoder gives them, padded clips included: (V, L, hidden)."""
    with torch.inference_mode():
        packed = pack_videos(videos, PACKED, keep_frameless=True)
        hidden = model.cross_modal(**model.tensors(packed.cross_modal.arrays()))
        matched, mask = model.unpack(packed, model.regroup(packed, hidden))
        features = torch.nn.utils.rnn.pad_sequence(
            [torch.from_numpy(video.features) for video in videos], batch_first=True
        )
        positions = torch.arange(mask.shape[1]).expand(mask.shape)
        embedded = model.temporal.embed(features, matched, positions)
        return run_layers(model.temporal.layers, embedded, mask[:, None, None, :])


def authors_padded_corpus(evaluation: Evaluation) -> Tensor:
    """Their table of the corpus: batches of a few videos, each batch padded to its longest, the table to the longest of all."""
    size = evaluation.dump["opts"]["vcmr_eval_video_batch_size"]
    inputs = [video.input for video in evaluation.corpus]
    parts = [
        authors_padded_clips(evaluation.model, inputs[start : start + size]) for start in range(0, len(inputs), size)
    ]
    longest = max(evaluation.lengths)
    return torch.cat([torch.nn.functional.pad(part, (0, 0, 0, longest - part.shape[1])) for part in parts])


def authors_names(group: str, name: str) -> tuple[str, str]:
    """Table and entry of a metric of ours in their results: VCMR/R@1/IoU=0.7 of type v is v-0.7-r1 of VCMR_by_type."""
    task, rank, *iou = name.split("/")
    entry = "-".join([*(part.removeprefix("IoU=") for part in iou), "r" + rank.removeprefix("R@")])
    return (task, entry) if group == "all" else (f"{task}_by_type", f"{group}-{entry}")


def suppressed_with_quirk_4_among_100(evaluation: Evaluation, spans: Spans) -> Spans:
    """Suppression as theirs: the list was cut in place to what is handed in before it was to be suppressed."""
    limit = min(evaluation.settings["max_before_nms"], evaluation.settings["max_after_nms"])
    return non_maximum_suppression(spans.take(slice(limit)), evaluation.settings["nms_thd"])


def read_back_with_quirk_2(spans: Spans, videos: int, written: int, read: int) -> Spans:
    """The places of spans in a flat table of ``written`` clips per video, read as if it had ``read``."""
    flat = np.ravel_multi_index((spans.video, spans.first, spans.last), (videos, written, written))
    return Spans(*np.unravel_index(flat, (videos, read, read)), spans.score)
