"""Defects of the authors' evaluation that this project must not have, by their number in the list of them.

Those that change results (1, 2, 4, 5) are shown beside the authors' numbers in ``test_full_evaluation.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hero_sdk import spans
from hero_sdk.spans import video_similarity
from hero_train.config import HeroConfig
from hero_train.data.answers import collate_questions, collate_statements
from hero_train.data.corpus import CorpusVideo
from hero_train.data.lmdb_corpus import read_lmdb_corpus
from hero_train.errors import ConfigError
from hero_train.evaluate import evaluate_retrieval, search_corpus
from hero_train.evaluate_answers import answer_questions, evaluate_questions, evaluate_statements, judge_statements
from hero_train.losses_answers import question_loss, statement_loss
from hero_train.metrics import METRICS
from hero_train.model.answers import HeroForQuestionAnswering, HeroForStatements
from hero_train.run_config import load_config
from tests.parity.authors import PACKED
from tests.parity.oracle import oracle_folder, read_model
from tests.tiny_training import tiny_config
from tests.unit.test_answer_tasks import GEOMETRY, QUESTIONS, STATEMENTS

DB = oracle_folder() / "db"


def msrvtt(**config: Any) -> list[CorpusVideo]:
    corpus, _ = read_lmdb_corpus(
        DB / "txt" / "msrvtt_val.db",
        DB / "txt" / "syn_subtitles.db",
        DB / "video" / "syn" / "resnet_slowfast_2_compressed",
        HeroConfig(clip_interval=2.0, **config),
    )
    return corpus


def test_defect_3_a_corpus_smaller_than_what_is_searched() -> None:
    """Theirs asks for the best 100 of any corpus, and fails below."""
    model, _ = read_model("vcmr")
    corpus, _ = read_lmdb_corpus(
        DB / "txt" / "tvr_val.db",
        DB / "txt" / "syn_subtitles.db",
        DB / "video" / "syn" / "resnet_slowfast_1.5_compressed",
        HeroConfig(clip_limit=20),
    )
    found = evaluate_retrieval(model, corpus[:1], PACKED)
    assert found.counts["videos"] == 1
    assert found.metrics["all"]["VR/R@1"] == 1.0


def test_defect_7_video_retrieval_needs_no_setting_of_suppression() -> None:
    """Theirs reads a threshold that no configuration of video retrieval has."""
    model, _ = read_model("vr")
    found = evaluate_retrieval(model, msrvtt(), PACKED)
    assert set(found.metrics["all"]) == {name for name in METRICS if name.startswith("VR/")}


def test_defect_7_a_saved_model_is_evaluated_without_its_training_options(tmp_path: Path) -> None:
    """Theirs reads an option of training that is never saved."""
    model = HeroForStatements(tiny_config())
    model.save_pretrained(tmp_path)
    loaded = HeroForStatements.from_pretrained(tmp_path)
    assert evaluate_statements(loaded, STATEMENTS, GEOMETRY) == evaluate_statements(model, STATEMENTS, GEOMETRY)


def test_defect_7_answers_can_be_kept_and_their_loss_computed() -> None:
    """Theirs makes lists of the scores that are to be saved, and then fails to compute the loss of lists."""
    asked, stated = HeroForQuestionAnswering(tiny_config()).eval(), HeroForStatements(tiny_config()).eval()
    batch, judged = collate_questions(QUESTIONS, GEOMETRY), collate_statements(STATEMENTS, GEOMETRY)
    output, logits = asked(batch.packed, batch.answers), stated(judged.packed)
    inputs = asked.tensors({"correct": batch.correct, "moments": batch.moments})
    assert question_loss(output, inputs["correct"], inputs["moments"], 1.0).answer.isfinite()
    assert statement_loss(logits, asked.tensors({"labels": judged.labels})["labels"]).isfinite()
    assert output.answer.argmax(dim=1).tolist() == answer_questions(asked, QUESTIONS, GEOMETRY).tolist()
    assert (logits > 0).long().tolist() == judge_statements(stated, STATEMENTS, GEOMETRY).tolist()
    assert evaluate_questions(asked, QUESTIONS, GEOMETRY).counts["questions"] < len(QUESTIONS)


def test_defect_10_the_corpus_is_normalised_once_for_all_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs does so for every batch of queries; here batches only bound the memory."""
    rng = np.random.default_rng(0)
    clips, vectors = rng.standard_normal((50, 8), dtype=np.float32), rng.standard_normal((23, 8), dtype=np.float32)
    lengths = [10, 25, 15]
    expected = video_similarity(vectors, clips, lengths)
    normalised = []
    monkeypatch.setattr(spans.np, "einsum", lambda *a, plain=np.einsum, **k: normalised.append(1) or plain(*a, **k))
    monkeypatch.setattr(spans, "SIMILARITIES_AT_A_TIME", 4 * len(clips))
    np.testing.assert_allclose(video_similarity(vectors, clips, lengths), expected, atol=1e-6)
    assert len(normalised) == 1
    for row, vector in enumerate(vectors):
        np.testing.assert_allclose(video_similarity(vector, clips, lengths), expected[row], atol=1e-6)


@pytest.mark.parametrize(
    "entry", ["vcmr_eval_batch_size", "optimisation.vcmr_eval_batch_size", "sampling.max_clip_len"]
)
def test_defect_12_an_entry_that_nothing_reads_is_refused(tmp_path: Path, entry: str) -> None:
    """Theirs takes the batch size of evaluation from another entry than the one that its configurations set."""
    path = tmp_path / "run.yaml"
    path.write_text(
        "task: retrieval\noutput: run\nframe_encoder: encoder\ndata: {videos: v, features: f, train: t.jsonl}\n",
        encoding="utf-8",
    )
    load_config(path)
    with pytest.raises(ConfigError, match=entry.replace(".", r"\.")):
        load_config(path, [f"{entry}=80"])


def test_defect_13_video_retrieval_cuts_videos_that_are_too_long() -> None:
    """Theirs leaves the frames of subtitles beyond the limit in, and scatters them out of range."""
    limit = 6
    corpus = msrvtt(clip_limit=limit)
    whole = {video.video_id: len(video.input.features) for video in msrvtt()}
    assert any(length > limit for length in whole.values())
    for video in corpus:
        assert len(video.input.features) == min(limit, whole[video.video_id])
        assert all((segment.frames < limit).all() for segment in video.input.segments)
    model, _ = read_model("vr")
    found = search_corpus(model, corpus, PACKED)
    assert max(found.searched.clips) == limit
    assert len(found.results) == sum(len(video.queries) for video in corpus)
