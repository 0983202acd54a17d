"""A changed definition beside the one that serves: its state is built from history, and a worker takes it over."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from headrace.features.backfill_processes import BackfillTask, run_backfill
from headrace.pipeline.events import EventColumns, hash_ids
from headrace.pipeline.state import LABEL_RECORD, compile_plan, label_records
from headrace.platform import kafka
from headrace.platform.pipelines import load_pipeline
from headrace.platform.topics import Topics
from headrace.v1.event_pb2 import Event
from headrace.v1.prediction_pb2 import Outcome
from tests.integration.features.deployment import Deployment, Worker
from tests.integration.features.payments import Payments, Sent, outcome

pytestmark = pytest.mark.timeout(300)


def declare(path: Path) -> Path:
    """Write the changed declaration."""
    path.write_text(
        Path("pipelines/fraud.py").read_text().replace("WINDOWS = (1 * DAY, ", "WINDOWS = (1 * DAY, 3 * DAY, ")
    )
    return path


@pytest.fixture
async def changed(deployment: Deployment, tmp_path: Path) -> AsyncIterator[Deployment]:
    """The same deployed pipeline with more features, under another definition's name."""
    declaration = declare(tmp_path / "changed_fraud.py")
    other = replace(
        deployment,
        topics=Topics(deployment.topics.deployed, definition="v2"),
        plan=compile_plan(load_pipeline(str(declaration))),
        pipeline=str(declaration),
        workers=[],
    )
    assert other.plan.width > deployment.plan.width
    await other.create_topics()
    yield other
    await other.close()


