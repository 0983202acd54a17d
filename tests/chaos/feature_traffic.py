"""An endless seeded stream of card payments and labels for them, with everything that goes wrong in one."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from headrace.pipeline import DAY, HOUR, Pipeline
from headrace.pipeline.time_units import MINUTE
from headrace.v1.event_pb2 import Event, Label
from headrace.v1.prediction_pb2 import OUTCOME_KIND_CORRECTED, OUTCOME_KIND_LABELLED, Outcome, Prediction
from tests.integration.features.payments import PARTITIONS, START, Sent

SPACING = 2 * MINUTE
"""Event time between two payments: 100,000 of them last 139 days, so logs are trimmed many times."""
QUIET = 10_000
"""Of three times as many payments, a third has none for the last partition."""
BAD = b"bad:"
"""A record that must be set aside has this key, then the reason."""


@dataclass(frozen=True)
class Labelled:
    """A label that may be corrected later."""

    event: Event
    fraud: bool
    known: int


class PaymentTraffic:
    """Payments of hot and cold keys: late ones, copies, equal times, unusable ones, ones the gateway has answered.

    One partition is idle at times.
    """

    def __init__(self, pipeline: Pipeline, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._fingerprint = pipeline.schema_fingerprint
        self._recent: deque[Event] = deque(maxlen=200)
        self._unlabelled: deque[Event] = deque(maxlen=5_000)
        self._labelled: deque[Labelled] = deque(maxlen=2_000)
        self.made = 0

    def events(self, count: int) -> list[Sent]:
        """The next records for `events`, copies and unusable ones among them."""
        random = self._random
        times = START + SPACING * np.arange(self.made, self.made + count) + random.integers(-6 * HOUR, 6 * HOUR, count)
        same = random.random(count) < 0.2
        times[same] -= times[same] % HOUR
        late = random.random(count) < 0.004
        times[late] -= random.integers(2 * DAY, 20 * DAY, int(late.sum()))
        hot = random.random((2, count)) < [[0.15], [0.05]]
        customers = np.where(hot[0], random.integers(0, 3, count), random.integers(3, 600, count))
        terminals = np.where(hot[1], 0, random.integers(1, 300, count))
        records = []
        for i in range(count):
            event = Event(
                event_id=f"e{self.made + i}",
                event_time_us=int(times[i]),
                schema_fingerprint=self._fingerprint,
                texts=[f"c{customers[i]}", f"t{terminals[i]}"],
                numbers=[float(random.integers(1, 50_000))],
                answered=bool(random.random() < 0.02),
            )
            home = int(customers[i]) % PARTITIONS
            records.append(_sent(event, home))
            self._recent.append(event)
            if random.random() < 0.3:
                self._unlabelled.append(event)
            if random.random() < 0.03:  # sent again, sometimes to another partition
                copy = self._recent[int(random.integers(0, len(self._recent)))]
                own = int(copy.texts[0][1:]) % PARTITIONS
                records.append(_sent(copy, int(random.integers(0, PARTITIONS)) if random.random() < 0.3 else own))
            if random.random() < 0.01:
                records.append(self._unusable(event))
        self.made += count
        if self.made // QUIET % 3 == 1:
            records = [record for record in records if record.partition != PARTITIONS - 1]
        # Far apart, or the second would confirm the first.
        records.insert(count // 2, self._out_of_time(records[len(records) // 2], 30 * DAY, "future"))
        records.insert(count // 4, self._out_of_time(records[len(records) // 4], -90 * DAY, "too_late"))
        return records

    def outcomes(self, count: int) -> list[Outcome]:
        """The next labels, and a few corrections; some belong to events that were never ingested."""
        random, made = self._random, []
        for _ in range(min(count, len(self._unlabelled))):
            event, fraud = self._unlabelled.popleft(), bool(random.random() < 0.5)
            known = event.event_time_us + int(random.integers(3 * DAY, 10 * DAY))
            made.append(_outcome(event, fraud, known, ingested=bool(random.random() < 0.95)))
            if made[-1].prediction.ingested:
                self._labelled.append(Labelled(event, fraud, known))
        for _ in range(min(count // 10, len(self._labelled))):
            old = self._labelled.popleft()
            known = old.known + int(random.integers(1, 5 * DAY))
            corrected = _outcome(old.event, not old.fraud, known)
            corrected.kind = OUTCOME_KIND_CORRECTED
            corrected.previous_label = float(old.fraud)
            made.append(corrected)
        return made

    def _unusable(self, event: Event) -> Sent:
        broken = Event.FromString(event.SerializeToString())
        reason = str(self._random.choice(["undecodable", "out_of_range", "missing_field", "wrong_fingerprint"]))
        match reason:
            case "out_of_range":
                broken.numbers[0] = 1e12
            case "missing_field":
                broken.event_id = ""
            case "wrong_fingerprint":
                broken.schema_fingerprint = 1
        value = b"no event at all" if reason == "undecodable" else broken.SerializeToString()
        return Sent(int(self._random.integers(0, PARTITIONS)), BAD + reason.encode(), value, [])

    def _out_of_time(self, beside: Sent, by: int, reason: str) -> Sent:
        near = self._recent[-1]
        event = Event.FromString(near.SerializeToString())
        event.event_id += f"-{reason}"
        event.event_time_us += by
        return Sent(beside.partition, BAD + reason.encode(), event.SerializeToString(), [])


def _sent(event: Event, partition: int) -> Sent:
    return Sent(partition, event.texts[0].encode(), event.SerializeToString(), [])


def _outcome(event: Event, fraud: bool, known: int, *, ingested: bool = True) -> Outcome:
    prediction = Prediction(
        event_id=event.event_id, event_time_us=event.event_time_us, entities=list(event.texts), ingested=ingested
    )
    label = Label(event_id=event.event_id, value=float(fraud), label_time_us=known)
    return Outcome(prediction=prediction, label=label, kind=OUTCOME_KIND_LABELLED)
