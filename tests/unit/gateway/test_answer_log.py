"""One answer per event id, whoever asks when, and whatever end a process comes to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import redis.exceptions

from headrace.gateway.answer_log import AnswerLog, NewAnswers
from headrace.gateway.answer_records import AnswerRecords, LocalRecords
from headrace.gateway.circuit_breaker import CircuitBreaker
from headrace.gateway.spool import Spool, SpoolRun
from headrace.platform.redis_connection import RedisConnections
from headrace.v1.prediction_pb2 import DEGRADATION_IDEMPOTENCY_LOCAL, ROLE_ANSWER, ROLE_REPEAT, Prediction


class SharedRecords:
    """What several processes share, in the place of Redis."""

    def __init__(self) -> None:
        self.records: dict[str, bytes] = {}
        self.away = False
        self.before_reply: Callable[[], None] = lambda: None

    async def execute(self, *commands: Sequence[Any]) -> list[bytes | None]:
        if self.away:
            raise redis.exceptions.ConnectionError("away")
        found = []
        for name, key, record, *options in commands:
            assert (name, options[0], options[2:]) == ("SET", "PX", ["NX", "GET"])
            found.append(self.records.get(key))
            self.records.setdefault(key, record)
        await asyncio.sleep(0)
        self.before_reply()
        return found


class Killed(BaseException):
    """The process ended here."""


class Process:
    """What one gateway process has."""

    def __init__(self, shared: SharedRecords, directory: Path) -> None:
        self.now = 0.0
        breaker = CircuitBreaker(0.5, lambda: self.now)
        self.spool = Spool(directory, limit_bytes=1 << 20, position=0, changed=lambda: None)
        local = LocalRecords(300, 1 << 20, lambda: self.now)
        records = AnswerRecords(
            cast("RedisConnections", shared), "fraud", local, window_s=300, timeout_s=1, breaker=breaker
        )
        self.log = AnswerLog(self.spool, records)

    async def answer(self, *drafts: Draft) -> list[Prediction]:
        """What the callers of a batch get."""
        logged = await self.log.log(
            NewAnswers(
                [draft.prediction.event_id for draft in drafts],
                [draft.prediction.SerializeToString() for draft in drafts],
                [draft.event for draft in drafts],
                [b"customer" if draft.event else b"" for draft in drafts],
            )
        )
        answers = [logged.repeats.get(index, draft.prediction) for index, draft in enumerate(drafts)]
        if logged.only_local:
            for answer in answers:
                if answer.role == ROLE_ANSWER:
                    answer.degradations.append(DEGRADATION_IDEMPOTENCY_LOCAL)
        return answers

    def logged(self) -> list[Prediction]:
        return [Prediction.FromString(run.predictions[row]) for run, row in self._shipped()]

    def events(self) -> list[bytes]:
        return [run.events[row] for run, row in self._shipped() if run.events and run.events[row]]

    def _shipped(self) -> Iterator[tuple[SpoolRun, int]]:
        for run in self.spool.ready(1000):
            for row, ship in enumerate(run.ship or ()):
                if ship:
                    yield run, row


class Draft(NamedTuple):
    prediction: Prediction
    event: bytes


def draft(event_id: str, prediction_id: str, score: float = 0.5, event: bytes = b"") -> Draft:
    prediction = Prediction(
        event_id=event_id, prediction_id=prediction_id, score=score, role=ROLE_ANSWER, ingested=bool(event)
    )
    return Draft(prediction, event)


def pending(one: Draft) -> SpoolRun:
    return SpoolRun(
        [one.prediction.SerializeToString()], [one.prediction.event_id.encode()], [one.event], [b"customer"]
    )


def roles(predictions: Sequence[Prediction]) -> list[tuple[str, str, int]]:
    return [(one.event_id, one.prediction_id, one.role) for one in predictions]


async def test_of_two_answers_in_one_batch_the_second_is_a_repeat(tmp_path: Path) -> None:
    process = Process(SharedRecords(), tmp_path)
    answers = await process.answer(draft("e", "1", 0.1, b"event"), draft("e", "2", 0.2, b"event"))
    assert roles(answers) == [("e", "1", ROLE_ANSWER), ("e", "2", ROLE_REPEAT)]
    assert [one.score for one in answers] == [0.1, 0.1]
    assert roles(process.logged()) == [("e", "1", ROLE_ANSWER), ("e", "2", ROLE_REPEAT)]
    assert process.events() == [b"event"]
    assert [one.ingested for one in answers] == [True, False]


async def test_of_two_processes_one_answers_and_the_other_repeats_it(tmp_path: Path) -> None:
    shared = SharedRecords()
    one, two = Process(shared, tmp_path / "1"), Process(shared, tmp_path / "2")
    answers = await asyncio.gather(one.answer(draft("e", "1", 0.1)), two.answer(draft("e", "2", 0.2)))
    assert [a[0].score for a in answers] == [0.1, 0.1]
    assert sorted(one.role for p in (one, two) for one in p.logged()) == [ROLE_ANSWER, ROLE_REPEAT]


async def test_without_the_shared_records_repeats_are_recognised_in_the_process_and_answers_are_marked(
    tmp_path: Path,
) -> None:
    shared = SharedRecords()
    process = Process(shared, tmp_path)
    shared.away = True
    first = await process.answer(draft("e", "1", 0.1, b"event"))
    second = await process.answer(draft("e", "2", 0.2, b"event"))
    assert list(first[0].degradations) == [DEGRADATION_IDEMPOTENCY_LOCAL]
    assert (second[0].role, second[0].score) == (ROLE_REPEAT, 0.1)
    assert roles(process.logged()) == [("e", "1", ROLE_ANSWER), ("e", "2", ROLE_REPEAT)]
    assert list(process.logged()[0].degradations) == [DEGRADATION_IDEMPOTENCY_LOCAL]
    assert process.events() == [b"event"]


async def test_an_answer_given_while_the_shared_records_were_away_is_still_the_first(tmp_path: Path) -> None:
    shared = SharedRecords()
    process = Process(shared, tmp_path)
    shared.away = True
    await process.answer(draft("e", "1", 0.1))
    assert process.log._records.local(["e", "f"])[0] is not None
    process.now += 400
    assert process.log._records.local(["e"]) == [None]


async def test_killed_between_claim_and_decision_the_answer_is_logged_by_the_next_process(tmp_path: Path) -> None:
    shared = SharedRecords()
    process = Process(shared, tmp_path / "1")

    def kill() -> None:
        raise Killed

    shared.before_reply = kill
    try:
        await process.answer(draft("e", "1", 0.1, b"event"))
    except Killed:
        process.spool.close()
    shared.before_reply = lambda: None
    # The caller asks another process, which has its answer from the record.
    other = Process(shared, tmp_path / "2")
    repeated = await other.answer(draft("e", "2", 0.2, b"event"))
    assert (repeated[0].role, repeated[0].score) == (ROLE_REPEAT, 0.1)
    again = Process(shared, tmp_path / "1")
    assert again.logged() == []
    await again.log.resolve(1)
    assert roles(again.logged()) == [("e", "1", ROLE_ANSWER)]
    assert again.events() == [b"event"]
    assert other.events() == []


async def test_killed_before_the_claim_the_answer_gives_way_to_the_one_of_another_process(tmp_path: Path) -> None:
    shared = SharedRecords()
    process = Process(shared, tmp_path / "1")
    process.spool.append(pending(draft("e", "1", 0.1, b"event")))
    process.spool.close()
    other = Process(shared, tmp_path / "2")
    answered = await other.answer(draft("e", "2", 0.2, b"event"))
    assert (answered[0].role, answered[0].score) == (ROLE_ANSWER, 0.2)
    again = Process(shared, tmp_path / "1")
    await again.log.resolve(1)
    assert again.logged() == []
    assert again.spool.pending() == []
    assert other.events() == [b"event"]


async def test_what_is_pending_is_logged_when_the_records_stay_away(tmp_path: Path) -> None:
    shared = SharedRecords()
    process = Process(shared, tmp_path)
    process.spool.append(pending(draft("e", "1")))
    shared.away = True
    await process.log.resolve(0)
    assert roles(process.logged()) == [("e", "1", ROLE_ANSWER)]
