"""Which versions are registered, and when."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import pytest

from headrace.rollout import registrar as registrar_module
from headrace.rollout.registrar import Candidate, Registrar, candidates
from headrace.v1.model_pb2 import ModelVersion, RoutedVersion, RouteTable


def routed(number: int, recipe: str = "a") -> RoutedVersion:
    return RoutedVersion(model=ModelVersion(version=f"{number:06d}", recipe_fingerprint=recipe))


def table(champion: int, recipe: str = "a", *, epoch: int = 1, **routes: list[RoutedVersion]) -> RouteTable:
    made = RouteTable(epoch=epoch, champion=routed(champion, recipe))
    for one in routes.get("canary", ()):
        made.canary.CopyFrom(one)
    made.shadows.extend(routes.get("shadows", ()))
    made.previous.extend(routes.get("previous", ()))
    return made


class Recorder:
    """Keeps what is registered; holds each registration up until it is let go, and fails where told to."""

    def __init__(self) -> None:
        self.registered: list[tuple[str, str]] = []
        self.retained: list[tuple[set[str], set[str]]] = []
        self.began = threading.Semaphore(0)
        self.done = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.fail = False

    def register(self, candidate: Candidate) -> None:
        self.began.release()
        assert self.go_on.acquire(timeout=10)
        if self.fail:
            raise OSError("no such host")
        self.registered.append((candidate.model.version, candidate.alias))

    def retain(self, in_use: Collection[str], aliases: Collection[str]) -> None:
        self.retained.append((set(in_use), set(aliases)))
        self.done.release()


@contextmanager
def registrar(recorder: Recorder, interval_s: float) -> Iterator[Registrar]:
    made = Registrar(recorder, interval_s=interval_s)
    yield made
    made.close(10)


def test_candidates_are_what_a_table_scores_with() -> None:
    full = table(5, canary=[routed(7, "b")], shadows=[routed(8, "c"), routed(9, "d")], previous=[routed(4)])
    assert [(one.model.version, one.route, one.alias) for one in candidates(full)] == [
        ("000005", "champion", "champion"),
        ("000007", "canary", "challenger"),
        ("000008", "shadow", ""),
        ("000009", "shadow", ""),
    ]
    without_canary = candidates(table(5, shadows=[routed(8, "c"), routed(9, "d")]))
    assert [one.alias for one in without_canary] == ["champion", "challenger", ""]
    assert candidates(RouteTable()) == []


def test_the_first_at_once_and_no_refresh_within_the_interval() -> None:
    recorder = Recorder()
    recorder.go_on.release(5)
    with registrar(recorder, 3600) as made:
        made.offer(table(0))
        assert recorder.done.acquire(timeout=10)
        for number in (1, 2):
            made.offer(table(number))
    assert recorder.registered == [("000000", "champion")]


def test_another_recipe_waits_for_no_interval() -> None:
    recorder = Recorder()
    recorder.go_on.release(5)
    with registrar(recorder, 3600) as made:
        made.offer(table(0))
        assert recorder.done.acquire(timeout=10)
        made.offer(table(0, shadows=[routed(1, "b")]))
        assert recorder.done.acquire(timeout=10)
        made.offer(table(1, "b", previous=[routed(0)]))
        assert recorder.done.acquire(timeout=10)
    assert recorder.registered == [("000000", "champion"), ("000001", "challenger"), ("000001", "champion")]
    assert recorder.retained[-1] == ({"000001", "000000"}, {"champion"})


def test_the_newest_takes_the_place_of_those_that_wait() -> None:
    recorder = Recorder()
    with registrar(recorder, 0) as made:
        made.offer(table(0))
        assert recorder.began.acquire(timeout=10)
        for number in range(1, 100):
            made.offer(table(number))  # returns at once: the registry is busy with the first
        recorder.go_on.release(2)
        assert recorder.done.acquire(timeout=10)
        assert recorder.done.acquire(timeout=10)
        made.offer(table(99))  # the adopted table: nothing new
    assert recorder.registered == [("000000", "champion"), ("000099", "champion")]


def test_what_loses_its_route_is_not_registered() -> None:
    recorder = Recorder()
    with registrar(recorder, 0) as made:
        made.offer(table(0, shadows=[routed(1, "b")]))
        assert recorder.began.acquire(timeout=10)
        made.offer(table(0))
        recorder.go_on.release(2)
        assert recorder.done.acquire(timeout=10)
    assert [version for version, _ in recorder.registered] in (["000000"], ["000001"])


def test_a_failure_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registrar_module, "RETRY_S", 0.01)
    recorder = Recorder()
    recorder.fail = True
    with registrar(recorder, 0) as made:
        made.offer(table(0))
        for _ in range(3):
            assert recorder.began.acquire(timeout=10)
            recorder.go_on.release()
        assert recorder.began.acquire(timeout=10)
        recorder.fail = False
        recorder.go_on.release()
        assert recorder.done.acquire(timeout=10)
    assert recorder.registered == [("000000", "champion")]
