"""What callers of a gateway were told, held against its log. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from headrace.v1.prediction_pb2 import DEGRADATION_IDEMPOTENCY_LOCAL, ROLE_ANSWER, Prediction
from tests.chaos.gateway_callers import Got


@dataclass
class Account:
    """What is wrong with a log; empty lists where nothing is.

    Attributes:
        missing: answers that are not in the log, by prediction id.
        doubled: prediction ids that are in the log more than once.
        rivals: events with several first answers, none of which says that only its process knew of it.
        marked_rivals: the same where one says so: Redis was away, and another process was asked the second time.
        different: answers that the log has otherwise.
        vectors_missing: events of vectors that have no prediction.
        events_missing: events that were to be ingested, were answered, and are not in `events`.
        events_doubled: events that are in `events` more than once, without two marked first answers.
        events_unknown: events in `events` that were not to be ingested.
    """

    missing: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    rivals: list[str] = field(default_factory=list)
    marked_rivals: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    vectors_missing: list[str] = field(default_factory=list)
    events_missing: list[str] = field(default_factory=list)
    events_doubled: list[str] = field(default_factory=list)
    events_unknown: list[str] = field(default_factory=list)

    @property
    def wrong(self) -> dict[str, int]:
        """How many of each kind, where there are any; what is marked is not wrong."""
        counts = {name: len(found) for name, found in vars(self).items() if name != "marked_rivals"}
        return {name: count for name, count in counts.items() if count}


def account(
    answers: Sequence[Got],
    to_ingest: Iterable[str],
    vectors: Iterable[str],
    predictions: Sequence[Prediction],
    events: Sequence[str],
) -> Account:
    """Compare.

    Args:
        answers: all that callers got.
        to_ingest: ids of the events that were asked to be ingested.
        vectors: ids of the events whose vectors were sent.
        predictions: the log, in the order of its partitions.
        events: ids of the events in `events`.
    """
    found = Account()
    logged = {one.prediction_id: one for one in predictions}
    found.doubled = [one for one, count in Counter(one.prediction_id for one in predictions).items() if count > 1]
    first: defaultdict[str, dict[str, Prediction]] = defaultdict(dict)
    for one in predictions:
        if one.role == ROLE_ANSWER:
            first[one.event_id][one.prediction_id] = one
    for event_id, several in first.items():
        if len(several) > 1:
            marked = any(DEGRADATION_IDEMPOTENCY_LOCAL in one.degradations for one in several.values())
            (found.marked_rivals if marked else found.rivals).append(event_id)
    for answer in answers:
        record = logged.get(answer.prediction_id)
        if record is None:
            found.missing.append(answer.prediction_id)
            continue
        told = Got(record.event_id, record.prediction_id, record.score, record.decision, record.role)
        scores = {one.score for one in first[answer.event_id].values()}
        if told != answer or answer.score not in scores:
            found.different.append(f"{answer} logged as {told}, first answers {scores}")
    found.vectors_missing = [event_id for event_id in vectors if event_id not in first]
    wanted = set(to_ingest)
    ingested = Counter(events)
    answered = {one.event_id for one in answers}
    rivals = {*found.marked_rivals}
    found.events_missing = sorted((wanted & answered) - set(ingested))
    found.events_doubled = [one for one, count in ingested.items() if count > 1 and one not in rivals]
    found.events_unknown = sorted(set(ingested) - wanted)
    return found


def table(title: str, lines: Sequence[tuple[str, object]]) -> str:
    """Lines for people."""
    width = max(len(name) for name, _ in lines)
    shown = []
    for name, value in lines:
        text = value
        if isinstance(value, Counter):
            text = ", ".join(f"{key} {count:,}" for key, count in sorted(value.items())) or "0"
        elif isinstance(value, int):
            text = f"{value:,}"
        shown.append(f"  {name:<{width}}  {text}")
    return "\n".join([title, *shown])
