"""Three workers of the stream processor under kills, suspensions and restarts of what they stand on: exact afterwards.

Minutes long, so not part of `make test`: `make test-chaos`. `HEADRACE_CHAOS_SEED` repeats a run's order of faults and
its traffic, `HEADRACE_CHAOS_SECONDS` says how long faults go on.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from deploy.local import Stack
from headrace.pipeline.state import LABEL_RECORD, compile_plan
from headrace.platform.pipelines import load_pipeline
from headrace.platform.topics import Topics, deployed_name
from tests.chaos.feature_faults import INFRASTRUCTURE_FAULTS, WORKER_FAULTS, Faults
from tests.chaos.feature_producers import Producers
from tests.chaos.feature_traffic import BAD
from tests.integration.features.deployment import Deployment, Worker
from tests.integration.features.log_contents import Contents
from tests.private_stack import private_stack

SEED = int(os.environ.get("HEADRACE_CHAOS_SEED") or secrets.randbelow(10**6))
SECONDS = float(os.environ.get("HEADRACE_CHAOS_SECONDS") or 180)
SETTINGS = [{"batch_events": 100, "chunk_events": 10, "idle_after_s": 2}, {"idle_after_s": 2}, {"idle_after_s": 2}]
"""Of each worker. One has small batches: it is seldom idle between its calls, so more of the faults find it in one."""

pytestmark = pytest.mark.timeout(SECONDS + 900)


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    with private_stack() as stack:
        yield stack


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
    async with under_way(deployment, faults):
        while time.monotonic() - began < SECONDS or not faults.every_kind_happened:
            say(f"{time.monotonic() - began:6.1f} s: {await faults.strike()}")
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
    assert faults.unexpected == []


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
    async with under_way(deployment, faults):
        while not wrong:
            assert time.monotonic() - began < SECONDS + 300, f"nothing is wrong after {dict(faults.done)}"
            say(f"{time.monotonic() - began:6.1f} s: {await faults.strike()}")
            wrong = faults.done["Redis taken back"] >= 2 or await doubled_labels(deployment)
    contents = await deployment.contents()
    wrong_keys = await contents.wrong_keys(deployment.client, deployment.keys)
    say(
        f"without the {missing}, seed {SEED}, {time.monotonic() - began:.0f} s: {len(contents.accepted)} events, "
        f"faults {dict(faults.done)}; wrong keys {len(wrong_keys)}, missing vectors {len(contents.missing_vectors())}, "
        f"different vectors {len(contents.wrong_vectors())}"
    )
    assert wrong_keys


async def start_workers(deployment: Deployment, module: str, *arguments: str) -> list[Worker]:
    for number, settings in enumerate(SETTINGS):
        environment = deployment.environment(**settings) | {
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
async def under_way(deployment: Deployment, faults: Faults) -> AsyncIterator[None]:
    """Traffic and supervision while the block runs; then all that was produced is merged, published and committed."""
    producers = Producers(deployment, SEED)
    async with asyncio.TaskGroup() as group:
        group.create_task(producers.events())
        group.create_task(producers.outcomes())
        supervisor = group.create_task(faults.supervise())
        yield
        await producers.end()
        supervisor.cancel()


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
