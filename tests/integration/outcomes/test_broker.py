"""The join while the broker is killed, on a stack of its own: exactly once all the same."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from deploy.local import Stack
from headrace.platform import kafka
from headrace.platform.topics import Topics, create_topics, deployed_name
from tests.integration.outcomes.deployment import PARTITIONS, Deployment, label, on_day, prediction, summary
from tests.private_stack import private_stack

EVENTS = 6000


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    with private_stack() as stack:
        yield stack


@pytest.fixture
async def deployment(private: Stack, namespace: str, tmp_path: Path) -> AsyncIterator[Deployment]:
    bootstrap = f"127.0.0.1:{private.ports.kafka}"
    topics = Topics(deployed_name("joined", namespace))
    await create_topics(bootstrap, topics.deployed, PARTITIONS)
    async with kafka.producer(bootstrap) as producer:
        made = Deployment(bootstrap, namespace, topics, tmp_path, producer)
        yield made
        await made.close()


@pytest.mark.faults
@pytest.mark.timeout(180)
async def test_a_broker_killed_in_the_middle_of_the_stream(deployment: Deployment, private: Stack) -> None:
    ids = [f"e{number}" for number in range(EVENTS)]
    await deployment.send_predictions([prediction(one, on_day(0)) for one in ids])
    await deployment.send_labels([label(one, 1, on_day(7)) for one in ids])
    await deployment.start(batch_records=20)

    async def begun() -> bool:
        return len(await deployment.outcomes()) > EVENTS // 20

    await deployment.until(begun, "some are joined")
    assert len(await deployment.outcomes()) < EVENTS
    os.kill(private.process_id("kafka"), signal.SIGKILL)

    async def joined() -> bool:
        # As a supervisor does: what cannot go on says so by its status, and is started again.
        if (status := deployment.processes[-1].returncode) is not None:
            assert status == 1
            await deployment.start(batch_records=20)
        try:
            return await deployment.left() == 0
        except kafka.KafkaUnavailable:
            return False

    await deployment.until(joined, "everything is committed", 90)
    assert summary(await deployment.outcomes()) == sorted((one, "labelled", 1.0, None) for one in ids)
