"""Question answering and statements compute what the authors' implementation computes: every stage, logit, loss and gradient.

The tolerances are those of the oracle's README: 1e-5 on activations, 1e-4 on logits and losses.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from hero_sdk.rows import PackedVideos, RowGeometry, Segment, VideoInput, pack_videos
from hero_sdk.tokens import TextTokenizer
from hero_train.config import HeroConfig
from hero_train.data.answer_annotations import read_questions, read_statements
from hero_train.data.answers import collate_questions, collate_statements, encode_questions, encode_statements
from hero_train.data.features import VideoFeatures
from hero_train.losses_answers import question_loss, statement_loss
from hero_train.model.answers import AnswerOutput, HeroForQuestionAnswering, HeroForStatements
from hero_train.model.layers import run_layers, segment_mask
from hero_train.official import infer_config, load_official
from hero_train.official_names import our_name
from tests.parity.oracle import OracleBatch, OracleTokenizer, assert_close, oracle_folder, read_dump

ACTIVATION, LOGIT = 1e-5, 1e-4
PACKED = RowGeometry(slots=96, frames=48, temporal_slots=96)


class Case(NamedTuple):
    """One oracle: its numbers, its model, and its batch taken apart into videos and the texts that go with them."""

    dump: dict[str, Any]
    model: HeroForQuestionAnswering | HeroForStatements
    batch: OracleBatch
    videos: list[VideoInput]
    texts: list[np.ndarray]

    def pack(self, geometry: RowGeometry = PACKED) -> PackedVideos:
        return pack_videos(self.videos, geometry, keep_frameless=True, texts=self.texts)

    def __call__(self, packed: PackedVideos) -> tuple[Tensor, ...]:
        """Everything that the model says."""
        if isinstance(self.model, HeroForStatements):
            return (self.model(packed),)
        output = self.model(packed, self.dump["logits"].shape[1])
        return output.answer, output.start, output.end


def read_case(task: str, kind: type[HeroForQuestionAnswering] | type[HeroForStatements], prefix: str) -> Case:
    dump, state = read_dump(f"{task}_io"), read_dump(f"{task}_state_dict")["state_dict"]
    sizes = json.loads((oracle_folder() / "config" / "hero_finetune.json").read_text())["f_config"]
    model = kind(infer_config(state, num_heads=sizes["num_attention_heads"]))
    report = load_official(model, state)
    assert report.fresh == []
    batch = OracleBatch(dump["batch"])
    masks = dump["batch"][f"{prefix}_attn_masks"].bool()
    texts = [
        ids[mask].numpy().astype(np.int32)
        for ids, mask in zip(dump["batch"][f"{prefix}_input_ids"], masks, strict=True)
    ]
    videos = [without_text(video, text) for video, text in zip(batch.videos, texts, strict=True)]
    return Case(dump, model, batch, videos, texts)


def without_text(video: VideoInput, text: np.ndarray) -> VideoInput:
    """The video before the authors' loader added a text to every subtitle."""
    segments = []
    for segment in video.segments:
        assert np.array_equal(segment.tokens[-len(text) :], text)
        segments.append(Segment(segment.frames, segment.tokens[: -len(text)]))
    return VideoInput(video.features, tuple(segments))


@pytest.fixture(scope="module")
def questions() -> Case:
    return read_case("videoQA", HeroForQuestionAnswering, "qa")


@pytest.fixture(scope="module")
def statements() -> Case:
    return read_case("violin", HeroForStatements, "q")


@pytest.fixture(params=["questions", "statements"])
def case(request: pytest.FixtureRequest) -> Case:
    return request.getfixturevalue(request.param)


def test_cross_modal_stage(questions: Case) -> None:
    packed = questions.pack()
    encoded = questions.model.cross_modal(**questions.model.tensors(packed.cross_modal.arrays()))
    expected = questions.dump["stages"]["v_encoder.f_encoder.encoder"][0]
    spans = [span for video in packed.segments for span in video]
    assert len(spans) == len(expected)
    for number, span in enumerate(spans):
        assert span is not None
        slots, _, _ = questions.batch.padded_row(number)
        assert_close(encoded[span.row, span.start : span.start + span.length], expected[number, slots], ACTIVATION)


def test_frames_after_the_cross_modal_stage(questions: Case) -> None:
    model, packed, mask = questions.model, questions.pack(), questions.batch.frame_mask
    rows = model.tensors(packed.temporal.arrays())
    matched = model.regroup(packed, model.cross_modal(**model.tensors(packed.cross_modal.arrays())))
    joined, found = model.unpack(packed, model.temporal.frames(rows["frame_features"]) + matched)
    embedded, _ = model.unpack(packed, model.embed_with_text(packed))
    assert torch.equal(found, mask)
    assert_close(joined[mask], questions.dump["c_input"][mask], ACTIVATION)
    assert_close(embedded[mask], questions.dump["stages"]["v_encoder.c_encoder.embeddings"][mask], ACTIVATION)


