"""The inputs of the comparison are what their names say, within the model's tables, in every geometry that is allowed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from hero_export.onnx.graphs import graphs_of
from hero_export.rows.geometry import check_geometry
from hero_export.verification.cases import CaseMaker
from hero_export.verification.head_cases import Case
from hero_sdk.manifest import CAPTIONING, QUESTION_ANSWERING, STATEMENTS
from hero_sdk.rows import RowGeometry, VideoInput, pack_queries, pack_videos
from hero_train.config import HeroConfig
from hero_train.model.hero import HeroEncoders
from tests.tiny_checkpoint import (
    ANSWERS,
    CAPTION_TOKENS,
    CONFIG,
    GEOMETRY,
    MAX_BATCH,
    TEXT_GEOMETRY,
    make_model,
    make_task_model,
)

SMALLEST = dataclasses.replace(CONFIG, clip_limit=1)
SETTINGS = [
    (CONFIG, GEOMETRY, MAX_BATCH),
    (CONFIG, RowGeometry(slots=2, frames=1, temporal_slots=20, query_tokens=1), 1),
    (SMALLEST, RowGeometry(slots=3, frames=3, temporal_slots=1, query_tokens=2), 2),
    (CONFIG, RowGeometry(slots=40, frames=16, temporal_slots=41, query_tokens=14), 3),
]


def grid(model: HeroEncoders, geometry: RowGeometry, max_batch: int, seed: int = 0) -> list[Case]:
    """All cases of a model's graphs."""
    maker = CaseMaker(model.config, geometry, max_batch, seed)
    graphs = graphs_of(model, geometry, answers=ANSWERS, caption_tokens=CAPTION_TOKENS)
    return [case for graph in graphs.values() for case in maker.grid_of(graph)]


def cases_of(setting: tuple[HeroConfig, RowGeometry, int]) -> dict[tuple[str, str], Case]:
    return {(case.graph, case.name): case for case in grid(make_model(setting[0]), *setting[1:])}


def used(case: Case) -> np.ndarray:
    """Of the first output."""
    return next(iter(case.used.values()))


@pytest.fixture(params=SETTINGS, ids=["usual", "two slots", "one temporal slot", "up to the tables"])
def setting(request: pytest.FixtureRequest) -> tuple[HeroConfig, RowGeometry, int]:
    return request.param


def check_grid(model: HeroEncoders, geometry: RowGeometry, max_batch: int) -> None:
    check_geometry(geometry, model.config, max_batch)
    graphs = graphs_of(model, geometry, answers=ANSWERS, caption_tokens=CAPTION_TOKENS)
    cases = grid(model, geometry, max_batch)
    assert {case.graph for case in cases} == set(graphs)
    assert len({(case.graph, case.name) for case in cases}) == len(cases)
    assert all(case.name for case in cases)
    for case in cases:
        graph = graphs[case.graph]
        assert set(case.inputs) == {tensor.name for tensor in graph.inputs}
        batch = len(used(case))
        for tensor in graph.inputs:
            array = case.inputs[tensor.name]
            assert (array.dtype.name, array.shape) == (tensor.dtype, (batch, *tensor.shape[1:]))
        with torch.no_grad():  # an index beyond a table would raise
            outputs = graph.module(*(torch.from_numpy(case.inputs[tensor.name]) for tensor in graph.inputs))
        given = outputs if isinstance(outputs, tuple) else (outputs,)
        assert set(case.used) == {tensor.name for tensor in graph.outputs}
        for tensor, output in zip(graph.outputs, given, strict=True):
            assert output.isfinite().all()
            assert tuple(output.shape) == (batch, *tensor.shape[1:])
            mask = case.used[tensor.name]
            assert mask.dtype == bool
            assert mask.shape == output.shape[: mask.ndim]
            assert mask.any()


def test_cases_are_inputs_that_the_graphs_take(setting: tuple[HeroConfig, RowGeometry, int]) -> None:
    check_grid(make_model(setting[0]), *setting[1:])


