"""Many events through a gateway: in calls of many rows, or one by one over a stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from headrace.cli.event_files import Row, RowError
from headrace.cli.predict_output import Write
from headrace.client import CallError, CallOptions, EventInput, InvalidInputError, PredictionClient, Violation
from headrace.client.gathering import blamed, single_responses
from headrace.v1.prediction_service_pb2 import PredictResponse

BATCH_ROWS = 1024
IN_FLIGHT = 4

Refuse = Callable[[str], None]
"""Is told of each event that has no answer, in a line."""


@dataclass
class Tally:
    """How it went.

    Attributes:
        answered: events with an answer.
        degraded: of these, those whose answer lacked something.
        refused: events without one.
    """

    answered: int = 0
    degraded: int = 0
    refused: int = 0

    def count(self, answer: PredictResponse) -> None:
        """An answer has come."""
        self.answered += 1
        self.degraded += bool(answer.degradations)

    def __str__(self) -> str:
        return f"{self.answered:,} answered ({self.degraded:,} degraded), {self.refused:,} refused"


def by_batches(
    client: PredictionClient, rows: Iterable[Row], asked: CallOptions, write: Write, refuse: Refuse
) -> Tally:
    """Score events in calls of many; answers come in their order.

    Raises:
        CallError: a call has no answer for a reason that is in no event.
    """
    tally = Tally()

    def finish(one: Future[list[tuple[str, PredictResponse | str]]]) -> None:
        for where, answer in one.result():
            if isinstance(answer, str):
                tally.refused += 1
                refuse(f"{where}: {answer}")
            else:
                tally.count(answer)
                write(answer)

    remaining = iter(rows)
    with ThreadPoolExecutor(IN_FLIGHT, "headrace-predict") as threads:
        under_way: deque[Future[list[tuple[str, PredictResponse | str]]]] = deque()
        while part := list(islice(remaining, BATCH_ROWS)):
            under_way.append(threads.submit(_batch, client, part, asked))
            if len(under_way) >= IN_FLIGHT:
                finish(under_way.popleft())
        while under_way:
            finish(under_way.popleft())
    return tally


def by_stream(client: PredictionClient, rows: Iterable[Row], asked: CallOptions, write: Write, refuse: Refuse) -> Tally:
    """Score events one by one over a stream, as they come; answers come in any order.

    Raises:
        CallError: there is no gateway.
    """
    tally = Tally()

    def no(where: str, why: str) -> None:
        tally.refused += 1
        refuse(f"{where}: {why}")

    def events() -> Iterator[EventInput]:
        for where, event in rows:
            if isinstance(event, RowError):
                no(where, str(event))
            else:
                yield event

    for answer in client.stream_predict(events(), **asked):
        if answer.HasField("error"):
            no(f"event {answer.event_id}", answer.error.message)
        else:
            tally.count(answer.prediction)
            write(answer.prediction)
    return tally


def _batch(client: PredictionClient, rows: list[Row], asked: CallOptions) -> list[tuple[str, PredictResponse | str]]:
    """The answer to each row, or why it has none."""
    found: dict[int, PredictResponse | str] = {}
    assert client.schema is not None
    good = []
    for i, (_, event) in enumerate(rows):
        if isinstance(event, RowError):
            found[i] = str(event)
            continue
        try:
            good.append((i, client.schema.pack(event)))
        except InvalidInputError as error:
            found[i] = _said(error.violations)
    while good:
        try:
            answers = single_responses(client.predict_events([event for _, event in good], **asked), len(good))
        except CallError as error:
            wrong = blamed(error.violations, len(good))
            if not wrong:
                raise
            found |= {good[number][0]: _said(violations) for number, violations in wrong.items()}
            good = [one for number, one in enumerate(good) if number not in wrong]
        else:
            found |= {i: answer for (i, _), answer in zip(good, answers, strict=True)}
            break
    return [(where, found[i]) for i, (where, _) in enumerate(rows)]


def _said(violations: Iterable[Violation]) -> str:
    return "; ".join(one.description for one in violations)
