"""The authors' evaluation of a whole corpus, reproduced with this project's encoders, span search and metrics.

Theirs has defects that change results. Each is shown beside what this project does: the convolution that reads padding (1), times
that are read with another video length than they were written with (2), suppression among 100 candidates where 200 were asked for
(4), and spans of score zero among the predictions (5).

The tolerances are those of the oracle's README; scores are compared relative to their size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from hero_sdk.spans import non_maximum_suppression, search_spans, span_logits, video_similarity
from hero_train.config import HeroConfig
from hero_train.data.lmdb_corpus import read_lmdb_corpus
from hero_train.evaluate import encode_corpus, encode_query_tokens, evaluate_retrieval
from hero_train.metrics import NOTHING, QueryResult, Ranking, recalls_by_type
from tests.parity.authors import PACKED, authors_span_logits
from tests.parity.authors_evaluation import (
    Evaluation,
    Ranked,
    authors_names,
    authors_padded_corpus,
    read_back_with_quirk_2,
    suppressed_with_quirk_4_among_100,
)
from tests.parity.oracle import assert_close, oracle_folder, read_dump, read_model

ACTIVATION, LOGIT = 1e-5, 1e-4
SCORE = 1e-3
"""Relative: a logit that is off by 1e-4 moves the probability, a product of three exponentials, by a few times that."""

DB = oracle_folder() / "db"


@pytest.fixture(scope="module")
def vcmr() -> Evaluation:
    dump = read_dump("vcmr_full_eval")
    model, meta = read_model("vcmr")
    corpus, _ = read_lmdb_corpus(
        DB / "txt" / "tvr_val.db",
        DB / "txt" / "syn_subtitles.db",
        DB / "video" / "syn" / "resnet_slowfast_1.5_compressed",
        HeroConfig(clip_limit=meta["max_clip_len"], clip_interval=dump["model_opts"]["vfeat_interval"]),
    )
    return Evaluation(dump, model, sorted(corpus, key=lambda video: video.video_id))


def test_the_corpus_and_its_order_are_theirs(vcmr: Evaluation) -> None:
    assert [video.video_id for video in vcmr.corpus] == vcmr.dump["corpus_ids"]
    assert vcmr.mask.sum(dim=1).tolist() == vcmr.lengths


def test_corpus_embeddings(vcmr: Evaluation) -> None:
    expected = vcmr.dump["corpus_frame_embeddings"]
    for place, clips in enumerate(vcmr.clips):
        assert_close(torch.from_numpy(clips), expected[place][vcmr.mask[place]], ACTIVATION)


def test_corpus_embeddings_as_batched_there(vcmr: Evaluation) -> None:
    expected = vcmr.dump["corpus_frame_embeddings"]
    assert expected[~vcmr.mask].abs().max() > ACTIVATION, "no video of this oracle is padded"
    assert_close(authors_padded_corpus(vcmr), expected, ACTIVATION)


def test_similarities(vcmr: Evaluation) -> None:
    assert_close(torch.from_numpy(vcmr.similarity), vcmr.dump["q2video_scores"], LOGIT)


def test_span_logits_with_quirk_1_the_convolution_reads_padding(vcmr: Evaluation) -> None:
    span_vectors = torch.from_numpy(vcmr.span_vectors)
    with torch.inference_mode():
        start, end = authors_span_logits(vcmr.model, span_vectors, authors_padded_corpus(vcmr), vcmr.mask)
    assert_close(start, vcmr.dump["st_logits"], LOGIT)
    assert_close(end, vcmr.dump["ed_logits"], LOGIT)


def test_span_logits_without_quirk_1_differ_in_the_last_two_clips_of_padded_videos_only(vcmr: Evaluation) -> None:
    found = span_logits(vcmr.span_vectors, np.concatenate(vcmr.clips), vcmr.moment, vcmr.lengths)
    reach = vcmr.model.config.conv_kernel // 2
    for ours, name in zip(found, ("st_logits", "ed_logits"), strict=True):
        theirs, changed = vcmr.dump[name].numpy(), 0.0
        for place, length in enumerate(vcmr.lengths):
            np.testing.assert_allclose(
                ours[:, place, : length - reach], theirs[:, place, : length - reach], rtol=0, atol=LOGIT
            )
            difference = np.abs(
                ours[:, place, length - reach : length] - theirs[:, place, length - reach : length]
            ).max()
            # A video that is the longest of its batch is not padded there.
            if length == max(vcmr.lengths):
                assert difference <= LOGIT
            changed = max(changed, float(difference))
        assert changed > LOGIT, "this oracle does not show the quirk"


def scored(predictions: Ranked) -> Ranked:
    """The predictions without quirk 5: theirs fill up with spans that they had ruled out, at score zero."""
    return [prediction for prediction in predictions if prediction[3] > 0]


def assert_same_ranking(found: Ranked, expected: Ranked) -> None:
    """The same predictions with the same scores, best first; only those that tie may stand in another order."""
    assert len(found) == len(expected)
    ours, theirs = np.array(found), np.array(expected)
    np.testing.assert_allclose(ours[:, 3], theirs[:, 3], rtol=SCORE)
    place_of = {tuple(prediction[:3]): place for place, prediction in enumerate(found)}
    for place, prediction in enumerate(expected):
        other = place_of.get(tuple(prediction[:3]), len(found) - 1)
        np.testing.assert_allclose(ours[other, 3], prediction[3], rtol=SCORE, err_msg=f"{prediction} at {place}")


def queries_of(evaluation: Evaluation, stage: dict[str, Any], task: str) -> list[tuple[int, Ranked]]:
    """Number of each query and what the authors predicted for it."""
    assert [entry["desc_id"] for entry in stage[task]] == [
        int(number) for number in evaluation.dump["query_batch"]["qids"]
    ]
    return [(query, entry["predictions"]) for query, entry in enumerate(stage[task])]


@pytest.mark.parametrize("task", ["VCMR", "SVMR"])
def test_predictions_before_top_n(vcmr: Evaluation, task: str) -> None:
    limit = vcmr.settings["max_before_nms"]
    for query, expected in queries_of(vcmr, vcmr.dump["before_top_n"], task):
        assert len(expected) == limit
        found = vcmr.spans(task, query).take(slice(limit))
        assert_same_ranking(vcmr.ranked(task, query, found), scored(expected))


@pytest.mark.parametrize("task", ["VCMR", "SVMR"])
def test_predictions_after_the_top_100(vcmr: Evaluation, task: str) -> None:
    limit = vcmr.settings["max_after_nms"]
    for query, expected in queries_of(vcmr, vcmr.dump["eval_calls"][0]["sub"], task):
        assert len(expected) == limit
        assert_same_ranking(vcmr.ranked(task, query, vcmr.spans(task, query).take(slice(limit))), scored(expected))


@pytest.mark.parametrize("task", ["VCMR", "SVMR"])
def test_predictions_after_suppression_with_quirk_4(vcmr: Evaluation, task: str) -> None:
    for query, expected in queries_of(vcmr, vcmr.dump["eval_calls"][1]["sub"], task):
        kept = suppressed_with_quirk_4_among_100(vcmr, vcmr.spans(task, query))
        assert_same_ranking(vcmr.ranked(task, query, kept), scored(expected))
        assert vcmr.dump["submission"][task][query]["predictions"] == expected


def test_without_quirk_4_more_moments_are_found(vcmr: Evaluation) -> None:
    """Among as many candidates as were asked for, suppression leaves more; search here looks until there are enough."""
    limit, wanted = vcmr.settings["max_before_nms"], vcmr.settings["max_after_nms"]
    for query in range(len(vcmr.queries)):
        every = vcmr.corpus_spans(query)
        theirs = suppressed_with_quirk_4_among_100(vcmr, every)
        asked = non_maximum_suppression(every.take(slice(limit)), vcmr.settings["nms_thd"], wanted)
        assert len(theirs) < len(asked) <= wanted
        found = search_spans(
            vcmr.vectors[query],
            vcmr.span_vectors[query],
            np.concatenate(vcmr.clips),
            vcmr.lengths,
            vcmr.moment,
            wanted,
            video_limit=vcmr.settings["max_vcmr_video"],
        )
        assert len(found) > len(theirs)
        assert set(found.video) <= set(vcmr.best_videos(query).tolist())


def test_quirk_5_spans_of_score_zero_are_those_that_were_ruled_out(vcmr: Evaluation) -> None:
    shortest, longest = vcmr.settings["min_pred_l"], vcmr.settings["max_pred_l"]
    filled = 0
    for query, predictions in queries_of(vcmr, vcmr.dump["before_top_n"], "SVMR"):
        length = vcmr.lengths[vcmr.own[query]]
        possible = sum(max(0, length - clips + 1) for clips in range(shortest + 1, longest + 1))
        theirs = scored(predictions)
        assert len(theirs) == min(possible, len(predictions))
        for _, start, end, _ in predictions[len(theirs) :]:
            first, last = start / vcmr.interval, end / vcmr.interval - 1
            assert last >= length or not shortest <= last - first < longest
            filled += 1
        ours = search_spans(
            vcmr.vectors[query],
            vcmr.span_vectors[query],
            vcmr.clips[vcmr.own[query]],
            [length],
            vcmr.moment,
            len(predictions),
        )
        assert (ours.score > 0).all()
        assert ((ours.last - ours.first >= shortest) & (ours.last - ours.first < longest) & (ours.last < length)).all()
    assert filled, "this oracle does not show the quirk"


def test_with_quirk_2_times_are_right_only_if_a_video_is_as_long_as_the_limit(vcmr: Evaluation) -> None:
    videos, written = vcmr.settings["max_vcmr_video"], max(vcmr.lengths)
    limit = vcmr.settings["max_before_nms"]
    moved = 0
    for query, expected in queries_of(vcmr, vcmr.dump["before_top_n"], "VCMR"):
        ours = vcmr.corpus_spans(query).take(slice(limit))
        theirs = read_back_with_quirk_2(ours, videos, written, vcmr.settings["max_clip_len"])
        assert_same_ranking(vcmr.ranked("VCMR", query, theirs), scored(expected))
        # The same search under a limit that no video reaches: their times change, ours do not know of it.
        wrong = read_back_with_quirk_2(ours, videos, written, written + 10)
        moved += int((wrong.times(vcmr.interval) != ours.times(vcmr.interval)).any(axis=1).sum())
    assert moved > 0.9 * limit * len(vcmr.queries)


def test_video_retrieval(vcmr: Evaluation) -> None:
    for stage in (vcmr.dump["before_top_n"], vcmr.dump["eval_calls"][0]["sub"], vcmr.dump["submission"]):
        for query, expected in queries_of(vcmr, stage, "VR"):
            chosen = vcmr.best_videos(query)
            weights = np.exp(vcmr.settings["q2c_alpha"] * vcmr.similarity[query, chosen].astype(np.float64))
            found = [
                [vcmr.numbers[vcmr.corpus[place].video_id], 0, 0, weight]
                for place, weight in zip(chosen, weights, strict=True)
            ]
            np.testing.assert_allclose([entry[3] for entry in found], [entry[3] for entry in expected], rtol=SCORE)
            assert [entry[0] for entry in found] == [entry[0] for entry in expected]


def results_of(evaluation: Evaluation, submission: dict[str, Any]) -> list[QueryResult]:
    """What the authors predicted, as this project's metrics take it."""
    found = {
        task: [Ranking.of(entry["predictions"]) for entry in submission[task]] if task in submission else None
        for task in ("VCMR", "SVMR", "VR")
    }
    return [
        QueryResult(
            query_id=annotation.query_id,
            type=annotation.type,
            video=evaluation.numbers[annotation.video_id],
            moments=annotation.moments,
            videos=found["VR"][query] if found["VR"] else NOTHING,
            corpus_moments=found["VCMR"][query] if found["VCMR"] else NOTHING,
            video_moments=found["SVMR"][query] if found["SVMR"] else NOTHING,
        )
        for query, annotation in enumerate(evaluation.annotations)
    ]


