"""A random stream of card payments with everything that goes wrong in one, and labels for it."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from headrace.pipeline import DAY, HOUR, Pipeline
from headrace.v1.event_pb2 import Event, Label
from headrace.v1.prediction_pb2 import OUTCOME_KIND_LABELLED, Outcome, Prediction

PARTITIONS = 4
START = 1_600_000_000_000_000
JSON_HEADERS = [("content-type", b"application/json")]


@dataclass(frozen=True)
class Sent:
    """A record for `events`."""

    partition: int
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


class Payments:
    """Payments over 45 days: late ones, copies, unusable ones, and ones that the gateway has answered."""

    def __init__(
        self, pipeline: Pipeline, count: int, seed: int, *, customers: int = 300, terminals: int = 150
    ) -> None:
        random = np.random.default_rng(seed)
        self._pipeline = pipeline
        self._random = random
        times = START + np.sort(random.integers(0, 45 * DAY, count)) + random.integers(-HOUR, HOUR, count)
        of = random.integers(0, 300, count)
        self.events = [
            Event(
                event_id=f"e{i}",
                event_time_us=int(times[i]),
                schema_fingerprint=pipeline.schema_fingerprint,
                texts=[f"c{of[i]}", f"t{random.integers(0, 150)}"],
                numbers=[float(random.integers(1, 50_000))],
                answered=bool(random.random() < 0.02),
            )
            for i in range(count)
        ]
        self.records: list[Sent] = []
        for i, event in enumerate(self.events):
            self._add(event, int(of[i]) % PARTITIONS)
            if random.random() < 0.03:  # sent again, sometimes to another partition
                copy = max(i - int(random.integers(0, 30)), 0)
                again = int(random.integers(0, PARTITIONS)) if random.random() < 0.3 else int(of[copy]) % PARTITIONS
                self._add(self.events[copy], again)
            if random.random() < 0.01:
                self.records.append(Sent(int(random.integers(0, PARTITIONS)), b"bad", b"no event at all", []))

    def _add(self, event: Event, partition: int) -> None:
        key = event.texts[0].encode()
        if self._random.random() < 0.2:
            value = json.dumps(
                {
                    "eventId": event.event_id,
                    "eventTimeUs": str(event.event_time_us),
                    "fields": {
                        "customer_id": event.texts[0],
                        "terminal_id": event.texts[1],
                        "amount_cents": event.numbers[0],
                    },
                    "answered": event.answered,
                }
            ).encode()
            self.records.append(Sent(partition, key, value, JSON_HEADERS))
        else:
            self.records.append(Sent(partition, key, event.SerializeToString(), []))

    def outcomes(self, share: float = 0.3) -> list[Outcome]:
        """Labels of a share of the payments, a week later; a few belong to events that were never ingested."""
        chosen = np.flatnonzero(self._random.random(len(self.events)) < share)
        return [self._outcome(self.events[i], self._random.random() < 0.5) for i in chosen.tolist()]

    def _outcome(self, event: Event, fraud: bool) -> Outcome:
        return outcome(event, fraud, ingested=self._random.random() < 0.95)


def outcome(event: Event, fraud: bool, *, ingested: bool = True) -> Outcome:
    """The outcome of an event, with its label a week later."""
    prediction = Prediction(
        event_id=event.event_id, event_time_us=event.event_time_us, entities=list(event.texts), ingested=ingested
    )
    label = Label(event_id=event.event_id, value=float(fraud), label_time_us=event.event_time_us + 7 * DAY)
    return Outcome(prediction=prediction, label=label, kind=OUTCOME_KIND_LABELLED)
