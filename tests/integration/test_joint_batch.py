"""Two processes on parts of a batch have the loss and the gradients of one process on the whole of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from hero_sdk.rows import RowGeometry, Segment, VideoInput, pack_queries, pack_videos
from hero_train.config import CaptioningConfig
from hero_train.data.answers import EncodedQuestion, EncodedStatement, collate_questions, collate_statements
from hero_train.data.captions import CaptionedMoment, CaptionVideo, EncodedMoment, collate_captions
from hero_train.data.corpus import CorpusVideo, EncodedQuery
from hero_train.data.masking import WordIds
from hero_train.data.pretraining import OrderBatch, PretrainingSampler, PretrainingSampling, TaskMix
from hero_train.data.sampling import RetrievalBatch, RetrievalSampler, SamplingConfig
from hero_train.distribution import make_accelerator
from hero_train.gathering import ALONE, Processes
from hero_train.losses import IGNORED_TARGET, RetrievalLossConfig
from hero_train.model.answers import HeroForQuestionAnswering, HeroForStatements
from hero_train.model.captioning import HeroForCaptioning
from hero_train.model.hero import HeroModel
from hero_train.model.layers import initialise
from hero_train.model.pretraining import HeroForPretraining
from hero_train.run_config import RetrievalRunConfig
from hero_train.sharding import gather_whole
from hero_train.tasks.answers import QuestionTask, StatementTask
from hero_train.tasks.captioning import CaptioningTask
from hero_train.tasks.pretraining import PretrainingTask
from hero_train.tasks.retrieval import RetrievalTask
from tests.processes import together
from tests.tiny_training import tiny_config

pytestmark = pytest.mark.slow  # Two processes import torch.

GEOMETRY = RowGeometry(slots=32, frames=16, temporal_slots=16, query_tokens=8)
IDS = WordIds(39, np.arange(4, 39, dtype=np.int32))
WORLD = 2
VIDEOS = 6

ROUNDING = 1e-5
"""Largest difference of a loss, and of a gradient in relation to the largest gradient of the model: a few roundings of float32."""


def words(rng: np.random.Generator, count: int, mark: int) -> np.ndarray:
    return np.concatenate([[mark], rng.choice(IDS.words, count)]).astype(np.int32)


def make_video(number: int) -> CorpusVideo:
    """A video with its own number of clips, of words and of queries; some of whose moments nobody knows or nobody marked."""
    rng = np.random.default_rng(number)
    clips = 5 + number
    segments = tuple(
        Segment(np.arange(start, min(start + 3, clips), dtype=np.int32), words(rng, 1 + (number + start) % 4, 2))
        for start in range(0, clips, 3)
    )
    queries = []
    for asked in range(1 + number % 3):
        first = int(rng.integers(clips - 2))
        query = EncodedQuery(words(rng, 2 + asked, 0), first, first + 1 + asked, "vt", marked=(number + asked) % 4 != 1)
        unknown = (number, asked) in ((1, 1), (5, 0))
        queries.append(replace(query, first=IGNORED_TARGET, last=IGNORED_TARGET) if unknown else query)
    features = rng.standard_normal((clips, 6), dtype=np.float32)
    return CorpusVideo(f"v{number}", clips * 1.5, VideoInput(features, segments), (), queries)


CORPUS = [make_video(number) for number in range(VIDEOS)]


def part_of(items: Sequence[Any], rank: int, world: int) -> list[Any]:
    """A process's part: not as long as the other's, unless there is one process only."""
    cut = [0, len(items) // 2 + 1, len(items)] if world == WORLD else [0, len(items)]
    return list(items[cut[rank] : cut[rank + 1]])


def started(make: Callable[[], Any]) -> Any:
    """A model whose weights are the same everywhere, and not so small that the losses are those of chance."""
    torch.manual_seed(3)
    model = make()
    initialise(model, 0.3)
    return model


def retrieval(rank: int, world: int, **loss: Any) -> tuple[nn.Module, RetrievalBatch]:
    sampler = RetrievalSampler(
        CORPUS, SamplingConfig(videos=VIDEOS // world, queries_per_video=3), GEOMETRY, 1, rank, world
    )
    return RetrievalTask(started(lambda: HeroModel(tiny_config())), RetrievalLossConfig(**loss)), sampler.batch(0)


def uneven(rank: int, world: int) -> tuple[nn.Module, RetrievalBatch]:
    """As many processes as ``retrieval`` has, and four videos for one of them and two for the other."""
    videos = part_of(CORPUS, rank, world)
    queries = [query for video in videos for query in video.queries]
    token_ids, segment_ids = pack_queries([query.tokens for query in queries], 8)
    batch = RetrievalBatch(
        packed=pack_videos([video.input for video in videos], GEOMETRY),
        token_ids=token_ids,
        segment_ids=segment_ids,
        targets=np.array([(query.first, query.last) for query in queries], dtype=np.int64),
        marked=np.array([query.marked for query in queries]),
        query_video=np.array([number for number, video in enumerate(videos) for _ in video.queries], dtype=np.int64),
    )
    loss = RetrievalLossConfig(span_weight=1.0, clip_weight=1.0, hard_negatives=True, hard_pool=3)
    return RetrievalTask(started(lambda: HeroModel(tiny_config())), loss), batch


def pretraining(rank: int, world: int, task: str, seed: int = 4, **sampling: Any) -> tuple[nn.Module, Any]:
    mix = TaskMix(**{name: float(name == task) for name in ("mlm", "mfm_nce", "mffr", "fom", "vsm")})
    config = PretrainingSampling(
        **{"videos": VIDEOS // world, "share": 0.4, "span_dropout": 0.0, "mix": mix, **sampling}
    )
    videos = [video.input for video in CORPUS]
    batch = PretrainingSampler(videos, IDS, config, GEOMETRY, seed, 1, rank, world).batch(0)
    model = started(lambda: HeroForPretraining(tiny_config(), vocabulary=40))
    return PretrainingTask(model, RetrievalLossConfig(span_weight=1.0)), batch


def nothing_to_order(rank: int, world: int) -> tuple[nn.Module, OrderBatch]:
    """Frame order where chance moved frames in the batch of one process only."""
    task, batch = pretraining(rank, world, "fom", seed=2, share=0.06)
    assert (batch.labels != IGNORED_TARGET).any() == (rank + 1 == world)
    return task, batch


def questions(rank: int, world: int) -> tuple[nn.Module, Any]:
    """Answers and moments, of which some are unknown, so that the processes know different numbers of either."""
    rng = np.random.default_rng(7)
    asked = [
        EncodedQuestion(
            f"q{number}",
            video.input,
            words(rng, 2, 2),
            tuple(words(rng, 1 + answer % 2, 2) for answer in range(3)),
            IGNORED_TARGET if number == 0 else number % 3,
            (IGNORED_TARGET, IGNORED_TARGET) if number > 3 else (1, 2 + number % 2),
        )
        for number, video in enumerate(CORPUS)
    ]
    batch = collate_questions(part_of(asked, rank, world), GEOMETRY)
    return QuestionTask(started(lambda: HeroForQuestionAnswering(tiny_config()))), batch


def statements(rank: int, world: int) -> tuple[nn.Module, Any]:
    rng = np.random.default_rng(8)
    made = [
        EncodedStatement(f"s{number}", video.input, words(rng, 3, 2), None if number == 1 else number % 3 > 0)
        for number, video in enumerate(CORPUS)
    ]
    batch = collate_statements(part_of(made, rank, world), GEOMETRY)
    return StatementTask(started(lambda: HeroForStatements(tiny_config()))), batch


def captions(rank: int, world: int) -> tuple[nn.Module, Any]:
    rng = np.random.default_rng(9)
    videos = []
    for number, video in enumerate(CORPUS):
        written = tuple(rng.choice(IDS.words, 1 + number).astype(np.int32) for _ in range(1 + number % 2))
        moment = EncodedMoment(CaptionedMoment(f"m{number}", f"v{number}", 0.0, 3.0, ()), 1, 3, written)
        videos.append(CaptionVideo(f"v{number}", video.input, [moment]))
    batch = collate_captions(part_of(videos, rank, world), GEOMETRY, 12)
    config = replace(CaptioningConfig.of(tiny_config()), decoder_positions=12)
    return CaptioningTask(started(lambda: HeroForCaptioning(config))), batch


WEIGHTS: dict[str, Any] = {"span_weight": 1.0, "video_weight": 2.0, "query_weight": 3.0}

CASES: dict[str, Callable[[int, int], tuple[nn.Module, Any]]] = {
    "hinge": lambda rank, world: retrieval(rank, world, **WEIGHTS, margin=0.5),
    "lse": lambda rank, world: retrieval(rank, world, **WEIGHTS, ranking="lse"),
    "hinge with hard negatives": lambda rank, world: retrieval(
        rank, world, **WEIGHTS, margin=0.5, hard_negatives=True, hard_pool=2
    ),
    "lse with hard negatives": lambda rank, world: retrieval(
        rank, world, **WEIGHTS, ranking="lse", hard_negatives=True, hard_pool=2
    ),
    "nce with clips": lambda rank, world: retrieval(rank, world, **WEIGHTS, ranking="nce", clip_weight=4.0),
    "parts that are not equally large": uneven,
    "masked words": lambda rank, world: pretraining(rank, world, "mlm"),
    "masked features": lambda rank, world: pretraining(rank, world, "mffr"),
    "frame order": lambda rank, world: pretraining(rank, world, "fom"),
    "frame order that one process is not asked for": nothing_to_order,
    "subtitles": lambda rank, world: pretraining(rank, world, "vsm", queries_per_video=2),
    "subtitles without spans": lambda rank, world: pretraining(rank, world, "vsm", span_dropout=1.0),
    "questions": questions,
    "statements": statements,
    "captions": captions,
}


def contrast(rank: int, world: int) -> tuple[nn.Module, Any]:
    return pretraining(rank, world, "mfm_nce")


def scalar(loss: Any) -> Tensor:
    return loss if isinstance(loss, Tensor) else loss.total


def gradients(task: nn.Module, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a batch, and what each weight's gradient is."""
    loss = scalar(task(batch))
    loss.backward()
    inner = task.module if isinstance(task, DistributedDataParallel) else task
    found = {name: weight.grad for name, weight in inner.named_parameters() if weight.grad is not None}
    return loss.detach(), gather_whole(found, keep=True)