@pytest.mark.parametrize("call", [0, 1], ids=["top 100", "suppressed"])
def test_metrics(vcmr: Evaluation, call: int) -> None:
    stage = vcmr.dump["eval_calls"][call]
    compared = 0
    for kind, table in recalls_by_type(results_of(vcmr, stage["sub"])).items():
        for name, value in table.items():
            task = name.split("/")[0]
            if task not in stage["sub"] or "AveR" in name:
                continue
            where, entry = authors_names(kind, name)
            assert round(100 * value, 2) == stage["metrics"][where][entry], (kind, name)
            compared += 1
    numbers = [value for table in stage["metrics"].values() for value in table.values() if not isinstance(value, str)]
    assert compared == len(numbers), "metrics that were not compared"


def test_the_log_has_the_metrics_of_both_calls(vcmr: Evaluation) -> None:
    logged = {name: value for name, value in vcmr.dump["log"].items() if name.startswith("valid_val_")}
    expected = {}
    for stage, suffix in zip(vcmr.dump["eval_calls"], ("", f"_nms_{vcmr.settings['nms_thd']}"), strict=True):
        for where, table in stage["metrics"].items():
            expected |= {f"valid_val_{where}{suffix}/{where}_{name}": value for name, value in table.items()}
    expected = {name: value for name, value in expected.items() if not isinstance(value, str)}
    assert logged == pytest.approx(expected)


