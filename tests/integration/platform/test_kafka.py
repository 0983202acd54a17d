from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from headrace.platform import kafka
from headrace.platform.kafka import TopicPartition
from headrace.platform.topics import Topics, check_topics, create_topics, deployed_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiokafka import AIOKafkaConsumer


@pytest.fixture
async def topics(kafka_bootstrap: str, namespace: str) -> AsyncIterator[Topics]:
    names = Topics(deployed_name("mill", namespace))
    await create_topics(kafka_bootstrap, names.deployed)
    yield names
    async with kafka.KafkaAdmin(kafka_bootstrap) as admin:
        await admin.delete_topics(names.all)


async def read(reader: AIOKafkaConsumer, count: int, timeout_s: float = 20.0) -> list[tuple[int, bytes, bytes]]:
    found: list[tuple[int, bytes, bytes]] = []
    async with asyncio.timeout(timeout_s):
        while len(found) < count:
            for partition, records in (await reader.getmany(timeout_ms=200)).items():
                found += [(partition.partition, one.key, one.value) for one in records]
    return found


def partitions(topic: str) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in range(4)]


async def test_topics_are_created_once(kafka_bootstrap: str, topics: Topics) -> None:
    assert await create_topics(kafka_bootstrap, topics.deployed) == []
    assert await check_topics(kafka_bootstrap, topics.deployed) == 4
    with pytest.raises(kafka.TopicMismatch, match=r"events has 4 partitions, not 6"):
        await create_topics(kafka_bootstrap, topics.deployed, 6)


async def test_a_missing_topic_is_named_with_the_command(kafka_bootstrap: str, topics: Topics) -> None:
    async with kafka.KafkaAdmin(kafka_bootstrap) as admin:
        await admin.delete_topics([topics.labels])
    with pytest.raises(kafka.TopicMissing, match=rf"topic {topics.labels} is not there; `headrace topics create`"):
        await check_topics(kafka_bootstrap, topics.deployed)
    assert await check_topics(kafka_bootstrap, topics.deployed, only=[topics.events]) == 4
    with pytest.raises(kafka.TopicMissing):
        await kafka.end_offsets(kafka_bootstrap, topics.labels)
    assert await create_topics(kafka_bootstrap, topics.deployed) == [topics.labels]


async def test_a_topic_created_again_has_another_id(kafka_bootstrap: str, topics: Topics) -> None:
    before = (await kafka.topic_ids(kafka_bootstrap, [topics.events]))[topics.events]
    assert (await kafka.topic_ids(kafka_bootstrap, [topics.events]))[topics.events] == before
    async with kafka.KafkaAdmin(kafka_bootstrap) as admin:
        await admin.delete_topics([topics.events])
        with pytest.raises(kafka.TopicMissing):
            await admin.topic_ids([topics.events])
    await create_topics(kafka_bootstrap, topics.deployed)
    assert (await kafka.topic_ids(kafka_bootstrap, [topics.events]))[topics.events] != before


async def test_keys_go_where_the_java_client_puts_them(kafka_bootstrap: str, topics: Topics) -> None:
    keys = [f"p-{number}".encode() for number in range(100)]
    async with kafka.producer(kafka_bootstrap) as producer:
        for key in keys:
            await producer.send(topics.events, b"value", key=key)
    async with kafka.consumer(kafka_bootstrap, partitions=partitions(topics.events)) as reader:
        found = await read(reader, 100)
    assert sorted(key for _, key, _ in found) == sorted(keys)
    assert all(partition == kafka.murmur2_partition(key, 4) for partition, key, _ in found)