@asynccontextmanager
async def traffic(
    deployment: Deployment, records: Sequence[Sent], outcomes: Sequence[Outcome]
) -> AsyncIterator[asyncio.Event]:
    """Publishes little by little while the block runs: the second half only when the event that it gives is set."""
    taken_over = asyncio.Event()

    async def publish(parts: int = 8) -> None:
        for part in range(parts):
            if part == parts // 2:
                await taken_over.wait()
            await deployment.publish(records[len(records) * part // parts : len(records) * (part + 1) // parts])
            await deployment.publish_outcomes(outcomes[part::parts])

    async with asyncio.TaskGroup() as group:
        group.create_task(publish())
        yield taken_over


def cut_over(said: str, topic: str) -> dict[int, int]:
    """First offsets that are the worker's own, as the command says them."""
    found = re.findall(rf"^cut-over: {re.escape(topic)}/(\d+) at offset (\d+)$", said, re.MULTILINE)
    return {int(partition): int(offset) for partition, offset in found}


async def test_a_changed_definition_takes_over_under_traffic(deployment: Deployment, changed: Deployment) -> None:
    payments = Payments(deployment.plan.pipeline, 4500, seed=31)
    outcomes = payments.outcomes()
    third = len(payments.records) // 3
    await deployment.publish(payments.records[:third])
    await deployment.publish_outcomes(outcomes[::3])
    await deployment.start()
    async with traffic(deployment, payments.records[third:], outcomes[1::3] + outcomes[2::3]) as taken_over:
        interrupted = await changed.begin_command("features", "backfill", "--batch", "100", "--chunk", "10")
        await deployment.until(lambda: has_merged(changed, 300), "the backfill is on its way")
        interrupted.kill()
        assert await interrupted.wait() == -signal.SIGKILL
        worker = await changed.start()
        assert await worker.wait() == 2
        assert "has not finished: `headrace features backfill` goes on with it" in worker.text()
        status, said = await changed.command("features", "backfill")
        assert status == 0, said
        await worker.start()
        await changed.until(lambda: has_partitions(worker), "the new worker has partitions")
        taken_over.set()
    await deployment.until(deployment.caught_up, "the old worker has committed everything")
    await changed.until(changed.caught_up, "the new worker has committed everything")
    begins = cut_over(said, changed.topics.events)
    assert set(begins) == set(range(4))
    assert sum(begins.values()) > third
    old = await deployment.contents()
    assert old.missing_vectors() == []
    assert old.wrong_vectors() == []
    new = await changed.contents()
    assert new.all_vectors == len(new.vectors), "no vector twice"
    assert set(new.vectors) == {place for place in old.vectors if place[1] >= begins[place[0]]}
    assert new.vectors
    assert {len(vector.values) for vector in new.vectors.values()} == {changed.plan.width}
    assert new.wrong_vectors() == []
    assert await new.wrong_keys(changed.client, changed.keys) == []
    status, said = await deployment.command("features", "backfill")
    assert status == 2, "the old definition's state was made by a worker"
    assert "has commits, so a worker has run under this definition's name; set HEADRACE_DEFINITION" in said
    status, said = await changed.command("features", "backfill")
    assert (status, cut_over(said, changed.topics.events)) == (0, begins), "what is complete stays as it is"


async def test_topics_that_hold_no_outcomes_yet(deployment: Deployment) -> None:
    events = Payments(deployment.plan.pipeline, 300, seed=34).events
    await deployment.publish([sent(event) for event in events])
    task = BackfillTask(
        deployment.pipeline, deployment.topics, deployment.bootstrap, deployment.redis_url, None, 100, 50
    )
    told: list[tuple[int, int]] = []
    done = await run_backfill(task, 1, lambda merged, total: told.append((merged, total)))
    assert (done.records, told[-1]) == (300, (300, 300))
    assert sum(offset for offset, _ in done.cut_over.events.values()) == 300
    assert done.cut_over.outcomes == dict.fromkeys(range(4), 0)
    assert await (await deployment.contents()).wrong_keys(deployment.client, deployment.keys) == []
    assert (await run_backfill(task, 1, lambda *_: None)).cut_over == done.cut_over


async def has_partitions(worker: Worker) -> bool:
    """Whether it reads `events`."""
    return bool(worker.partitions("events"))


async def has_merged(deployment: Deployment, events: int) -> bool:
    """Whether the state holds that many events of `events`."""
    fences: Any = await deployment.client.hgetall(deployment.keys.fences)
    return sum(int(fence) for name, fence in fences.items() if name.startswith(b"events/")) > events


async def test_history_from_parquet_and_topics_that_overlap(
    deployment: Deployment, changed: Deployment, tmp_path: Path
) -> None:
    payments = Payments(deployment.plan.pipeline, 3000, seed=32)
    clean = [sent(event) for event in payments.events]
    await deployment.publish(clean[1500:])
    outcomes = [outcome(event, fraud=at % 3 == 0) for at, event in enumerate(payments.events) if at % 2]
    await deployment.publish_outcomes(outcomes[800:])
    events, labels = write_parquet(tmp_path, payments.events[:2000], outcomes[:1000])
    status, said = await changed.command(
        "features", "backfill", "--events", str(events), "--labels", str(labels), "--workers", "2", "--batch", "200"
    )
    assert status == 0, said
    expected = logs_of(changed, payments.events, outcomes)
    assert await stored_logs(changed) == expected
    worker = await changed.start()
    await changed.until(lambda: has_partitions(worker), "the new worker has partitions")
    assert (await changed.contents()).all_vectors == 0, "nothing has come since the cut-over"
    worker.send(signal.SIGTERM)
    assert await worker.wait() == 0
    status, said = await changed.command("features", "list")
    assert status == 0
    assert re.fullmatch(rf"{changed.plan.pipeline.features_fingerprint:016x}  v2  [\d,]+ logs  .*as declared\n", said)
    status, said = await changed.command(
        "features", "retire", f"{changed.plan.pipeline.features_fingerprint:016x}", "--yes"
    )
    assert status == 0, said
    assert not [name async for name in changed.client.scan_iter(f"{changed.keys.prefix}*", 1000)]
    assert (await deployment.command("features", "list"))[1] == f"{deployment.topics.deployed}: no state\n"


async def test_an_optional_field_is_added_under_traffic(deployment: Deployment, tmp_path: Path) -> None:
    """Producers of both schemas publish at once; the worker goes on with the same state."""
    declaration = declare_field(tmp_path / "fraud.py")
    later = replace(
        deployment, plan=compile_plan(load_pipeline(str(declaration))), pipeline=str(declaration), workers=[]
    )
    assert later.keys.prefix == deployment.keys.prefix
    events = Payments(deployment.plan.pipeline, 1500, seed=33).events
    worker = await deployment.start()
    await deployment.publish([sent(event) for event in events[:500]])
    await deployment.until_emitted(100)
    worker.send(signal.SIGTERM)
    assert await worker.wait() == 0
    await deployment.publish([sent(event) for event in events[500:700]])
    await later.start()
    mixed = [sent(event if at % 2 else with_channel(later, event)) for at, event in enumerate(events[700:])]
    await later.publish(mixed)
    await later.until(later.caught_up, "everything is committed")
    contents = await later.assert_exact()
    await later.close_workers()
    assert contents.rejected == []
    assert len(contents.accepted) == len(events)
    assert {vector.features_fingerprint for vector in contents.vectors.values()} == {
        deployment.plan.pipeline.features_fingerprint
    }


def declare_field(path: Path) -> Path:
    """Write a declaration with one optional field more at the end of its schema."""
    text = Path("pipelines/fraud.py").read_text()
    schema = 'Money("amount_cents", maximum=1_000_000_00)'
    assert schema in text
    path.write_text(text.replace(schema, schema + ', Text("channel", optional=True)'))
    return path


def with_channel(deployment: Deployment, event: Event) -> Event:
    """The event as a producer of the later schema sends it."""
    changed = Event()
    changed.CopyFrom(event)
    changed.texts.append("web")
    changed.schema_fingerprint = deployment.plan.pipeline.schema_fingerprint
    return changed


def sent(event: Event) -> Sent:
    """The record of an event."""
    key = event.texts[0].encode()
    return Sent(kafka.murmur2_partition(key, 4), key, event.SerializeToString(), [])


def write_parquet(folder: Path, events: Sequence[Event], outcomes: Sequence[Outcome]) -> tuple[Path, Path]:
    """Events and their labels as files."""
    pl.DataFrame(
        {
            "event_id": [event.event_id for event in events],
            "event_time": [event.event_time_us for event in events],
            "customer_id": [event.texts[0] for event in events],
            "terminal_id": [event.texts[1] for event in events],
            "amount_cents": [int(event.numbers[0]) for event in events],
        }
    ).write_parquet(folder / "events.parquet")
    pl.DataFrame(
        {
            "event_id": [one.prediction.event_id for one in outcomes],
            "label": [int(one.label.value) for one in outcomes],
            "label_time": [one.label.label_time_us for one in outcomes],
        }
    ).write_parquet(folder / "labels.parquet")
    return folder / "events.parquet", folder / "labels.parquet"


def logs_of(deployment: Deployment, events: Sequence[Event], outcomes: Sequence[Outcome]) -> dict[str, list[Any]]:
    """What the logs of each key must hold, sorted."""
    logs: dict[str, list[Any]] = {}
    columns = EventColumns.from_rows(
        deployment.plan.pipeline.event,
        [event.event_id for event in events],
        [event.event_time_us for event in events],
        [list(event.texts) for event in events],
        [list(event.numbers) for event in events],
    )
    for plan in deployment.plan.entities:
        records = plan.event_records(columns, hash_ids(columns.ids))
        for key, record in zip(columns.texts[plan.field], records.tolist(), strict=True):
            logs.setdefault(deployment.keys.event_log(plan.entity) + key, []).append(record)
    labels = label_records(
        [one.prediction.event_id for one in outcomes],
        np.array([one.prediction.event_time_us for one in outcomes]),
        np.array([one.label.label_time_us for one in outcomes]),
        np.array([one.label.value for one in outcomes]),
        np.full(len(outcomes), np.nan),
    )
    for one, record in zip(outcomes, labels, strict=True):
        if record["positive"]:
            logs.setdefault(deployment.keys.label_log("terminal") + one.prediction.entities[1], []).append(
                record.item()
            )
    return {name: sorted(log) for name, log in logs.items()}


async def stored_logs(deployment: Deployment) -> dict[str, list[Any]]:
    """What the logs of each key hold, sorted."""
    layouts = {f":e:{plan.entity}:": plan.event_record for plan in deployment.plan.entities} | {":l:": LABEL_RECORD}
    logs: dict[str, list[Any]] = {}
    async for name in deployment.client.scan_iter(f"{deployment.keys.prefix}:[el]:*", 1000):
        value: Any = await deployment.client.get(name)
        layout = next(dtype for part, dtype in layouts.items() if part in name.decode())
        logs[name.decode()] = sorted(np.frombuffer(value, layout).tolist())
    return logs
