"""When champions are registered."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from headrace.rollout.mlflow_registry import Champion, Registrar
from headrace.v1 import model_pb2


def champion(number: int) -> Champion:
    return Champion(model_pb2.ModelVersion(version=f"{number:06d}"), f"fraud-{number:06d}", number)


class Recorder:
    """Keeps what is registered; holds each registration up until it is let go, and fails where told to."""

    def __init__(self) -> None:
        self.registered: list[str] = []
        self.began = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)
        self.fail = False

    def register(self, champion: Champion) -> None:
        self.began.release()
        assert self.go_on.acquire(timeout=10)
        if self.fail:
            raise OSError("no such host")
        self.registered.append(champion.model.version)


@contextmanager
def registrar(recorder: Recorder, interval_s: float) -> Iterator[Registrar]:
    made = Registrar(recorder, interval_s=interval_s)
    yield made
    made.close(10)


def test_the_first_at_once_and_no_other_within_the_interval() -> None:
    recorder = Recorder()
    recorder.go_on.release(5)
    with registrar(recorder, 3600) as made:
        made.offer(champion(0))
        assert recorder.began.acquire(timeout=10)
        for number in (1, 2):
            made.offer(champion(number))
    assert recorder.registered == ["000000"]


def test_the_newest_takes_the_place_of_those_that_wait() -> None:
    recorder = Recorder()
    with registrar(recorder, 0) as made:
        made.offer(champion(0))
        assert recorder.began.acquire(timeout=10)
        for number in range(1, 100):
            made.offer(champion(number))  # returns at once: the registry is busy with the first
        recorder.go_on.release(2)
        assert recorder.began.acquire(timeout=10)
    assert recorder.registered == ["000000", "000099"]


def test_a_failure_is_not_the_end() -> None:
    recorder = Recorder()
    recorder.fail = True
    recorder.go_on.release(2)
    with registrar(recorder, 0) as made:
        made.offer(champion(0))
        assert recorder.began.acquire(timeout=10)
        recorder.fail = False
        made.offer(champion(1))
        assert recorder.began.acquire(timeout=10)
    assert recorder.registered[-1] == "000001"
