"""Every kind of bad event among good ones: each is set aside once, with its reason, and nothing else is disturbed."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from headrace.pipeline import DAY, Pipeline
from headrace.platform import kafka
from headrace.platform.rejected_records import MAX_KEY_BYTES, MAX_VALUE_BYTES
from headrace.v1.event_pb2 import Event
from tests.integration.features.deployment import Deployment
from tests.integration.features.payments import JSON_HEADERS, START, Payments, Sent

pytestmark = pytest.mark.timeout(300)

TEN_MEGABYTES = 10_000_000
LARGEST_REQUEST = 32 << 20

Place = tuple[int, int]


@dataclass(frozen=True)
class Bad:
    """An event that cannot be used."""

    reason: str
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()
    key: bytes = b"bad"


def bad_events(fingerprint: int) -> dict[str, Bad]:
    """One of each kind, by name. Times are good ones in the middle of the stream, but where time is the fault."""
    middle = START + 20 * DAY

    def packed(**changes: Any) -> bytes:
        fields: dict[str, Any] = {
            "event_id": "bad",
            "event_time_us": middle,
            "schema_fingerprint": fingerprint,
            "texts": ["c1", "t1"],
            "numbers": [100.0],
        }
        return Event(**fields | changes).SerializeToString()

    def named(changes: dict[str, Any] | None = None, **outer: Any) -> bytes:
        fields: dict[str, Any] = {"customer_id": "c1", "terminal_id": "t1", "amount_cents": 100} | (changes or {})
        kept = {name: value for name, value in fields.items() if value is not ...}
        return json.dumps({"eventId": "bad", "eventTimeUs": str(middle), "fields": kept} | outer).encode()

    return {
        "neither protobuf nor JSON": Bad("undecodable", b"\xff\xff\xff\xff"),
        "cut protobuf": Bad("undecodable", packed()[:-3]),
        "JSON without its content type": Bad("undecodable", named()),
        "protobuf with the content type of JSON": Bad("undecodable", packed(), JSON_HEADERS),
        "broken JSON": Bad("undecodable", b'{"eventId": ', JSON_HEADERS),
        "JSON of another kind": Bad("undecodable", b'{"event": 1}', JSON_HEADERS),
        "tombstone": Bad("undecodable", None),
        "empty value": Bad("undecodable", b""),
        "unknown entity": Bad("unknown_field", named({"merchant_id": "m1"}), JSON_HEADERS),
        "missing entity": Bad("missing_field", named({"terminal_id": ...}), JSON_HEADERS),
        "missing entity, packed": Bad("missing_field", packed(texts=["c1", ""])),
        "missing number": Bad("missing_field", named({"amount_cents": ...}), JSON_HEADERS),
        "NaN": Bad("missing_field", packed(numbers=[math.nan])),
        "NaN in JSON": Bad("missing_field", named({"amount_cents": math.nan}), JSON_HEADERS),
        "infinity": Bad("out_of_range", packed(numbers=[math.inf])),
        "infinity in JSON": Bad("out_of_range", named({"amount_cents": -math.inf}), JSON_HEADERS),
        "number out of range": Bad("out_of_range", packed(numbers=[1e12])),
        "negative number": Bad("out_of_range", named({"amount_cents": -1}), JSON_HEADERS),
        "fraction": Bad("wrong_type", packed(numbers=[1.5])),
        "number for text": Bad("wrong_type", named({"customer_id": 17}), JSON_HEADERS),
        "list": Bad("wrong_type", named({"amount_cents": [1]}), JSON_HEADERS),
        "text too long": Bad("out_of_range", packed(texts=["c" * 129, "t1"])),
        "no id": Bad("missing_field", packed(event_id="")),
        "id too long": Bad("out_of_range", packed(event_id="e" * 129)),
        "no time": Bad("missing_field", packed(event_time_us=0)),
        "negative time": Bad("out_of_range", packed(event_time_us=-5)),
        "time in the far future": Bad("future", packed(event_time_us=START + 10_000 * DAY)),
        "time in the far past": Bad("too_late", packed(event_time_us=START - 300 * DAY)),
        "time beyond any calendar": Bad("out_of_range", packed(event_time_us=2**62)),
        "wrong fingerprint": Bad("wrong_fingerprint", packed(schema_fingerprint=fingerprint ^ 1)),
        "wrong shape": Bad("wrong_shape", packed(numbers=[1.0, 2.0])),
        "key too large": Bad("too_large", packed(), key=b"k" * (MAX_KEY_BYTES + 1)),
        "10 MB, compressed on the way": Bad("too_large", packed() + b" " * TEN_MEGABYTES),
    }


def good(pipeline: Pipeline, event_id: str, time: int) -> Sent:
    """A usable event in partition 0."""
    event = Event(
        event_id=event_id,
        event_time_us=time,
        schema_fingerprint=pipeline.schema_fingerprint,
        texts=["c1", "t1"],
        numbers=[100.0],
    )
    return Sent(0, b"c1", event.SerializeToString(), [])


async def publish_among(deployment: Deployment, payments: Payments, bad: dict[str, Bad]) -> dict[Place, str]:
    """Publish payments with the bad events spread among the last of them; where each of these lies."""
    first = len(payments.records) // 2
    every = max((len(payments.records) - first) // len(bad), 1)
    waiting = list(bad.items())
    sent: dict[str, asyncio.Future[Any]] = {}
    others: list[asyncio.Future[Any]] = []
    async with kafka.producer(
        deployment.bootstrap, compression_type="gzip", max_request_size=LARGEST_REQUEST
    ) as producer:
        topic = deployment.topics.events
        for number, one in enumerate(payments.records):
            others.append(
                await producer.send(topic, one.value, key=one.key, partition=one.partition, headers=one.headers)
            )
            if waiting and number >= first and number % every == 0:
                name, what = waiting.pop(0)
                sent[name] = await producer.send(
                    topic, what.value, key=what.key, partition=len(waiting) % 4, headers=list(what.headers)
                )
        await asyncio.gather(*others)
        assert not waiting
        return {(at.partition, at.offset): name for name, at in [(name, await one) for name, one in sent.items()]}


async def test_each_is_set_aside_once_and_nothing_else_is_disturbed(deployment: Deployment) -> None:
    pipeline = deployment.plan.pipeline
    bad = bad_events(pipeline.schema_fingerprint)
    payments = Payments(pipeline, 2500, seed=21)
    places = await publish_among(deployment, payments, bad)
    assert len(places) == len(bad)
    worker = await deployment.start()
    await deployment.until(deployment.caught_up, "everything is committed")
    one_worker, accepted = await worker.get("/metrics"), (await deployment.contents()).accepted
    # Late events, and a leap ahead that the next event confirms, with a restart between the two.
    newest = START + 45 * DAY
    late = [good(pipeline, f"late {days}", newest - days * DAY) for days in (3, 20)]
    await deployment.publish([*late, good(pipeline, "leap", newest + 5 * DAY)])
    await deployment.until(deployment.caught_up, "the leap is set aside")
    worker.send(signal.SIGTERM)
    await worker.wait()
    await worker.start()
    # Started again, it sets nothing aside a second time.
    await deployment.publish([good(pipeline, "landing", newest + 5 * DAY + 1), *payments.records[-10:]])
    await deployment.until(deployment.caught_up, "what came after the restart is committed")
    contents = await deployment.assert_exact()
    assert contents.all_vectors == len(contents.vectors)
    assert one_worker.count('headrace_features_field_refused_total{field="amount_cents"') == 3
    assert 'headrace_features_field_refused_total{field="amount_cents",reason="out_of_range"} 4.0' in one_worker
    assert 'headrace_features_field_refused_total{field="",reason="unknown_field"} 1.0' in one_worker
    assert f'headrace_features_field_values_total{{field="customer_id"}} {float(len(accepted))}' in one_worker

    marked = {vector.event_id for vector in contents.vectors.values() if vector.late}
    assert {"late 3", "late 20"} <= marked
    assert "landing" in {vector.event_id for vector in contents.vectors.values()} - marked

    set_aside = {(one.source.partition, one.source.offset): one for one in contents.rejected}
    assert Counter((one.source.partition, one.source.offset) for one in contents.rejected).most_common(1)[0][1] == 1
    found = {name: set_aside[place] for place, name in places.items()}
    assert {name: one.reason for name, one in found.items()} == {name: one.reason for name, one in bad.items()}
    for name, rejected in found.items():
        value = bad[name].value
        assert (rejected.source.topic, rejected.service) == (deployment.topics.events, "features")
        assert rejected.value == (value or b"")[:MAX_VALUE_BYTES]
        assert rejected.value_size_bytes == len(value or b"")
        assert rejected.value_sha256 == (b"" if value is None else hashlib.sha256(value).digest())
        assert rejected.key == bad[name].key[:MAX_KEY_BYTES]
        assert [(one.name, one.value) for one in rejected.headers] == list(bad[name].headers)
        assert rejected.detail
    # What else was set aside are the leap and the payments' own bad ones.
    assert Counter(one.reason for place, one in set_aside.items() if place not in places)["future"] == 1


class HeaderName(str):
    """A name whose bytes are not UTF-8, as some clients send them."""

    __slots__ = ()

    def encode(self, *_: Any, **__: Any) -> bytes:
        return b"\xff\xfe"


async def test_what_a_topic_may_let_in(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten megabytes, which a broker refuses by default; names of headers in any bytes; any compression."""
    topic = deployment.topics.events
    value = b"\x07" * TEN_MEGABYTES
    async with kafka.producer(deployment.bootstrap, max_request_size=LARGEST_REQUEST) as producer:
        with pytest.raises(kafka.KafkaRefused) as refused:
            await kafka.send(producer, topic, value, partition=0)
        assert isinstance(refused.value.__cause__, MessageSizeTooLargeError)
        await allow_large_values(deployment, topic)

        async def taken() -> bool:
            try:
                await kafka.send(producer, topic, value, partition=0)
            except kafka.KafkaRefused:
                return False
            return True

        # A broker hears of a changed setting a moment later.
        await deployment.until(taken, "the topic takes large values")
    with monkeypatch.context() as patch:
        for module in ("message_accumulator", "producer"):
            patch.setattr(f"aiokafka.producer.{module}.DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy)
        async with kafka.producer(deployment.bootstrap) as producer:
            named = good(deployment.plan.pipeline, "named", START)
            headers = [(HeaderName("name"), b"1")]
            await kafka.send(producer, topic, named.value, key=named.key, partition=0, headers=headers)
    payments = Payments(deployment.plan.pipeline, 200, seed=23).records
    for number, codec in enumerate(("gzip", "lz4", "snappy", "zstd")):  # as producers like it
        async with kafka.producer(deployment.bootstrap, compression_type=codec) as producer:
            for one in payments[number::4]:
                await producer.send(topic, one.value, key=one.key, partition=one.partition, headers=one.headers)
    await deployment.start()
    await deployment.until(deployment.caught_up, "everything is committed")
    contents = await deployment.assert_exact()
    assert len(contents.accepted) + len(contents.refused) == len(payments) + 2
    (rejected,) = [one for one in contents.rejected if one.reason == "too_large"]
    assert rejected.value_size_bytes == TEN_MEGABYTES
    assert rejected.value == value[:MAX_VALUE_BYTES]
    assert rejected.value_sha256 == hashlib.sha256(value).digest()


async def allow_large_values(deployment: Deployment, topic: str) -> None:
    """Let a topic take values of up to 16 MB."""
    spec = next(one for one in deployment.topics.specs(4) if one.name == topic)
    client = AIOKafkaAdminClient(bootstrap_servers=deployment.bootstrap)
    await client.start()
    try:
        config = dict(spec.config) | {"max.message.bytes": "16000000"}
        await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, config)])
    finally:
        await client.close()
