"""Exactly once, whatever the order of reading, the duplicates and the crashes: against an oracle in plain Python."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from headrace.outcomes.errors import RecordsLostError
from headrace.outcomes.join import JoinRules
from headrace.outcomes.progress import Positions, Progress
from headrace.v1.event_pb2 import Label
from headrace.v1.prediction_pb2 import ROLE_ANSWER, ROLE_REPEAT, ROLE_SHADOW, Prediction
from tests.unit.outcomes.logs import Crash, Logs, MemoryStore, join_to_the_end, label, prediction

HORIZON, LATENESS, JUMP = 100, 10, 20
RULES = JoinRules(0, "p", "l", HORIZON, LATENESS, JUMP, "negative")
EVENTS = [f"e{n}" for n in range(12)]
ROLES = st.sampled_from([ROLE_ANSWER, ROLE_ANSWER, ROLE_ANSWER, ROLE_REPEAT, ROLE_SHADOW])


@st.composite
def logs_of_predictions_and_labels(draw: st.DrawFn) -> Logs:
    """Events in about their order, with repeats, duplicates, corrections, late and missing labels."""
    start = 1_000
    predictions: list[Prediction] = []
    labels: list[Label] = []
    for number, event_id in enumerate(EVENTS[: draw(st.integers(1, len(EVENTS)))]):
        time = start + number * draw(st.sampled_from([1, 15]))
        for _ in range(draw(st.integers(0, 2))):
            role = draw(ROLES)
            prediction_id = draw(st.sampled_from(["", f"{event_id}-{len(predictions)}"]))
            predictions.append(prediction(event_id, time, role, prediction_id))
        for _ in range(draw(st.integers(0, 3))):
            delay = draw(st.integers(0, 60))
            labels.append(label(event_id, draw(st.sampled_from([0.0, 1.0])), time + delay))
    predictions = draw(st.permutations(predictions)) if draw(st.booleans()) else predictions
    labels = draw(st.permutations(labels)) if draw(st.booleans()) else labels
    # The time goes on for a while, so that some of it expires.
    last = max([one.event_time_us for one in predictions], default=start)
    for number in range(draw(st.integers(0, 12))):
        predictions.append(prediction(f"later{number}", last + (number + 1) * JUMP))
    return Logs(list(predictions), list(labels))


def oracle(logs: Logs) -> list[tuple[str, str, float, float | None]]:
    """The outcomes, by the rules as a person reads them: all labels are there before anything expires."""
    reached, leap = 0, 0
    found: list[tuple[str, str, float, float | None]] = []
    base: dict[str, int] = {}
    for one in logs.predictions:
        time = one.event_time_us
        if reached and time > reached + JUMP:
            confirmed = leap and abs(time - leap) <= JUMP
            reached, leap = (time, 0) if confirmed else (reached, time)
        else:
            reached, leap = max(time, reached), 0
        if one.role == ROLE_ANSWER:
            base.setdefault(one.event_id, max(time, reached - LATENESS))
    for event_id, begins in base.items():
        used: tuple[float, int] | None = None
        for value, time in [(x.value, x.label_time_us) for x in logs.labels if x.event_id == event_id]:
            if time <= begins - HORIZON:
                continue
            if used is None:
                found.append((event_id, "labelled", value, None))
                used = value, time
            elif time > used[1]:
                if value != used[0]:
                    found.append((event_id, "corrected", value, used[0]))
                used = value, time
        if used is None and begins + HORIZON <= reached - LATENESS:
            found.append((event_id, "expired", 0.0, None))
    return sorted(found, key=str)


def run(logs: Logs, seed: int, crash_rate: float, lose_store: bool, rules: JoinRules = RULES) -> MemoryStore:
    """Join to the end, starting again after each crash, with the store or without it."""
    chance = random.Random(seed)

    async def attempts() -> MemoryStore:
        store = MemoryStore()
        for _ in range(200):
            try:
                await join_to_the_end(logs, store, rules, chance, crash_rate)
            except Crash:
                if lose_store and chance.random() < 0.5:
                    store = MemoryStore()
            else:
                return store
        # Crashes that never end are no crash to recover from.
        await join_to_the_end(logs, store, rules, chance)
        return store

    with capture_logs():
        return asyncio.run(attempts())


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    logs=logs_of_predictions_and_labels(),
    seed=st.integers(0, 2**32),
    crash_rate=st.sampled_from([0.0, 0.3]),
    lose_store=st.booleans(),
)
def test_the_outcomes_are_those_of_the_oracle(logs: Logs, seed: int, crash_rate: float, lose_store: bool) -> None:
    run(logs, seed, crash_rate, lose_store)
    assert logs.summary() == oracle(logs)


@settings(max_examples=75, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(logs=logs_of_predictions_and_labels(), seeds=st.tuples(st.integers(0, 2**32), st.integers(0, 2**32)))
def test_a_rebuilt_store_is_the_lost_one(logs: Logs, seeds: tuple[int, int]) -> None:
    lost = run(logs, seeds[0], 0.0, lose_store=False)
    published = len(logs.outcomes)
    rebuilt = run(logs, seeds[1], 0.0, lose_store=False)
    assert len(logs.outcomes) == published
    assert rebuilt.progress == lost.progress
    assert rebuilt.states == lost.states


@settings(max_examples=75, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    parts=st.lists(logs_of_predictions_and_labels(), min_size=2, max_size=3),
    seed=st.integers(0, 2**32),
    crash_rate=st.sampled_from([0.0, 0.3]),
)
def test_labels_that_come_while_it_runs_make_at_most_one_first_outcome(
    parts: list[Logs], seed: int, crash_rate: float
) -> None:
    """What comes after the horizon may be late or not, as the reading goes; but never twice, and never both."""
    logs = Logs()
    for number, part in enumerate(parts):
        logs.predictions += part.predictions
        logs.labels += part.labels
        run(logs, seed + number, crash_rate, lose_store=True)
    kinds = [(event_id, kind) for event_id, kind, _, _ in logs.summary() if event_id not in forgotten(logs)]
    first = [event_id for event_id, kind in kinds if kind != "corrected"]
    assert len(first) == len(set(first))
    expired = {event_id for event_id, kind in kinds if kind == "expired"}
    assert not expired & {event_id for event_id, kind in kinds if kind == "corrected"}


def test_an_id_that_comes_again_two_horizons_later_begins_anew() -> None:
    """How long an id is remembered is bounded: beyond that a repeat is a new event."""
    logs = Logs([prediction("e", 1_000)], [])
    logs.predictions += [prediction(f"later{step}", 1_000 + step) for step in range(JUMP, 3 * HORIZON, JUMP)]
    run(logs, 0, 0.0, lose_store=False)
    assert [found for found in logs.summary() if found[0] == "e"] == [("e", "expired", 0.0, None)]
    logs.predictions += [prediction("e", 1_000, prediction_id="again")]
    logs.predictions += [prediction(f"later{step}", 1_000 + step) for step in range(3 * HORIZON, 5 * HORIZON, JUMP)]
    run(logs, 0, 0.0, lose_store=False)
    assert forgotten(logs) == {"e"}
    assert [found for found in logs.summary() if found[0] == "e"] == 2 * [("e", "expired", 0.0, None)]


def forgotten(logs: Logs) -> set[str]:
    """Events that were answered again when the time was two horizons beyond them: the join remembers no longer."""
    reached, leap = 0, 0
    base: dict[str, int] = {}
    found: set[str] = set()
    for one in logs.predictions:
        time = one.event_time_us
        if reached and time > reached + JUMP:
            confirmed = leap and abs(time - leap) <= JUMP
            reached, leap = (time, 0) if confirmed else (reached, time)
        else:
            reached, leap = max(time, reached), 0
        if one.role != ROLE_ANSWER:
            continue
        if one.event_id in base and reached - LATENESS >= base[one.event_id] + 2 * HORIZON:
            found.add(one.event_id)
        base.setdefault(one.event_id, max(time, reached - LATENESS))
    return found


def crashing(seed: int, *, transactions: bool = True, own_offsets: bool = True, lose_store: bool = False) -> Logs:
    """Every event labelled and half of them corrected, joined through crashes, with a part of the mechanism left out.

    Args:
        seed: of the crashes and of the order of reading.
        transactions: whether outcomes and offsets are published together.
        own_offsets: whether a store goes on from its own offsets; without, from those that Kafka has.
        lose_store: whether each crash takes the store with it.
    """
    logs = Logs([prediction(one, 1_000) for one in EVENTS], [label(one, 1, 1_050) for one in EVENTS])
    logs.labels += [label(one, 0, 1_060) for one in EVENTS[::2]]
    chance = random.Random(seed)

    async def attempts() -> None:
        store = MemoryStore()
        for attempt in range(20):
            try:
                rate = 0.5 if attempt < 10 else 0.0
                await join_to_the_end(logs, store, RULES, chance, rate, transactions=transactions)
                return
            except Crash:
                if lose_store:
                    store = MemoryStore()
                elif not own_offsets:
                    store.progress = logs.committed

    with capture_logs():
        asyncio.run(attempts())
    return logs


SEEDS = range(10)


def test_the_mechanism_whole_is_exact() -> None:
    for seed in SEEDS:
        for lose_store in (False, True):
            logs = crashing(seed, lose_store=lose_store)
            assert logs.summary() == oracle(logs)


def test_without_the_transaction_outcomes_are_doubled() -> None:
    counts = [len(crashing(seed, transactions=False).outcomes) for seed in SEEDS]
    assert max(counts) > len(EVENTS) * 3 // 2


def test_without_the_offsets_of_the_store_outcomes_are_lost() -> None:
    counts = [len(crashing(seed, own_offsets=False).outcomes) for seed in SEEDS]
    assert min(counts) < len(EVENTS) * 3 // 2


def test_without_the_committed_offsets_a_rebuilt_store_doubles_the_outcomes() -> None:
    """The mechanism is what keeps it exact: taken away, the same run is wrong."""
    logs = Logs([prediction(one, 1_000) for one in EVENTS], [label(one, 1, 1_050) for one in EVENTS])
    run(logs, 1, 0.0, lose_store=False)
    assert logs.summary() == oracle(logs)
    run(logs, 2, 0.0, lose_store=False)
    assert logs.summary() == oracle(logs)
    logs.committed = Progress(Positions(0, 0))
    run(logs, 3, 0.0, lose_store=False)
    assert len(logs.outcomes) == 2 * len(EVENTS)


def test_a_store_that_is_lost_after_the_topics_have_lost_their_beginning() -> None:
    """What was joined is not joined again, and what is still there is joined as ever."""
    early = [prediction(one, 1_000 + place) for place, one in enumerate(EVENTS)]
    logs = Logs(early, [label(one, 1, 1_050) for one in EVENTS[:8]])
    run(logs, 1, 0.0, lose_store=False)
    published = logs.summary()
    assert len(published) == 8
    logs.first = Positions(6, 6)
    store = run(logs, 2, 0.0, lose_store=False)
    assert logs.summary() == published
    assert store.progress is not None
    assert store.progress.clock == logs.committed.clock
    # Of events of which the topic has lost the prediction, a label finds none; of the others it does.
    logs.labels += [label(EVENTS[2], 0, 1_060), label(EVENTS[7], 0, 1_060), label(EVENTS[9], 0, 1_060)]
    run(logs, 3, 0.3, lose_store=True)
    assert logs.summary() == sorted(
        [*published, (EVENTS[7], "corrected", 0.0, 1.0), (EVENTS[9], "labelled", 0.0, None)], key=str
    )


def test_a_topic_that_ends_before_what_was_joined_is_refused_by_name() -> None:
    logs = Logs([prediction(one, 1_000) for one in EVENTS], [label(one, 1, 1_050) for one in EVENTS])
    run(logs, 1, 0.0, lose_store=False)
    del logs.labels[-3:]
    with pytest.raises(RecordsLostError, match="partition 0 of l ends at 9, but was joined up to 12"):
        run(logs, 1, 0.0, lose_store=False)