def test_temporal_stage_reads_frames_then_text(case: Case) -> None:
    model, packed, stages = case.model, case.pack(), case.dump["stages"]
    embedded = model.embed_with_text(packed)
    segment_ids = torch.from_numpy(packed.temporal.segment_ids)
    assert segment_ids.max() > 1, "nothing was packed together"
    encoded = run_layers(model.temporal.layers, embedded, segment_mask(segment_ids))
    inputs, outputs = stages["v_encoder.c_encoder.encoder.input"][0], stages["v_encoder.c_encoder.encoder"][0]
    frames = case.batch.frame_mask.shape[1]
    for number, (span, text) in enumerate(zip(packed.videos, case.texts, strict=True)):
        # The authors pad frames and text apart from each other.
        padded = [*range(span.length), *range(frames, frames + len(text))]
        place = slice(span.start, span.start + span.length + len(text))
        assert_close(embedded[span.row, place], inputs[number, padded], ACTIVATION)
        assert_close(encoded[span.row, place], outputs[number, padded], ACTIVATION)


def test_pools_and_heads_of_questions(questions: Case) -> None:
    model, stages, logits = questions.model, questions.dump["stages"], questions.dump["logits"]
    assert isinstance(model, HeroForQuestionAnswering)
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    names = {"qa_pool": "answer_pool", "st_ed_pool": "span_pool", "qa_pred_head": "answer", "st_ed_pred_head": "span"}
    hooks = [
        getattr(model, ours).register_forward_hook(
            lambda _, given, made, name=name: seen.update({name: (given[0], made)})
        )
        for name, ours in names.items()
    ]
    output = model(questions.pack(), logits.shape[1])
    for hook in hooks:
        hook.remove()
    mask = questions.batch.frame_mask.unflatten(0, logits.shape)
    for name in ("qa_pool", "st_ed_pool"):
        assert_close(seen[name][1][mask], stages[name][mask], ACTIVATION)
    assert_close(seen["qa_pred_head"][0], stages["qa_pred_head.input"][0], ACTIVATION)
    assert_close(seen["qa_pred_head"][1], stages["qa_pred_head"], LOGIT)
    real = mask[:, 0]
    assert_close(seen["st_ed_pred_head"][0][real], stages["st_ed_pred_head.input"][0][real], ACTIVATION)
    assert_close(output.answer, logits, LOGIT)
    for actual, expected in zip((output.start, output.end), stages["st_ed_pred_head"].unbind(dim=-1), strict=True):
        assert_close(actual[real], expected[real], LOGIT)
        assert (actual[~real] < expected.min() - 1000).all()


def test_pool_and_head_of_statements(statements: Case) -> None:
    model, stages, mask = statements.model, statements.dump["stages"], statements.batch.frame_mask
    assert isinstance(model, HeroForStatements)
    pooled: list[Tensor] = []
    hook = model.truth.register_forward_hook(lambda _, given, made: pooled.append(given[0]))
    logits = model(statements.pack())
    hook.remove()
    clips, found = model.encode_with_text(statements.pack())
    assert torch.equal(found, mask)
    assert_close(model.truth_pool(clips)[mask], stages["violin_pool"][mask], ACTIVATION)
    assert_close(pooled[0], stages["violin_pred_head.input"][0], ACTIVATION)
    assert_close(logits[:, None], stages["violin_pred_head"], LOGIT)
    assert_close(logits[:, None], statements.dump["logits"], LOGIT)


def losses(case: Case) -> tuple[Tensor, ...]:
    """The parts of the loss; their sum is what the authors' training minimises."""
    raw = case.dump["batch"]
    if isinstance(case.model, HeroForStatements):
        return (statement_loss(case.model(case.pack()), raw["targets"].squeeze(1)),)
    loss = question_loss(AnswerOutput(*case(case.pack())), raw["targets"].squeeze(1), raw["ts_targets"])
    return loss.answer, loss.span


def test_losses(case: Case) -> None:
    expected = case.dump["loss"]
    # In the authors' training the moment counts 0.4 of the answer.
    parts = (expected[0], 0.4 * expected[1]) if isinstance(expected, tuple) else (expected,)
    for actual, part in zip(losses(case), parts, strict=True):
        assert_close(actual, part.squeeze(), LOGIT)