def run_config(distributed: str) -> RetrievalRunConfig:
    data = {"videos": "videos", "features": "features", "train": "train.jsonl"}
    content = {"task": "retrieval", "output": "run", "frame_encoder": "encoder", "data": data, "precision": "fp32"}
    return RetrievalRunConfig.model_validate({**content, "distributed": distributed})


def all_cases(rank: int, world: int) -> dict[str, Any]:
    """What a process has of each case, by the wrapper that training uses."""
    found: dict[str, Any] = {}
    for name, case in {**CASES, "contrast": contrast}.items():
        task, batch = case(rank, world)
        found[name] = gradients(DistributedDataParallel(task, find_unused_parameters=True), batch)
    accelerator = make_accelerator(run_config("fsdp"))
    for name, case in CASES.items():
        task, batch = case(rank, world)
        sharded, _ = accelerator.prepare(task, torch.optim.AdamW(task.parameters()))
        found[f"{name}, sharded"] = gradients(sharded, batch)
        held = sum(weight.to_local().numel() for weight in sharded.parameters())
        found[f"{name}, held"] = held / sum(weight.numel() for weight in sharded.parameters())
    found["primitives"] = primitives(rank, world)
    if rank == 0:
        # The other process is not asked; if this one waited for it, the test would not end.
        task, batch = CASES["nce with clips"](rank, world)
        found["evaluation"] = scalar(task.eval()(batch)).detach()
    distributed.barrier()
    return found


