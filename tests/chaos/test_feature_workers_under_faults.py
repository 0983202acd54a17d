"""Three workers of the stream processor under kills, suspensions and restarts of what they stand on: exact afterwards.

Minutes long, so not part of `make test`: `make test-chaos`. `HEADRACE_CHAOS_SEED` repeats a run's order of faults and
its traffic, `HEADRACE_CHAOS_SECONDS` says how long faults go on.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from deploy.local import Layout, Stack
from headrace.pipeline.state import LABEL_RECORD, compile_plan
from headrace.platform import kafka
from headrace.platform.kafka import KafkaAdmin, KafkaFault
from headrace.platform.pipelines import load_pipeline
from headrace.platform.topics import Topics, deployed_name
from headrace.v1.prediction_pb2 import Outcome
from tests.chaos.feature_faults import INFRASTRUCTURE_FAULTS, WORKER_FAULTS, Faults
from tests.chaos.feature_traffic import BAD, PaymentTraffic
from tests.integration.features.deployment import Aborted, Deployment, Worker
from tests.integration.features.log_contents import Contents
from tests.integration.test_local_stack import free_ports

SEED = int(os.environ.get("HEADRACE_CHAOS_SEED") or secrets.randbelow(10**6))
SECONDS = float(os.environ.get("HEADRACE_CHAOS_SECONDS") or 180)
WORKERS = 3
LAG = 3_000
"""Events that wait for the workers: enough that a fault finds them at work."""
BURST = 500
CAUGHT_UP_S = 180.0
# A worker is seldom idle between its Redis calls with small batches, so more of the faults find it in one.
SETTINGS = {"batch_events": 100, "chunk_events": 10, "idle_after_s": 2}

pytestmark = pytest.mark.timeout(SECONDS + 900)


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    directory = Path(tempfile.mkdtemp(prefix="chaos-stack-"))
    stack = Stack(Layout(run=directory / "local", keys=directory / "keys"), free_ports())
    try:
        stack.start_infrastructure()
        yield stack
    finally:
        stack.stop()
        shutil.rmtree(directory)


@pytest.fixture
async def deployment(private: Stack, tmp_path: Path) -> AsyncIterator[Deployment]:
    plan = compile_plan(load_pipeline("pipelines/fraud.py"))
    url = f"redis://127.0.0.1:{private.ports.redis}/0"
    namespace = f"chaos-{secrets.token_hex(4)}"
    async with Redis.from_url(url, retry=Retry(ConstantBackoff(0.1), 100)) as client:
        topics = Topics(deployed_name(plan.pipeline.name, namespace))
        made = Deployment(f"127.0.0.1:{private.ports.kafka}", url, namespace, topics, plan, tmp_path, client)
        await made.create_topics()
        yield made
        await made.close()


async def test_exact_after_faults(deployment: Deployment, private: Stack) -> None:
    """Every log equals the oracle over the topics, every event has its vector, every vector its recomputation."""
    workers = await start_workers(deployment, "headrace.cli", "run", "features")
    faults = Faults(private, workers, SEED, WORKER_FAULTS + INFRASTRUCTURE_FAULTS)
    began = time.monotonic()
    async with under_way(deployment, faults, SEED):
        while time.monotonic() - began < SECONDS or not faults.every_kind_happened:
            say(f"{time.monotonic() - began:6.1f} s: {await faults.strike()}")
        await caught_up(deployment)
    contents = await deployment.contents()
    wrong_keys = await contents.wrong_keys(deployment.client, deployment.keys)
    missing, different = contents.missing_vectors(), contents.wrong_vectors()
    wrongly_rejected = wrong_reasons(contents)
    say(
        f"seed {SEED}, {time.monotonic() - began:.0f} s: {len(contents.accepted)} events accepted, "
        f"{len(contents.refused)} set aside, {len(contents.labels)} labels, faults {dict(faults.done)}, "
        f"exits {dict(faults.exits)}; wrong keys {len(wrong_keys)}, missing vectors {len(missing)}, "
        f"different vectors {len(different)} (and {sum(one.late for one in contents.vectors.values())} late ones that "
        f"may be), rejected wrongly {len(wrongly_rejected)}, "
        f"emitted again {contents.all_vectors - len(contents.vectors)}"
    )
    assert wrong_keys == []
    assert missing == []
    assert different == []
    assert wrongly_rejected == []


@pytest.mark.parametrize(("missing", "kinds"), [("fence", ["kill -9", "SIGSTOP"]), ("seek", ["Redis taken back"])])
async def test_what_is_taken_out_is_missed(
    deployment: Deployment, private: Stack, missing: str, kinds: list[str]
) -> None:
    """The control: what the test above finds nothing of is found when a part of what keeps it exact is taken out.

    Without the fence, labels are counted twice. (Events are recognised by their ids as well.) Without the seek to
    where the state is, what Redis has lost stays lost.
    """
    workers = await start_workers(deployment, "tests.chaos.features_without", missing)
    faults = Faults(private, workers, SEED, kinds)
    began, wrong = time.monotonic(), 0
    async with under_way(deployment, faults, SEED):
        while not wrong:
            assert time.monotonic() - began < SECONDS + 300, f"nothing is wrong after {dict(faults.done)}"
            say(f"{time.monotonic() - began:6.1f} s: {await faults.strike()}")
            wrong = faults.done["Redis taken back"] >= 2 or await doubled_labels(deployment)
        await caught_up(deployment)
    contents = await deployment.contents()
    wrong_keys = await contents.wrong_keys(deployment.client, deployment.keys)
    say(
        f"without the {missing}, seed {SEED}, {time.monotonic() - began:.0f} s: {len(contents.accepted)} events, "
        f"faults {dict(faults.done)}; wrong keys {len(wrong_keys)}, missing vectors {len(contents.missing_vectors())}, "
        f"different vectors {len(contents.wrong_vectors())}"
    )
    assert wrong_keys


async def start_workers(deployment: Deployment, module: str, *arguments: str) -> list[Worker]:
    for number in range(WORKERS):
        environment = deployment.environment(**SETTINGS) | {
            "HEADRACE_STATE_DIR": str(deployment.logs / f"state-{number}")
        }
        worker = Worker([sys.executable, "-m", module, *arguments], environment, deployment.logs / f"{number}.log")
        deployment.workers.append(worker)
        await worker.start()

    async def shared() -> bool:
        return all(worker.partitions("events") for worker in deployment.workers)

    await deployment.until(shared, "every worker has partitions", 60)
    return deployment.workers


@asynccontextmanager
async def under_way(deployment: Deployment, faults: Faults, seed: int) -> AsyncIterator[None]:
    """Traffic and supervision while the block runs; the traffic ends when the block asks for the end of the stream."""
    traffic = PaymentTraffic(deployment.plan.pipeline, seed)
    ending.clear()
    async with asyncio.TaskGroup() as group:
        group.create_task(produce_events(deployment, traffic))
        group.create_task(produce_outcomes(deployment, traffic, seed))
        supervisor = group.create_task(faults.supervise())
        yield
        supervisor.cancel()


ending = asyncio.Event()


async def caught_up(deployment: Deployment) -> None:
    """End the traffic, and wait until all of it is merged, published and committed."""
    ending.set()
    async with asyncio.timeout(CAUGHT_UP_S):
        while not await deployment.caught_up():  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0.2)


async def produce_events(deployment: Deployment, traffic: PaymentTraffic) -> None:
    while not ending.is_set():
        with suppress(KafkaFault, TimeoutError):
            async with kafka.producer(deployment.bootstrap) as producer:
                while not ending.is_set():
                    if await lag(deployment) > LAG:
                        await asyncio.sleep(0.05)
                        continue
                    async with asyncio.timeout(30):
                        sent = [
                            await producer.send(
                                deployment.topics.events, one.value, key=one.key, partition=one.partition
                            )
                            for one in traffic.events(BURST)
                        ]
                        await asyncio.gather(*sent)


async def produce_outcomes(deployment: Deployment, traffic: PaymentTraffic, seed: int) -> None:
    """As the join does, in transactions; the outcomes of an aborted one are never sent again.

    Nor are those of a transaction of which it is not known whether it was committed: they would be doubled.
    """
    random = np.random.default_rng(seed)
    name = f"{deployment.topics.deployed}.chaos"
    while not ending.is_set():
        with suppress(KafkaFault, TimeoutError):
            async with kafka.transactional_producer(deployment.bootstrap, name) as producer:
                while not ending.is_set():
                    batch = traffic.outcomes(int(random.integers(1, 30)))
                    with suppress(Aborted):
                        async with kafka.transaction(producer):
                            await send_outcomes(deployment, producer, batch)
                            if random.random() < 0.25:
                                raise Aborted
                    await asyncio.sleep(0.02)


async def send_outcomes(deployment: Deployment, producer: object, batch: list[Outcome]) -> None:
    sent = [
        await producer.send(  # type: ignore[attr-defined]
            deployment.topics.outcomes, one.SerializeToString(), key=one.prediction.event_id.encode()
        )
        for one in batch
    ]
    await asyncio.gather(*sent)


async def lag(deployment: Deployment) -> int:
    """Events that are in the topic and not committed."""
    async with KafkaAdmin(deployment.bootstrap, timeout_s=10) as admin:
        committed = await admin.committed(deployment.topics.group("features"))
        ends = await admin.end_offsets([deployment.topics.events])
    return sum(end - committed.get(at, (0, ""))[0] for at, end in ends.items())


async def doubled_labels(deployment: Deployment) -> int:
    """Records that are in their label log twice."""
    found = 0
    try:
        for entity in deployment.plan.entities:
            pattern = deployment.keys.label_log(entity.entity) + "*"
            names = [name async for name in deployment.client.scan_iter(pattern, 5000)]
            values: list[Any] = await deployment.client.mget(names) if names else []
            for value in values:
                records = np.frombuffer(value or b"", LABEL_RECORD)
                found += len(records) - len(np.unique(records))
    except RedisConnectionError:
        return 0
    return found


def wrong_reasons(contents: Contents) -> list[str]:
    """Records that were set aside for another reason than theirs, or not at all."""
    wrong = []
    told = {(one.source.partition, one.source.offset): one for one in contents.rejected}
    for place in told.keys() | contents.refused.keys():
        one, expected = told.get(place), contents.refused.get(place)
        if one is None or expected is None or one.reason != expected.reason or one.reason not in reasons(one.key):
            wrong.append(f"{place}: {one and one.reason}, expected {expected and expected.reason}")
    return wrong


def reasons(key: bytes) -> set[str]:
    """Why a record with this key may be set aside: a good one only if it is the first after its partition was idle."""
    return {key.removeprefix(BAD).decode() if key.startswith(BAD) else "future"}


def say(line: str) -> None:
    """For whoever watches: run pytest with `-s`."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
