"""When to learn and when to publish: as outcomes come, or at the commands of a replay."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

from headrace.learner import metrics
from headrace.learner.cohort import Cohort
from headrace.learner.examples import OutcomeRecord
from headrace.learner.leadership import PlacedCommand
from headrace.learner.outcome_stream import OutcomeStream
from headrace.learner.publishing import Publisher
from headrace.platform.health import Heartbeat
from headrace.platform.logging import get_logger

WAIT_LOG_S = 30.0


async def learn_as_outcomes_come(
    stream: OutcomeStream,
    cohort: Cohort,
    publisher: Publisher,
    heartbeat: Heartbeat,
    *,
    gather_s: float,
    gather_limit: int,
    publish_interval_s: float,
    publish_min_outcomes: int,
    publish_max_outcomes: int,
) -> None:
    """Learn what has arrived, in order, and publish by time and by count, without end.

    Where versions take long to make, learning goes on meanwhile.

    Args:
        stream: where outcomes come from.
        cohort: the models that learn them.
        publisher: publishes their state.
        heartbeat: beaten each time round.
        gather_s: seconds in which what arrives is put in order.
        gather_limit: most outcomes that are put in order at once.
        publish_interval_s: fewest seconds between versions.
        publish_min_outcomes: fewest outcomes that a version has learned since the last.
        publish_max_outcomes: outcomes since the last version that make one due whatever the time; 0 is never.
    """
    published = time.monotonic() - publish_interval_s
    under_way: asyncio.Task[object] | None = None
    try:
        while True:
            heartbeat.beat()
            records = await stream.gather(gather_s, gather_limit)
            if records:
                await _learn(cohort, records)
            cohort.advance(await stream.positions())
            if under_way is not None:
                if not under_way.done():
                    continue
                await under_way
                under_way = None
            learned = cohort.learned_since_version
            due = time.monotonic() - published >= publish_interval_s and learned >= publish_min_outcomes
            if due or 0 < publish_max_outcomes <= learned:
                published = time.monotonic()
                if publisher.slow:
                    under_way = asyncio.create_task(publisher.finish(publisher.begin_beside()), name="versions")
                else:
                    await publisher.publish()
    finally:
        if under_way is not None:
            under_way.cancel()
            await asyncio.gather(under_way, return_exceptions=True)


async def learn_in_lockstep(
    stream: OutcomeStream,
    cohort: Cohort,
    publisher: Publisher,
    heartbeat: Heartbeat,
    commands: AsyncIterator[PlacedCommand],
) -> None:
    """For each command: read everything below its offsets, learn it in order, publish one version.

    A command is handled exactly once: the version that it led to carries its offset. One that names another number of
    partitions than there are is refused with an error in the log.

    Args:
        stream: where outcomes come from.
        cohort: the models that learn them.
        publisher: publishes their state.
        heartbeat: beaten while waiting.
        commands: those not handled yet, in order.
    """
    log = get_logger()
    # Between commands there is nothing to do, for as long as the replay likes.
    heartbeat.suspend()
    async for offset, command in commands:
        if offset < cohort.next_command:
            continue
        ends = tuple(command.publish_at)
        if len(ends) != len(cohort.next_offsets):
            log.error(
                "command refused: it must name an offset for each partition of outcomes",
                command_id=command.command_id,
                control_offset=offset,
                named=len(ends),
                partitions=len(cohort.next_offsets),
            )
            cohort.handled(offset)
            continue
        logged = time.monotonic()

        def waiting(positions: Sequence[int], ends: Sequence[int] = ends, command_id: str = command.command_id) -> None:
            nonlocal logged
            heartbeat.beat()
            if time.monotonic() - logged > WAIT_LOG_S:
                logged = time.monotonic()
                log.warning("waiting for outcomes", command_id=command_id, publish_at=ends, read_to=positions)

        records = await stream.read_below(ends, waiting)
        await _learn(cohort, records)
        cohort.advance(ends)
        cohort.handled(offset)
        await publisher.publish()
        heartbeat.suspend()


async def note_ignored_commands(commands: AsyncIterator[PlacedCommand]) -> None:
    """Say that commands have no effect while the learner runs freely."""
    log = get_logger()
    async for offset, command in commands:
        log.warning(
            "command ignored: HEADRACE_LEARNER_LOCKSTEP is false", command_id=command.command_id, control_offset=offset
        )


async def _learn(cohort: Cohort, records: Sequence[OutcomeRecord]) -> None:
    before, resets = cohort.champion.learned_count, cohort.champion.recipe.resets
    # In a thread, so that heartbeats to Kafka and health checks are answered meanwhile.
    ignored = await asyncio.to_thread(cohort.learn, records)
    metrics.LEARNED.inc(cohort.champion.learned_count - before)
    for reason, count in ignored.items():
        metrics.IGNORED.labels(reason).inc(count)
    metrics.RESETS.inc(cohort.champion.recipe.resets - resets)
