"""`headrace rejected`: what was set aside is shown, and brought back once."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import pytest
from click.testing import CliRunner

from headrace.cli.__main__ import headrace
from headrace.pipeline import DAY, HOUR
from headrace.platform import kafka
from headrace.platform.rejected_reading import Selection
from headrace.platform.rejected_records import REPLAY_HEADER
from headrace.platform.rejected_replay import Replay, replay
from headrace.v1.event_pb2 import Event, Rejected, SourcePosition
from tests.integration.features.deployment import Deployment
from tests.integration.features.log_contents import read_topic
from tests.integration.features.payments import START

pytestmark = pytest.mark.timeout(300)


async def command(deployment: Deployment, *arguments: str) -> tuple[int, str]:
    """Run `headrace` in a thread of this process, which spares its start; its exit status and what it says."""
    result = await asyncio.to_thread(CliRunner().invoke, headrace, arguments, env=deployment.environment())
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


async def listed(deployment: Deployment, *options: str) -> list[dict[str, Any]]:
    """What `headrace rejected list --json` says."""
    status, said = await command(deployment, "rejected", "list", "--json", *options)
    assert status == 0, said
    return [json.loads(line) for line in said.splitlines()]


async def test_records_are_shown_and_brought_back_once(deployment: Deployment) -> None:
    pipeline = deployment.plan.pipeline
    events = deployment.topics.events

    def packed(event_id: str, time: int, **changes: Any) -> bytes:
        fields: dict[str, Any] = {
            "event_id": event_id,
            "event_time_us": time,
            "schema_fingerprint": pipeline.schema_fingerprint,
            "texts": ["c1", "t1"],
            "numbers": [100.0],
        }
        return Event(**fields | changes).SerializeToString()

    later = START + 10 * DAY
    large = packed("large", START) + b"\x00" * 2_000_000
    async with kafka.producer(deployment.bootstrap, compression_type="gzip") as producer:

        async def send(value: bytes, headers: list[tuple[str, bytes]] | None = None) -> int:
            sent = await kafka.send(producer, events, value, key=b"c1", partition=0, headers=headers)
            offset: int = sent.offset
            return offset

        await send(packed("first", START))
        await send(packed("second", START + HOUR))
        # A gap of nine days, as in any replayed history: the event behind it waits in `rejected`.
        leapt = await send(packed("leapt", later), [("trace", b"17")])
        await send(packed("third", later + HOUR))
        worse = await send(packed("worse", later, numbers=[-1.0]))
        cut = await send(large)
    await deployment.start()
    await deployment.until(deployment.caught_up, "everything is committed")

    status, said = await command(deployment, "rejected", "list")
    assert status == 0, said
    header, *lines, total = said.splitlines()
    assert header.split() == ["AGE", "SERVICE", "REASON", "SOURCE", "EVENT", "ID", "SIZE", "DETAIL"]
    assert [line.split()[1:5] for line in lines] == [
        ["features", "future", f"events/0/{leapt}", "leapt"],
        ["features", "out_of_range", f"events/0/{worse}", "worse"],
        ["features", "too_large", f"events/0/{cut}", "-"],
    ]
    assert total == "3 records: 1 future, 1 out_of_range, 1 too_large"
    assert [one["event_id"] for one in await listed(deployment, "--reason", "future", "--since", "1h")] == ["leapt"]
    assert [one["reason"] for one in await listed(deployment, "--limit", "1")] == ["too_large"]

    status, said = await command(deployment, "rejected", "replay", "--reason", "future", "--dry-run")
    assert (status, said.splitlines()[-1]) == (0, "1 would be replayed")
    status, said = await command(deployment, "rejected", "replay", "--reason", "future", "--yes")
    assert (status, said) == (0, "1 replayed\n")
    await deployment.until(deployment.caught_up, "the event that was brought back is committed")
    status, said = await command(deployment, "rejected", "replay", "--source", f"events/0/{leapt}", "--yes")
    assert (status, said) == (0, "0 replayed, 1 had been before\n")

    contents = await deployment.assert_exact()
    brought_back = [one for one in await read_topic(deployment.bootstrap, events) if REPLAY_HEADER in dict(one.headers)]
    (record,) = brought_back
    (first_set_aside,) = [one for one in await listed(deployment) if one["event_id"] == "leapt"]
    assert first_set_aside["replayed"]
    assert (record.partition, record.key, record.value) == (0, b"c1", packed("leapt", later))
    assert list(record.headers) == [("trace", b"17"), (REPLAY_HEADER, first_set_aside["rejected"].encode())]
    assert contents.vectors[0, record.offset].event_id == "leapt"

    # What is still wrong is set aside again, whole as it lies at its source, and can be replayed again.
    status, said = await command(deployment, "rejected", "replay", "--yes")
    assert (status, said) == (0, "2 replayed, 1 had been before\n")
    await deployment.until(deployment.caught_up, "what was brought back is committed")
    found = await listed(deployment)
    assert [(one["reason"], one["replayed"]) for one in found] == [
        ("future", True),
        ("out_of_range", True),
        ("too_large", True),
        ("out_of_range", False),
        ("too_large", False),
    ]
    assert (found[4]["value_sha256"], found[4]["value_size_bytes"]) == (found[2]["value_sha256"], str(len(large)))
    status, said = await command(deployment, "rejected", "list")
    assert status == 0
    assert [("(replayed)" in line, "(again)" in line) for line in said.splitlines()[1:-1]] == [
        (True, False),
        (True, False),
        (True, False),
        (False, True),
        (False, True),
    ]


async def test_replays_at_the_same_time_bring_nothing_back_twice(deployment: Deployment) -> None:
    topics = deployment.topics
    values = [f"event {i}".encode() for i in range(250)]
    await deployment.publish_raw(
        topics.rejected,
        [
            Rejected(
                source=SourcePosition(topic=topics.events, partition=i % 4, offset=i),
                value=value,
                value_size_bytes=len(value),
                value_sha256=hashlib.sha256(value).digest(),
                reason="undecodable",
                service="features",
            ).SerializeToString()
            for i, value in enumerate(values)
        ],
    )
    for _ in range(2):
        ended = await asyncio.gather(
            *(replay(deployment.bootstrap, topics, Selection()) for _ in range(3)), return_exceptions=True
        )
        assert all(isinstance(one, Replay | kafka.ProducerFenced | kafka.KafkaUnavailable) for one in ended), ended
    last = await replay(deployment.bootstrap, topics, Selection())
    assert (last.due, last.done, last.before) == ([], 0, len(values)) or last.done == len(last.due)
    brought_back = await read_topic(deployment.bootstrap, topics.events)
    assert sorted(record.value for record in brought_back) == sorted(values)
    assert all(record.partition == int(record.value.split()[1]) % 4 for record in brought_back)


async def test_what_cannot_be_brought_back_is_said(deployment: Deployment) -> None:
    """A record that was cut and has left its topic, one that others have used, one without a value; and a copy."""
    topics = deployment.topics
    cut = Rejected(
        source=SourcePosition(topic=topics.events, partition=1, offset=5),
        value=b"v",
        value_size_bytes=100_000,
        value_sha256=b"0" * 32,
        reason="too_large",
        service="features",
    )
    used, empty = Rejected(), Rejected()
    used.CopyFrom(cut)
    used.source.topic = topics.outcomes
    empty.CopyFrom(cut)
    empty.source.offset = 6
    empty.value_sha256 = b""
    values = [one.SerializeToString() for one in (cut, used, empty, cut)]
    await deployment.publish_raw(topics.rejected, [*values, b"\xff no record of this topic"])
    assert len(await listed(deployment)) == 3
    status, said = await command(deployment, "rejected", "replay", "--yes")
    assert status == 1
    assert sorted(said.splitlines()) == [
        "0 replayed",
        f"{topics.events}/1/5 is not replayed: only its first 1 bytes are kept, and {topics.events} no longer has it",
        f"{topics.events}/1/6 is not replayed: it had no value",
        f"{topics.outcomes}/1/5 is not replayed: other readers of outcomes may have used it, and would count it twice",
    ]


async def test_a_place_that_is_not_there_is_one_line(deployment: Deployment) -> None:
    status, said = await deployment.command("rejected", "replay", "--source", "events/0/1")
    place, topic = f"{deployment.topics.events}/0/1", deployment.topics.rejected
    assert (status, said) == (2, f"error: {place} is not in {topic}\n")