def primitives(rank: int, world: int) -> dict[str, Any]:
    processes = Processes.in_training()
    assert processes == Processes(world, rank)
    assert Processes.in_training(False) is ALONE
    found = {}
    for sizes in ((2, 3), (0, 2), (1, 0), (2, 2)):
        (share,) = processes.shares(sizes[rank], device=torch.device("cpu"))
        assert share.sizes == sizes
        part = (10.0 * rank + torch.arange(2 * sizes[rank])).view(-1, 2).requires_grad_()
        whole = share.gather(part)
        # Not the same everywhere, as the parts of a gradient that arrive here are not either.
        (whole * (rank + 1)).square().sum().backward()
        found[f"{sizes}"] = {"whole": whole.detach(), "gradient": part.grad, "own": whole[share.own].detach()}
    return found


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What two processes have, each of its part of the same batches; started once for all tests."""
    return together(all_cases, WORLD, tmp_path_factory.mktemp("processes"))


def assert_equal(found: tuple[Tensor, dict[str, Tensor]], loss: Tensor, expected: dict[str, Tensor]) -> None:
    torch.testing.assert_close(found[0], loss, rtol=ROUNDING, atol=ROUNDING)
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    assert largest > 0.01, "a loss without a gradient to speak of shows nothing"
    for name, gradient in found[1].items():
        # A weight that a task does not use has no gradient in one process, and zeros where processes average.
        theirs = expected.get(name, torch.zeros_like(gradient))
        assert float((gradient - theirs).abs().max()) <= ROUNDING * largest, name
    assert expected.keys() <= found[1].keys()


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradients_are_those_of_the_joint_batch(parts: list[dict[str, Any]], name: str) -> None:
    loss, expected = gradients(*CASES[name](0, 1))
    for part in parts:
        assert_equal(part[name], loss, expected)
    assert torch.equal(parts[0][name][0], parts[1][name][0]), "the processes do not agree on the loss"


@pytest.mark.parametrize("name", CASES)
def test_sharded_weights_have_the_same_gradients(parts: list[dict[str, Any]], name: str) -> None:
    for part in parts:
        assert_equal(part[f"{name}, sharded"], *part[name])
        assert 0.3 < part[f"{name}, held"] < 0.7


def test_a_part_alone_has_another_loss() -> None:
    """So that the test above shows something: the parts differ in what their means are over, and in their negatives."""
    for name, case in CASES.items():
        whole, *alone = (float(gradients(*case(*place))[0]) for place in ((0, 1), (0, WORLD), (1, WORLD)))
        assert abs(sum(alone) / WORLD - whole) > 100 * ROUNDING, name


def test_masked_frames_are_told_apart_within_each_process(parts: list[dict[str, Any]]) -> None:
    """As by the authors; the mean is over the masked frames of both, of which one has more than the other."""
    alone = [contrast(rank, WORLD) for rank in range(WORLD)]
    counts = [len(batch.features) for _, batch in alone]
    assert counts[0] != counts[1]
    expected: dict[str, Tensor] = {}
    total = torch.zeros(())
    for (task, batch), count in zip(alone, counts, strict=True):
        loss, found = gradients(task, batch)
        total += loss * count / sum(counts)
        for name, gradient in found.items():
            expected[name] = expected.get(name, torch.zeros(())) + gradient * count / sum(counts)
    for part in parts:
        assert_equal(part["contrast"], total, expected)


@pytest.mark.parametrize("sizes", [(2, 3), (0, 2), (1, 0), (2, 2)])
def test_parts_are_joined_in_the_order_of_the_processes(parts: list[dict[str, Any]], sizes: tuple[int, int]) -> None:
    held = [(10.0 * rank + torch.arange(2 * size)).view(-1, 2) for rank, size in enumerate(sizes)]
    for rank, part in enumerate(parts):
        found = part["primitives"][f"{sizes}"]
        torch.testing.assert_close(found["whole"], torch.cat(held), rtol=0, atol=0)
        torch.testing.assert_close(found["own"], held[rank], rtol=0, atol=0)
        # The square of twice the value beside that of the value itself: 2 x and 8 x.
        torch.testing.assert_close(found["gradient"], 10 * held[rank], rtol=0, atol=0)


def test_the_configuration_decides_on_sharding(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not what a launcher says, or an earlier run of the same process left."""
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    make_accelerator(run_config("ddp"))
    assert os.environ["ACCELERATE_USE_FSDP"] == "false"
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_process_judges_alone(parts: list[dict[str, Any]]) -> None:
    task, batch = CASES["nce with clips"](0, WORLD)
    torch.testing.assert_close(parts[0]["evaluation"], scalar(task.eval()(batch)).detach())
