"""The inputs of the comparison are what their names say, within the model's tables, in every geometry that is allowed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from hero_export.cases import Case, CaseMaker
from hero_export.geometry import check_geometry
from hero_export.graphs import graphs_of
from hero_sdk.rows import RowGeometry, VideoInput, pack_queries, pack_videos
from hero_train.config import HeroConfig
from tests.tiny_checkpoint import CONFIG, GEOMETRY, MAX_BATCH, make_model

SMALLEST = dataclasses.replace(CONFIG, clip_limit=1)
SETTINGS = [
    (CONFIG, GEOMETRY, MAX_BATCH),
    (CONFIG, RowGeometry(slots=2, frames=1, temporal_slots=20, query_tokens=1), 1),
    (SMALLEST, RowGeometry(slots=3, frames=3, temporal_slots=1, query_tokens=2), 2),
    (CONFIG, RowGeometry(slots=40, frames=16, temporal_slots=41, query_tokens=14), 3),
]


def cases_of(setting: tuple[HeroConfig, RowGeometry, int]) -> dict[tuple[str, str], Case]:
    return {(case.graph, case.name): case for case in CaseMaker(*setting).graph_cases()}


@pytest.fixture(params=SETTINGS, ids=["usual", "two slots", "one temporal slot", "up to the tables"])
def setting(request: pytest.FixtureRequest) -> tuple[HeroConfig, RowGeometry, int]:
    return request.param


def test_cases_are_inputs_that_the_graphs_take(setting: tuple[HeroConfig, RowGeometry, int]) -> None:
    config, geometry, max_batch = setting
    check_geometry(geometry, config, max_batch)
    graphs = graphs_of(make_model(config), geometry)
    for case in CaseMaker(config, geometry, max_batch).graph_cases():
        graph = graphs[case.graph]
        assert set(case.inputs) == {tensor.name for tensor in graph.inputs}
        batch = len(case.used)
        for tensor in graph.inputs:
            array = case.inputs[tensor.name]
            assert (array.dtype.name, array.shape) == (tensor.dtype, (batch, *tensor.shape[1:]))
        with torch.no_grad():  # an index beyond a table would raise
            outputs = graph.module(*(torch.from_numpy(case.inputs[tensor.name]) for tensor in graph.inputs))
        for output in outputs if isinstance(outputs, tuple) else [outputs]:
            assert output.isfinite().all()
        assert case.used.any()


def test_names_are_unique_and_none_is_empty(setting: tuple[HeroConfig, RowGeometry, int]) -> None:
    cases = CaseMaker(*setting).graph_cases()
    assert len({(case.graph, case.name) for case in cases}) == len(cases)
    assert all(case.name for case in cases)


def test_full_rows_have_no_empty_slot(setting: tuple[HeroConfig, RowGeometry, int]) -> None:
    config, geometry, _ = setting
    cases = cases_of(setting)
    for name in ("full row, one segment", "full row, many segments"):
        case = cases["cross_modal", name]
        assert len(case.used) == 1
        assert case.used.all()
    one, many = (cases["cross_modal", name].inputs for name in ("full row, one segment", "full row, many segments"))
    frames = min(geometry.frames, config.clip_limit, geometry.slots - 1)
    assert (one["segment_ids"] == 1).all()
    assert one["frame_index"].max() + 1 == frames
    assert many["segment_ids"].max() == min(geometry.frames, config.clip_limit, geometry.slots // 2)
    assert cases["temporal", "full row"].used.all()
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
    assert case.used.sum() == 1
    assert (case.inputs["frame_index"] == -1).all()
    assert case.inputs["token_ids"][0, 0] == 2
    assert cases_of(setting)["query", "one-token query"].inputs["segment_ids"].sum() == 1


def test_frames_without_text_hold_no_token(setting: tuple[HeroConfig, RowGeometry, int]) -> None:
    case = cases_of(setting)["cross_modal", "frames without text"]
    assert (case.inputs["frame_index"][case.used] >= 0).all()
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
        assert not case.used[-1].any()
        assert case.used[0].any()
    temporal = cases["temporal", "empty tail row"]
    assert not any(array[-1].any() for array in temporal.inputs.values())
    assert not temporal.used[-1].any()


def test_batches_of_one_and_of_the_largest_size(setting: tuple[HeroConfig, RowGeometry, int]) -> None:
    max_batch = setting[2]
    for (_, name), case in cases_of(setting).items():
        if name == "batch of one":
            assert len(case.used) == 1
        if name == "maximal batch":
            assert len(case.used) == max_batch


def test_matched_frames_are_like_the_output_of_stage_one(setting: tuple[HeroConfig, RowGeometry, int]) -> None:
    for (graph, _), case in cases_of(setting).items():
        if graph == "temporal":
            assert not case.inputs["matched"][~case.used].any()


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
        CaseMaker(CONFIG, GEOMETRY, MAX_BATCH, seed).graph_cases()[0].inputs["frame_features"] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert first.shape != other.shape or not np.array_equal(first, other)