def test_the_grid_has_every_batch_size_with_rows_from_one_token_to_full() -> None:
    cases = cases_of((CONFIG, GEOMETRY, MAX_BATCH))
    for graph, fills in {
        "cross_modal": {"one-token segments": 2, "segments of half a row": 16, "full": 32},
        "temporal": {"one-clip videos": 1, "videos of half the clip limit": 10, "longest": 20},
        "query": {"one token": 1, "half full": 6, "full": 12},
        "moment": {"one clip": 1, "half full": 15, "full": 30},
    }.items():
        for batch in (1, 3, 4):
            for fill, size in fills.items():
                taken = used(cases[graph, f"batch of {batch}, {fill}"])
                assert len(taken) == batch
                if graph in ("cross_modal", "temporal"):
                    sizes = np.unique(
                        cases[graph, f"batch of {batch}, {fill}"].inputs["segment_ids"], return_counts=True
                    )
                    assert max(sizes[1][sizes[0] > 0]) % size == 0
                    assert taken.sum(axis=1).tolist() == [taken.shape[1] // size * size] * batch
                elif graph == "moment":
                    assert taken.sum(axis=1).tolist() == [size] * batch


@pytest.mark.parametrize("task", [QUESTION_ANSWERING, STATEMENTS, CAPTIONING])
@pytest.mark.parametrize(
    ("geometry", "max_batch"),
    [
        (TEXT_GEOMETRY, MAX_BATCH),
        (RowGeometry(slots=14, frames=4, temporal_slots=32, query_tokens=12), 1),
        (RowGeometry(slots=3, frames=3, temporal_slots=22, query_tokens=1), 2),
        (RowGeometry(slots=40, frames=16, temporal_slots=64, query_tokens=14), 3),
    ],
)
def test_cases_of_every_task_are_inputs_that_the_graphs_take(task: str, geometry: RowGeometry, max_batch: int) -> None:
    check_grid(make_task_model(task), geometry, max_batch)


def test_texts_stand_behind_the_videos_up_to_the_last_slot() -> None:
    model = make_task_model(QUESTION_ANSWERING)
    (case,) = (case for case in grid(model, TEXT_GEOMETRY, 2) if (case.graph, case.name) == ("temporal", "full row"))
    assert used(case).all()
    words = case.inputs["token_ids"] >= 0
    assert (
        words.sum() == TEXT_GEOMETRY.query_tokens + 1
    )  # the video fills what its text and a clip with one token leave
    assert case.inputs["position_ids"][words].max() == TEXT_GEOMETRY.query_tokens - 1
    assert not case.inputs["frame_features"][words].any()


def test_full_rows_have_no_empty_slot(setting: tuple[HeroConfig, RowGeometry, int]) -> None:
    config, geometry, _ = setting
    cases = cases_of(setting)
    for name in ("full row, one segment", "full row, many segments"):
        case = cases["cross_modal", name]
        assert len(used(case)) == 1
        assert used(case).all()
    one, many = (cases["cross_modal", name].inputs for name in ("full row, one segment", "full row, many segments"))
    frames = min(geometry.frames, config.clip_limit, geometry.slots - 1)
    assert (one["segment_ids"] == 1).all()
    assert one["frame_index"].max() + 1 == frames
    assert many["segment_ids"].max() == min(geometry.frames, config.clip_limit, geometry.slots // 2)
    assert used(cases["temporal", "full row"]).all()
    assert cases["query", "full query"].inputs["segment_ids"].all()
    assert cases["query", "query cut to the limit"].inputs["segment_ids"].all()


def test_the_longest_positions_are_reached(setting: tuple[HeroConfig, RowGeometry, int]) -> None:
    config, geometry, _ = setting
    cases = cases_of(setting)
    assert max(case.inputs["position_ids"].max() for case in cases.values() if case.graph == "temporal") == (
        config.clip_limit - 1
    )
    one = cases["cross_modal", "full row, one segment"].inputs
    is_frame = one["frame_index"] >= 0
    frames = min(geometry.frames, config.clip_limit, geometry.slots - 1)
    assert one["position_ids"][is_frame].max() == frames - 1
    assert one["position_ids"][~is_frame].max() == geometry.slots - frames - 1


def test_a_one_token_segment_is_one_slot_without_a_frame(setting: tuple[HeroConfig, RowGeometry, int]) -> None:
    case = cases_of(setting)["cross_modal", "one-token segment"]
    assert used(case).sum() == 1
    assert (case.inputs["frame_index"] == -1).all()
    assert case.inputs["token_ids"][0, 0] == 2
    assert cases_of(setting)["query", "one-token query"].inputs["segment_ids"].sum() == 1


def test_frames_without_text_hold_no_token(setting: tuple[HeroConfig, RowGeometry, int]) -> None:
    case = cases_of(setting)["cross_modal", "frames without text"]
    assert (case.inputs["frame_index"][used(case)] >= 0).all()
    assert (case.inputs["token_ids"] == 1).all()


def test_an_empty_tail_row_is_what_packing_gives_when_there_is_nothing_to_pack(
    setting: tuple[HeroConfig, RowGeometry, int],
) -> None:
    config, geometry, _ = setting
    cases = cases_of(setting)
    features = np.zeros((1, config.feature_dim), np.float32)
    nothing = pack_videos([VideoInput(features, ())], geometry).cross_modal.arrays()
    token_ids, segment_ids = pack_queries([np.zeros(0, np.int32)], geometry.query_tokens)
    empty = {"cross_modal": nothing, "query": {"token_ids": token_ids, "segment_ids": segment_ids}}
    for graph, expected in empty.items():
        case = cases[graph, "empty tail row"]
        for name, array in expected.items():
            np.testing.assert_array_equal(case.inputs[name][-1:], array)
        assert not used(case)[-1].any()
        assert used(case)[0].any()
    temporal = cases["temporal", "empty tail row"]
    assert not any(array[-1].any() for array in temporal.inputs.values())
    assert not used(temporal)[-1].any()


def test_batches_of_one_and_of_the_largest_size(setting: tuple[HeroConfig, RowGeometry, int]) -> None:
    max_batch = setting[2]
    for (_, name), case in cases_of(setting).items():
        if name == "batch of one":
            assert len(used(case)) == 1
        if name == "maximal batch":
            assert len(used(case)) == max_batch


def test_matched_frames_are_like_the_output_of_stage_one(setting: tuple[HeroConfig, RowGeometry, int]) -> None:
    for (graph, _), case in cases_of(setting).items():
        if graph == "temporal":
            assert not case.inputs["matched"][~used(case)].any()


def test_videos_of_the_whole_path_are_what_their_names_say(setting: tuple[HeroConfig, RowGeometry, int]) -> None:
    config, geometry, max_batch = setting
    videos = CaseMaker(*setting).whole_path_cases()
    packed = {name: pack_videos(inputs, geometry) for name, inputs in videos.items()}
    assert [len(video.features) for video in videos["longest video"]] == [config.clip_limit]
    assert [len(video.features) for video in videos["one-frame video"]] == [1]
    assert not packed["video without subtitles"].regrouping.source_row.size
    assert len(packed["more rows than the maximal batch"].cross_modal.segment_ids) == max_batch + 1
    if config.clip_limit == 1:  # three subtitles on one frame
        targets = packed["shared frames"].regrouping
        assert len(targets.target_slot) == 3
        assert len(set(targets.target_slot.tolist())) == 1


def test_the_same_seed_makes_the_same_cases_and_another_seed_others() -> None:
    first, again, other = (
        grid(make_model(), GEOMETRY, MAX_BATCH, seed)[0].inputs["frame_features"] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or not np.array_equal(first, other)