def test_every_gradient(case: Case) -> None:
    case.model.zero_grad(set_to_none=True)
    torch.stack(losses(case)).sum().backward()
    parameters = dict(case.model.named_parameters())
    compared = set()
    for official, expected in case.dump["grads"].items():
        ours = our_name(official)
        assert ours is not None, f"{official} has a gradient in the oracle and no place in the model"
        assert_close(parameters[ours].grad, expected, LOGIT)
        compared.add(ours)
    missing = {name for name, parameter in parameters.items() if parameter.grad is not None} - compared
    assert not missing, f"gradients that the oracle does not have: {sorted(missing)}"


def said_by_the_authors(case: Case) -> tuple[Tensor, ...]:
    """What their model says, on their padded batch; not a number where a video has ended."""
    if isinstance(case.model, HeroForStatements):
        return (case.dump["logits"].squeeze(1),)
    logits = case.dump["logits"]
    mask = case.batch.frame_mask.unflatten(0, logits.shape)[:, 0]
    start, end = case.dump["stages"]["st_ed_pred_head"].masked_fill(~mask[..., None], torch.nan).unbind(dim=-1)
    return logits, start, end


@pytest.mark.parametrize("geometry", [RowGeometry(44, 24, 40), RowGeometry(64, 12, 64), RowGeometry(128, 64, 128)])
def test_packed_equals_padded(case: Case, geometry: RowGeometry) -> None:
    for actual, expected in zip(case(case.pack(geometry)), said_by_the_authors(case), strict=True):
        known = ~expected.isnan()
        assert_close(actual[known], expected[known], LOGIT)


def test_a_video_alone_gets_what_it_gets_in_a_batch(case: Case) -> None:
    said = said_by_the_authors(case)
    copies = len(case.videos) // len(said[0])
    for number in range(len(said[0])):
        part = slice(number * copies, (number + 1) * copies)
        alone = case(pack_videos(case.videos[part], PACKED, texts=case.texts[part]))
        for actual, expected in zip(alone, said, strict=True):
            row = expected[number, ..., : actual.shape[-1]] if actual.dim() > 1 else expected[number]
            assert_close(actual[0], row, LOGIT)


def loaded(case: Case, items: list[Any], encode: Any, store: str) -> list[Any]:
    """The annotations of the batch, in its order, encoded with its videos, which are silent here."""
    config = HeroConfig(clip_limit=case.batch.frame_mask.shape[1])
    tokenizer = cast("TextTokenizer", OracleTokenizer(store))
    texts = [text.tolist() for text in case.texts]
    found = []
    for item in items:
        # An annotation is recognised by its words; then its video is the one that it stands beside in the batch.
        clips = {item.video_id: VideoFeatures(np.zeros((config.clip_limit, 6), np.float32), 0.0)}
        (encoded,) = encode([item], clips, None, tokenizer, config)
        text = [*encoded.tokens, *getattr(encoded, "answers", [[]])[0]]
        if text not in texts:
            continue
        place = texts.index(text)
        clips[item.video_id] = VideoFeatures(case.videos[place].features, 0.0)
        found.append((place, *encode([item], clips, None, tokenizer, config)))
    return [encoded for _, encoded in sorted(found, key=lambda entry: entry[0])]


def texts_of(packed: PackedVideos) -> list[list[int]]:
    """What stands after the frames of each video."""
    rows = packed.temporal.arrays()
    found = []
    for span in packed.videos:
        own = rows["segment_ids"][span.row] == rows["segment_ids"][span.row, span.start]
        found.append(rows["token_ids"][span.row][own][span.length :].tolist())
    return found


def test_annotations_of_questions_become_the_authors_batch(questions: Case) -> None:
    asked = read_questions(oracle_folder() / "db" / "ann" / "tvqa_val.jsonl")
    batch = collate_questions(loaded(questions, asked, encode_questions, "tvqa_val.db"), PACKED)
    assert texts_of(batch.packed) == [text.tolist() for text in questions.texts]
    assert batch.correct.tolist() == questions.dump["batch"]["targets"].squeeze(1).tolist()
    assert batch.moments.tolist() == questions.dump["batch"]["ts_targets"].tolist()


def test_annotations_of_statements_become_the_authors_batch(statements: Case) -> None:
    stated = read_statements(oracle_folder() / "db" / "ann" / "violin_val.jsonl")
    batch = collate_statements(loaded(statements, stated, encode_statements, "violin_val.db"), PACKED)
    assert texts_of(batch.packed) == [text.tolist() for text in statements.texts]
    assert batch.labels.tolist() == statements.dump["batch"]["targets"].squeeze(1).tolist()
