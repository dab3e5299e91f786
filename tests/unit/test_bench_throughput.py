"""Closed-loop clients: what they count, how long they go on, and that nothing is lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from hero_bench.throughput import WARM_UP_CALLS, ThroughputSettings, run_load
from hero_sdk import EngineError, InputError, ServerError


class Service:
    """Answers after a while, and fails as told; counts its calls and how many there were at once."""

    def __init__(self, seconds: float, fail: Callable[[int], Exception | None] = lambda number: None) -> None:
        self.seconds = seconds
        self.fail = fail
        self.calls = self.running = self.most = 0
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            self.calls += 1
            number = self.calls
            self.running += 1
            self.most = max(self.most, self.running)
        try:
            time.sleep(self.seconds)
            if error := self.fail(number):
                raise error
        finally:
            with self._lock:
                self.running -= 1


@pytest.mark.parametrize("clients", [1, 3])
def test_every_answered_request_is_counted_once(clients: int) -> None:
    service = Service(0.01)
    load = run_load("sleep", [service] * clients, 0.3)
    assert len(load.latencies) == service.calls - clients * WARM_UP_CALLS
    assert service.most == load.clients == clients
    assert (load.errors, load.messages) == ({}, {})
    assert 0.3 <= load.seconds < 2
    assert load.per_second == pytest.approx(len(load.latencies) / load.seconds)
    assert min(load.latencies) >= 0.01
    # A client waits for its answer before it asks again.
    assert len(load.latencies) <= clients * load.seconds / 0.01


def test_requests_that_run_at_the_end_are_waited_for() -> None:
    service = Service(0.3)
    load = run_load("sleep", [service], 0.1)
    assert len(load.latencies) == 1
    assert load.seconds >= load.latencies[0] >= 0.3
    assert service.running == 0


def test_errors_are_counted_by_kind_and_no_latency_is_taken_from_them() -> None:
    def fail(number: int) -> Exception | None:
        if number <= WARM_UP_CALLS or number % 3 == 0:
            return None
        return ServerError(f"gone {number}") if number % 3 == 1 else EngineError(f"broken {number}")

    service = Service(0.001, fail)
    load = run_load("sleep", [service], 0.3)
    numbers = range(WARM_UP_CALLS + 1, service.calls + 1)
    assert load.errors == {
        "ServerError": sum(number % 3 == 1 for number in numbers),
        "EngineError": sum(number % 3 == 2 for number in numbers),
    }
    assert load.messages == {"ServerError": "gone 4", "EngineError": "broken 5"}
    assert len(load.latencies) == sum(number % 3 == 0 for number in numbers)


def test_a_server_that_is_gone_is_not_asked_in_a_frenzy() -> None:
    def fail(number: int) -> Exception | None:
        return ServerError("gone") if number > WARM_UP_CALLS else None

    service = Service(0.0, fail)
    load = run_load("sleep", [service], 0.2)
    assert load.latencies == ()
    assert load.summary is None
    assert 1 <= load.errors["ServerError"] <= 0.2 / 0.01 + 1


def test_a_server_that_answers_nothing_is_an_error_before_the_measuring() -> None:
    service = Service(0.0, lambda number: ServerError("gone"))
    with pytest.raises(ServerError, match="gone"):
        run_load("sleep", [service], 5.0)
    assert service.calls == 1


def test_a_mistake_in_the_program_is_not_counted_but_raised() -> None:
    service = Service(0.001, lambda number: TypeError("mistake") if number > WARM_UP_CALLS + 5 else None)
    with pytest.raises(TypeError, match="mistake"):
        run_load("sleep", [service], 0.2)


def test_clients_that_only_wait_keep_no_core_busy_and_one_that_computes_keeps_one() -> None:
    waiting = run_load("sleep", [Service(0.05)] * 2, 0.3)
    assert waiting.client_cores < 0.5

    def compute() -> None:
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass

    began = time.process_time()
    computing = run_load("compute", [compute], 0.3)
    warm_up = WARM_UP_CALLS * 0.02
    assert computing.client_cores * computing.seconds == pytest.approx(time.process_time() - began - warm_up, abs=0.05)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "no server to measure.*--serve"),
        ({"serve": True, "clients": ()}, r"from 1 to 256"),
        ({"serve": True, "clients": (1, 0)}, r"\(1, 0\); expected numbers from 1 to 256"),
        ({"serve": True, "clients": (257,)}, r"257.*from 1 to 256"),
        ({"serve": True, "seconds": 0.0}, "seconds is 0"),
        ({"serve": True, "seconds": float("nan")}, "seconds is nan"),
    ],
)
def test_settings_that_measure_nothing_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ThroughputSettings(**settings)
