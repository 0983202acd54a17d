"""A producer that knows only Kafka: the broker's own console producer, with plain JSON."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from deploy.local import Stack
from headrace.platform.kafka import TopicPartition, consumer
from headrace.platform.pipelines import load_pipeline
from headrace.platform.topics import DATA_PARTITIONS, Topics, create_topics, deployed_name
from headrace.v1.event_pb2 import Rejected
from headrace.v1.vector_pb2 import FeatureVector

pytestmark = pytest.mark.timeout(60)

MONDAY_3_AM_US = 1_532_919_600_000_000
"""30 July 2018, 03:00 UTC."""

PAYMENT = (
    f'{{"eventId": "payment-1", "eventTimeUs": "{MONDAY_3_AM_US}", '
    '"fields": {"customer_id": "c1", "terminal_id": "t1", "amount_cents": 1250}}'
)


@pytest.fixture
async def topics(kafka_bootstrap: str, namespace: str) -> Topics:
    """The topics of a deployed pipeline of its own."""
    deployed = deployed_name("fraud", namespace)
    await create_topics(kafka_bootstrap, deployed)
    return Topics(deployed)


@pytest.fixture
def features(topics: Topics, kafka_bootstrap: str, redis_url: str, namespace: str) -> Iterator[None]:
    """The stream processor of that pipeline, as a process. What it logs is shown where a test fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")} | {
        "HEADRACE_NAMESPACE": namespace,
        "HEADRACE_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "HEADRACE_REDIS_URL": redis_url,
        "HEADRACE_FEATURES_OPS_PORT": "0",
    }
    process = subprocess.Popen([sys.executable, "-m", "headrace.cli", "run", "features"], env=environment)
    try:
        yield
        assert process.poll() is None, "the stream processor has ended"
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            process.kill()


def produce(stack: Stack, topic: str, line: str) -> subprocess.CompletedProcess[str]:
    """Publish as README shows it."""
    return subprocess.run(
        [sys.executable, "-m", "deploy.local", "produce", topic],
        cwd=stack.layout.root,
        check=False,
        input=line,
        capture_output=True,
        text=True,
        timeout=60,
    )


async def first_record(bootstrap: str, topic: str, partitions: int) -> bytes:
    """The value of the first record of a topic; waits for it as long as the test may."""
    every = [TopicPartition(topic, number) for number in range(partitions)]
    async with consumer(bootstrap, partitions=every) as reader:
        while True:
            for records in (await reader.getmany(timeout_ms=500)).values():
                return bytes(records[0].value)


@pytest.mark.usefixtures("features")
async def test_a_json_event_of_the_console_producer_gets_its_vector(
    stack: Stack, topics: Topics, kafka_bootstrap: str
) -> None:
    done = produce(stack, topics.events, f"content-type:application/json\tc1\t{PAYMENT}\n")
    assert (done.returncode, done.stderr) == (0, "")
    vector = FeatureVector.FromString(await first_record(kafka_bootstrap, topics.vectors, DATA_PARTITIONS))
    names = load_pipeline("pipelines/fraud.py").feature_names
    values = dict(zip(names, vector.values, strict=True))
    assert (vector.event_id, vector.event_time_us) == ("payment-1", MONDAY_3_AM_US)
    assert list(vector.entities) == ["c1", "t1"]
    assert (values["amount"], values["weekend"], values["night"]) == (12.5, 0.0, 1.0)
    assert values["customer_count_1d"] == 1.0


@pytest.mark.usefixtures("features")
async def test_what_is_no_event_is_set_aside_with_the_reason(
    stack: Stack, topics: Topics, kafka_bootstrap: str
) -> None:
    without_terminal = PAYMENT.replace('"terminal_id": "t1", ', "")
    done = produce(stack, topics.events, f"content-type:application/json\tc1\t{without_terminal}\n")
    assert (done.returncode, done.stderr) == (0, "")
    rejected = Rejected.FromString(await first_record(kafka_bootstrap, topics.rejected, 1))
    assert (rejected.reason, rejected.key, rejected.json) == ("missing_field", b"c1", True)
    assert "terminal_id" in rejected.detail


@pytest.mark.parametrize(
    ("topic", "line", "reason"),
    [
        ("not-there.events", f"content-type:application/json\tc1\t{PAYMENT}\n", "Topic not-there.events not present"),
        ("not-there.events", f"{PAYMENT}\n", "No headers delimiter found on line number 1"),
    ],
)
def test_what_is_not_published_is_said_in_one_line(stack: Stack, topic: str, line: str, reason: str) -> None:
    done = produce(stack, topic, line)
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert said.startswith(f"error: not published to {topic} at 127.0.0.1:{stack.ports.kafka}: {reason}")
