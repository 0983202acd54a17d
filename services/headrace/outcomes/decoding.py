"""Records of `predictions` and `labels` into what is joined, forwarded or set aside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

from headrace.outcomes.event_state import UsedLabel
from headrace.outcomes.join import LabelArrival, PredictionArrival
from headrace.pipeline import Label as DeclaredLabel
from headrace.pipeline.errors import EventError
from headrace.pipeline.schema import LATEST_TIME_US, check_identity
from headrace.platform.event_codec import is_json, parse
from headrace.platform.partitioning import murmur2_partitions
from headrace.platform.rejected_records import reject
from headrace.v1.event_pb2 import Label, Rejected
from headrace.v1.prediction_pb2 import ROLE_ANSWER, ROLE_REPEAT, ROLE_SHADOW, Prediction

SERVICE = "outcomes"
ROLES = frozenset({ROLE_ANSWER, ROLE_REPEAT, ROLE_SHADOW})
BINARY = DeclaredLabel()

Arrival = TypeVar("Arrival", PredictionArrival, LabelArrival)


class Record(Protocol):
    """What is used of a consumed record."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Misplaced:
    """A record that lies in another partition than its event id belongs to.

    Attributes:
        record: as read.
        event_id: key that it is forwarded with.
        partition: where it belongs.
    """

    record: Record
    event_id: bytes
    partition: int


@dataclass(frozen=True, slots=True)
class Decoded:
    """Records of one partition, told apart, each kind in offset order."""

    predictions: list[PredictionArrival] = field(default_factory=list)
    labels: list[LabelArrival] = field(default_factory=list)
    misplaced: list[Misplaced] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


def decode(
    predictions: Sequence[Record], labels: Sequence[Record], partitions: int, declared: DeclaredLabel = BINARY
) -> Decoded:
    """Decode and check the records of one partition.

    Args:
        predictions: of that partition of `predictions`, in offset order.
        labels: of the same partition of `labels`, in offset order.
        partitions: number of partitions of each topic.
        declared: which values are labels.
    """
    decoded = Decoded()
    _sort(predictions, _prediction, partitions, decoded.predictions, decoded)
    _sort(labels, partial(_label, declared=declared), partitions, decoded.labels, decoded)
    return decoded


def _sort(
    records: Sequence[Record],
    read: Callable[[Record], Arrival],
    partitions: int,
    arrivals: list[Arrival],
    decoded: Decoded,
) -> None:
    """Tell records of one topic apart."""
    usable: list[Record] = []
    for record in records:
        try:
            arrivals.append(read(record))
        except EventError as error:
            decoded.rejected.append(reject(record, error, SERVICE))
        else:
            usable.append(record)
    # All at once, which takes a fraction of the time.
    belong = murmur2_partitions([one.event_id for one in arrivals], partitions)
    if all(record.partition == partition for record, partition in zip(usable, belong, strict=True)):
        return
    here: list[Arrival] = []
    for record, arrival, partition in zip(usable, arrivals, belong, strict=True):
        if record.partition == partition:
            here.append(arrival)
        else:
            decoded.misplaced.append(Misplaced(record, arrival.event_id, partition))
    arrivals[:] = here


def _prediction(record: Record) -> PredictionArrival:
    json = bool(record.headers) and is_json(record.headers)
    message = parse(record.value, json, Prediction())
    check_identity(message.event_id, message.event_time_us)
    if message.role not in ROLES:
        raise EventError("missing_field", "role", f"role is {message.role}; allowed are answer, shadow and repeat")
    value = message.SerializeToString() if json else record.value
    assert value is not None
    return PredictionArrival(
        message.event_id.encode(),
        record.offset,
        message.event_time_us,
        message.role,
        message.prediction_id,
        message.model_version,
        message.score,
        value,
    )


def _label(record: Record, declared: DeclaredLabel) -> LabelArrival:
    message = parse(record.value, bool(record.headers) and is_json(record.headers), Label())
    # A label names no event time; one in the allowed range stands in for it, so that the id alone is checked.
    check_identity(message.event_id, 1)
    time_us, value = message.label_time_us, message.value
    if time_us == 0:
        raise EventError(
            "missing_field", "label_time_us", "label_time_us is missing; it is required, in microseconds since 1970"
        )
    if not 0 < time_us < LATEST_TIME_US:
        raise EventError(
            "out_of_range",
            "label_time_us",
            f"label_time_us is {time_us}; allowed are the years 1970 to 2200 in microseconds",
        )
    if problem := declared.refusal(value):
        raise EventError("out_of_range", "value", problem)
    return LabelArrival(message.event_id.encode(), UsedLabel(value, time_us, record.offset))
