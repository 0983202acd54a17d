"""When to learn and when to publish: as outcomes come, or at the commands of a replay."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence

from headrace.learner import metrics
from headrace.learner.examples import OutcomeRecord, decode
from headrace.learner.leadership import PlacedCommand
from headrace.learner.learning import Learning
from headrace.learner.outcome_stream import OutcomeStream
from headrace.learner.publishing import Publisher
from headrace.platform.health import Heartbeat
from headrace.platform.logging import get_logger

WAIT_LOG_S = 30.0


async def learn_as_outcomes_come(
    stream: OutcomeStream,
    learning: Learning,
    publisher: Publisher,
    heartbeat: Heartbeat,
    *,
    gather_s: float,
    gather_limit: int,
    publish_interval_s: float,
    publish_min_outcomes: int,
) -> None:
    """Learn what has arrived, in order, and publish at most every `publish_interval_s`, without end.

    Args:
        stream: where outcomes come from.
        learning: what learns them.
        publisher: publishes its state.
        heartbeat: beaten each time round.
        gather_s: seconds in which what arrives is put in order.
        gather_limit: most outcomes that are put in order at once.
        publish_interval_s: fewest seconds between versions.
        publish_min_outcomes: fewest outcomes that a version has learned since the last.
    """
    published = time.monotonic() - publish_interval_s
    while True:
        heartbeat.beat()
        records = await stream.gather(gather_s, gather_limit)
        if records:
            await _learn(learning, records)
        learning.advance(await stream.positions())
        due = time.monotonic() - published >= publish_interval_s
        if due and learning.learned_since_version >= publish_min_outcomes:
            published = time.monotonic()
            await publisher.publish()


async def learn_in_lockstep(
    stream: OutcomeStream,
    learning: Learning,
    publisher: Publisher,
    heartbeat: Heartbeat,
    commands: AsyncIterator[PlacedCommand],
) -> None:
    """For each command: read everything below its offsets, learn it in order, publish one version.

    A command is handled exactly once: the version that it led to carries its offset. One that names another number of
    partitions than there are is refused with an error in the log.

    Args:
        stream: where outcomes come from.
        learning: what learns them.
        publisher: publishes its state.
        heartbeat: beaten while waiting.
        commands: those not handled yet, in order.
    """
    log = get_logger()
    # Between commands there is nothing to do, for as long as the replay likes.
    heartbeat.suspend()
    async for offset, command in commands:
        if offset < learning.next_command:
            continue
        ends = tuple(command.publish_at)
        if len(ends) != len(learning.next_offsets):
            log.error(
                "command refused: it must name an offset for each partition of outcomes",
                command_id=command.command_id,
                control_offset=offset,
                named=len(ends),
                partitions=len(learning.next_offsets),
            )
            learning.next_command = offset + 1
            continue
        logged = time.monotonic()

        def waiting(positions: Sequence[int], ends: Sequence[int] = ends, command_id: str = command.command_id) -> None:
            nonlocal logged
            heartbeat.beat()
            if time.monotonic() - logged > WAIT_LOG_S:
                logged = time.monotonic()
                log.warning("waiting for outcomes", command_id=command_id, publish_at=ends, read_to=positions)

        records = await stream.read_below(ends, waiting)
        await _learn(learning, records)
        learning.advance(ends)
        learning.next_command = offset + 1
        await publisher.publish()
        heartbeat.suspend()


async def note_ignored_commands(commands: AsyncIterator[PlacedCommand]) -> None:
    """Say that commands have no effect while the learner runs freely."""
    log = get_logger()
    async for offset, command in commands:
        log.warning(
            "command ignored: HEADRACE_LEARNER_LOCKSTEP is false", command_id=command.command_id, control_offset=offset
        )


async def _learn(learning: Learning, records: Sequence[OutcomeRecord]) -> None:
    before, ignored_before = learning.learned_count, Counter(learning.ignored)

    def decode_and_learn() -> None:
        width, absence = len(learning.feature_names), learning.recipe.knows_absence
        learning.learn(decode(records, learning.features_fingerprint, width, absence=absence))

    # In a thread, so that heartbeats to Kafka and health checks are answered meanwhile.
    await asyncio.to_thread(decode_and_learn)
    metrics.LEARNED.inc(learning.learned_count - before)
    for reason, count in (learning.ignored - ignored_before).items():
        metrics.IGNORED.labels(reason).inc(count)
