"""The stream processor while Kafka and Redis fail, on a stack of its own: exact afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from deploy.local import Stack
from headrace.pipeline.state import compile_plan
from headrace.platform.pipelines import load_pipeline
from headrace.platform.topics import Topics, deployed_name
from tests.integration.features.deployment import Deployment
from tests.integration.features.older_redis import keep_files, restart_from
from tests.integration.features.payments import Payments
from tests.private_stack import private_stack

pytestmark = [pytest.mark.timeout(300), pytest.mark.faults]


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    with private_stack() as stack:
        yield stack


@pytest.fixture
async def deployment(private: Stack, namespace: str, tmp_path: Path) -> AsyncIterator[Deployment]:
    plan = compile_plan(load_pipeline("pipelines/fraud.py"))
    url = f"redis://127.0.0.1:{private.ports.redis}/0"
    async with Redis.from_url(url, retry=Retry(ConstantBackoff(0.1), 100)) as client:
        topics = Topics(deployed_name(plan.pipeline.name, namespace))
        made = Deployment(f"127.0.0.1:{private.ports.kafka}", url, namespace, topics, plan, tmp_path, client)
        await made.create_topics()
        yield made
        await made.close()


async def test_redis_killed_in_the_middle_of_the_stream(deployment: Deployment, private: Stack) -> None:
    payments = Payments(deployment.plan.pipeline, 15_000, seed=11)
    outcomes = payments.outcomes()
    await deployment.publish(payments.records)
    await deployment.start()
    for number in range(2):
        await deployment.publish_outcomes(outcomes[number::2])
        await deployment.until_emitted(await deployment.emitted() + 1000, supervised=True)
        killed = private.process_id("redis")
        os.kill(killed, signal.SIGKILL)

        async def replaced(killed: int = killed) -> bool:
            return any(line.name == "redis" and line.ready and line.process_id != killed for line in private.status())

        await deployment.until_supervised(replaced, "Redis is back")
    await deployment.until_supervised(deployment.caught_up, "everything is committed")
    await deployment.assert_exact()


async def test_a_broker_killed_in_the_middle_of_the_stream_is_waited_for(
    deployment: Deployment, private: Stack
) -> None:
    payments = Payments(deployment.plan.pipeline, 15_000, seed=12)
    await deployment.publish_outcomes(payments.outcomes())
    await deployment.publish(payments.records)
    worker = await deployment.start()
    await deployment.until_emitted(1000)
    os.kill(private.process_id("kafka"), signal.SIGKILL)
    await deployment.until_supervised(deployment.caught_up, "everything is committed")
    await deployment.assert_exact()
    assert worker.starts == 1


@pytest.mark.parametrize(
    ("program", "says"), [("kafka", "Kafka has not answered for 6 s"), ("redis", "Redis does not answer")]
)
async def test_a_worker_without_progress_ends_itself(
    deployment: Deployment, private: Stack, program: str, says: str
) -> None:
    payments = Payments(deployment.plan.pipeline, 5000, seed=13)
    half = len(payments.records) // 2
    await deployment.publish(payments.records[:half])
    worker = await deployment.start(stall_timeout_s=6, shutdown_timeout_s=3)
    await deployment.until(deployment.caught_up, "the first half is committed")
    hung = private.process_id(program)
    os.kill(hung, signal.SIGSTOP)
    try:
        assert await worker.wait(60) == 1
    finally:
        os.kill(hung, signal.SIGCONT)
    # A commit may be under way when the program stops; it is given up with the batch it belongs to.
    assert says in worker.text() or "not handled within 6 s" in worker.text()
    await deployment.publish(payments.records[half:])
    await deployment.until_supervised(deployment.caught_up, "everything is committed")
    await deployment.assert_exact()


async def test_a_redis_that_came_back_as_it_was_some_time_ago(deployment: Deployment, private: Stack) -> None:
    """What lies between its fences and the commits is merged again, and not published again."""
    payments = Payments(deployment.plan.pipeline, 5000, seed=14)
    outcomes = payments.outcomes()
    await deployment.publish_outcomes(outcomes[::2])
    await deployment.publish(payments.records[:3500])
    worker = await deployment.start()
    await deployment.until_emitted(1000)
    older = await asyncio.to_thread(keep_files, private)
    await deployment.publish_outcomes(outcomes[1::2])
    await deployment.until(deployment.caught_up, "the first part is committed")
    before = await deployment.emitted()
    worker.send(signal.SIGTERM)
    assert await worker.wait() == 0
    killed = await restart_from(private, older)

    async def back() -> bool:
        return any(line.name == "redis" and line.ready and line.process_id != killed for line in private.status())

    contents = await deployment.contents()
    await worker.start()
    await deployment.until_supervised(back, "Redis is back")

    async def merged() -> bool:
        return not await contents.wrong_keys(deployment.client, deployment.keys)

    await deployment.until_supervised(merged, "what Redis had lost is merged again")
    assert await deployment.emitted() == before, "what was published is not published again"
    await deployment.publish(payments.records[3500:])
    await deployment.until_supervised(deployment.caught_up, "everything is committed")
    again = await deployment.assert_exact()
    assert again.all_vectors == len(again.vectors)


async def test_a_redis_that_begins_to_evict_ends_the_worker(deployment: Deployment) -> None:
    worker = await deployment.start()
    await deployment.until(lambda: worker.answers("/readyz"), "the worker is ready")
    await deployment.client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert await worker.wait() == 2
    finally:
        await deployment.client.config_set("maxmemory-policy", "noeviction")
    assert "error: Redis has maxmemory-policy allkeys-lru, which drops state when memory is full" in worker.text()