async def test_only_what_is_committed_is_read(kafka_bootstrap: str, topics: Topics) -> None:
    group = topics.group("mill")
    source = TopicPartition(topics.events, 0)
    async with kafka.transactional_producer(kafka_bootstrap, topics.transactional_id("mill", 0)) as producer:

        async def fail_half_way() -> None:
            async with kafka.transaction(producer):
                await producer.send_and_wait(topics.outcomes, b"aborted", partition=0)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail_half_way()
        async with kafka.transaction(producer):
            await producer.send_and_wait(topics.outcomes, b"committed", partition=0)
            await producer.send_offsets_to_transaction({source: (7, "with metadata")}, group)
        async with kafka.transaction(producer):
            await producer.send_and_wait(topics.outcomes, b"open", partition=0)
            # Two records with a marker each, and the open one that read_committed does not reach.
            assert (await kafka.end_offsets(kafka_bootstrap, topics.outcomes))[0] == 4
            assert (await kafka.end_offsets(kafka_bootstrap, topics.outcomes, read_committed=False))[0] == 5
    async with kafka.consumer(kafka_bootstrap, partitions=partitions(topics.outcomes)) as reader:
        assert [value for _, _, value in await read(reader, 2)] == [b"committed", b"open"]
    assert await kafka.committed_offsets(kafka_bootstrap, group) == {source: 7}
    async with kafka.KafkaAdmin(kafka_bootstrap) as admin:
        assert await admin.committed(group) == {source: (7, "with metadata")}
        assert await admin.committed(topics.group("nobody")) == {}


async def test_a_producer_whose_id_is_taken_over_is_fenced(kafka_bootstrap: str, topics: Topics) -> None:
    name = topics.transactional_id("mill", 0)
    async with kafka.transactional_producer(kafka_bootstrap, name) as zombie:
        async with kafka.transaction(zombie):
            await zombie.send_and_wait(topics.outcomes, b"first", partition=0)
        async with kafka.transactional_producer(kafka_bootstrap, name) as heir:
            with pytest.raises(kafka.ProducerFenced):
                async with kafka.transaction(zombie):
                    await zombie.send_and_wait(topics.outcomes, b"from the dead", partition=0)
            async with kafka.transaction(heir):
                await heir.send_and_wait(topics.outcomes, b"second", partition=0)
    async with kafka.consumer(kafka_bootstrap, partitions=partitions(topics.outcomes)) as reader:
        assert [value for _, _, value in await read(reader, 2)] == [b"first", b"second"]


async def test_a_group_goes_on_from_what_it_committed(kafka_bootstrap: str, topics: Topics) -> None:
    group = topics.group("mill")
    async with kafka.producer(kafka_bootstrap) as producer:
        for number in range(10):
            await kafka.send(producer, topics.labels, b"%d" % number, partition=0)
    async with kafka.consumer(kafka_bootstrap, topics=[topics.labels], group=group, max_poll_records=4) as reader:
        await read(reader, 4)
        await reader.commit()
        await read(reader, 4)
    async with kafka.consumer(kafka_bootstrap, topics=[topics.labels], group=group) as reader:
        assert [value for _, _, value in await read(reader, 6)] == [b"4", b"5", b"6", b"7", b"8", b"9"]


async def test_sending_to_a_missing_topic_ends(kafka_bootstrap: str, topics: Topics) -> None:
    async with kafka.producer(kafka_bootstrap) as producer:
        with pytest.raises(kafka.KafkaUnavailable, match="not acknowledged within 1 s"):
            await kafka.send(producer, f"{topics.deployed}.nothing", b"", key=b"k", timeout_s=1)


async def test_no_broker(unused_tcp_port: int) -> None:
    nobody = f"127.0.0.1:{unused_tcp_port}"
    with pytest.raises(kafka.KafkaUnavailable, match=f"Kafka at {nobody} does not answer") as caught:
        await kafka.wait_for_kafka(nobody, 0.5)
    assert caught.value.retriable
    with pytest.raises(kafka.KafkaUnavailable):
        async with kafka.producer(nobody, start_timeout_s=0.5):
            pass
    with pytest.raises(kafka.KafkaUnavailable):
        async with kafka.consumer(nobody, partitions=[TopicPartition("t", 0)], start_timeout_s=0.5):
            pass


async def test_a_consumer_may_be_left_at_once(kafka_bootstrap: str, topics: Topics) -> None:
    for _ in range(5):
        async with kafka.consumer(kafka_bootstrap, partitions=[TopicPartition(topics.outcomes, 0)]):
            pass


async def test_what_a_consumer_needs(kafka_bootstrap: str) -> None:
    for options in ({}, {"topics": ["a"], "partitions": [TopicPartition("a", 0)], "group": "g"}, {"topics": ["a"]}):
        with pytest.raises(ValueError, match="consumer"):
            async with kafka.consumer(kafka_bootstrap, **options):
                pass