def test_this_projects_evaluation_agrees_where_no_quirk_is_in_the_way(vcmr: Evaluation) -> None:
    """Video retrieval, up to the number of videos that theirs returns. Its moments have quirks 1 and 4."""
    found = evaluate_retrieval(vcmr.model, vcmr.corpus, PACKED, vcmr.moment)
    metrics = vcmr.dump["eval_calls"][0]["metrics"]
    for rank in (1, 5):
        assert rank <= vcmr.settings["max_vcmr_video"]
        assert round(100 * found.metrics["all"][f"VR/R@{rank}"], 2) == metrics["VR"][f"r{rank}"]
    assert found.counts == {"queries": len(vcmr.queries), "videos": len(vcmr.corpus)}
    assert found.metrics["all"]["VR/R@100"] == 1.0, "every video of this small corpus is within the best 100"


def test_video_retrieval_of_raw_similarities() -> None:
    """The authors' evaluation for MSR-VTT: similarities as they are, the best few videos, recall."""
    dump = read_dump("vr_io")["full_eval"]
    model, _ = read_model("vr")
    corpus, _ = read_lmdb_corpus(
        DB / "txt" / "msrvtt_val.db",
        DB / "txt" / "syn_subtitles.db",
        DB / "video" / "syn" / "resnet_slowfast_2_compressed",
        HeroConfig(clip_interval=2.0),
    )
    corpus = [video for video in corpus if video.video_id in dump["video_ids"]]
    assert sorted(video.video_id for video in corpus) == sorted(dump["video_ids"])
    clips = encode_corpus(model, corpus, PACKED)
    asked = {
        query.query_id: (place, row)
        for place, video in enumerate(corpus)
        for row, query in enumerate(video.annotations)
    }
    order = [asked[entry["desc_id"]] for entry in dump["submission"]["VR"]]
    assert len(order) == len(asked)
    vectors, _ = encode_query_tokens(model, [corpus[place].queries[row].tokens for place, row in order], PACKED)
    similarity = video_similarity(vectors, np.concatenate(clips), [len(part) for part in clips])
    numbers = dump["submission"]["video2idx"]
    results = []
    for row, entry in enumerate(dump["submission"]["VR"]):
        best = np.argsort(-similarity[row], kind="stable")[: len(entry["predictions"])]
        found = [numbers[corpus[place].video_id] for place in best]
        assert found == [prediction[0] for prediction in entry["predictions"]]
        np.testing.assert_allclose(
            similarity[row, best], [prediction[3] for prediction in entry["predictions"]], atol=LOGIT
        )
        target = numbers[corpus[order[row][0]].video_id]
        results.append(QueryResult(entry["desc_id"], "vt", target, (), Ranking.of((video, 0, 0, 0) for video in found)))
    table = recalls_by_type(results)["all"]
    for rank in (1, 5, 10, 100):
        assert round(100 * table[f"VR/R@{rank}"], 2) == pytest.approx(dump["log"][f"valid_val_VR/VR_r{rank}"])
