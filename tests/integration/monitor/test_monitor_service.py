"""The monitor against real Kafka: alerts raised, cleared, and announced once across kill -9."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from headrace.monitor.alert_topic import read_alerts
from headrace.pipeline import DAY
from headrace.platform.kafka import committed_offsets, producer
from headrace.platform.topics import Topics, create_topics
from headrace.v1.alert_pb2 import ALERT_STATE_CLEARED, ALERT_STATE_RAISED, Alert
from headrace.v1.prediction_pb2 import Outcome, Prediction
from tests.integration.monitor.monitor_process import MonitorProcess
from tests.integration.monitor.watched_pipeline import pipeline
from tests.integration.monitor.watched_stream import BEGIN_US, outcomes, predictions

PIPELINE = Path(__file__).parent / "watched_pipeline.py"
WAIT_S = 30.0


@pytest.fixture
async def topics(kafka_bootstrap: str, namespace: str) -> Topics:
    deployed = f"watched-{namespace}"
    await create_topics(kafka_bootstrap, deployed)
    return Topics(deployed)


@pytest.fixture
def monitor(kafka_bootstrap: str, namespace: str, tmp_path: Path) -> MonitorProcess:
    return MonitorProcess(kafka_bootstrap, PIPELINE, namespace, tmp_path)


def day(number: int, *, shift: float = 0.0) -> list[Prediction]:
    return predictions(number, pipeline.features_fingerprint, shift=shift)


async def publish(bootstrap: str, topic: str, rows: Sequence[Prediction | Outcome]) -> None:
    async with producer(bootstrap) as sender:
        sent = [
            await sender.send(
                topic,
                row.SerializeToString(),
                key=(row.prediction if isinstance(row, Outcome) else row).event_id.encode(),
            )
            for row in rows
        ]
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(*sent)


async def alerts_when(bootstrap: str, topics: Topics, count: int) -> list[Alert]:
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while len(found := await read_alerts(bootstrap, topics.alerts, WAIT_S)) < count:
        assert asyncio.get_running_loop().time() < deadline, f"{len(found)} alerts of {count}"
        await asyncio.sleep(0.1)
    return found


async def test_a_shifted_feature_is_announced_once_across_kill_9(
    kafka_bootstrap: str, topics: Topics, monitor: MonitorProcess
) -> None:
    async with monitor:
        for number in range(8):
            await publish(kafka_bootstrap, topics.predictions, day(number))
        for number in (8, 9):
            await publish(kafka_bootstrap, topics.predictions, day(number, shift=1.0))
        await publish(kafka_bootstrap, topics.predictions, day(10, shift=1.0)[:100])
        [raised] = await alerts_when(kafka_bootstrap, topics, 1)
        await monitor.until_judged("predictions", BEGIN_US + 10 * DAY)
        monitor.signal(signal.SIGKILL)
        assert await monitor.wait() == -signal.SIGKILL

    assert (raised.rule, raised.subject, raised.state) == ("feature_drift", "amount", ALERT_STATE_RAISED)
    assert raised.event_time_us == BEGIN_US + 9 * DAY
    assert raised.alert_id == f"feature_drift/amount/{raised.event_time_us}"
    assert raised.value > raised.threshold >= 0.1
    assert "amount" in raised.detail

    async with monitor:
        await monitor.until_judged("predictions", BEGIN_US + 10 * DAY)
        assert [raised] == await read_alerts(kafka_bootstrap, topics.alerts, WAIT_S)
        await publish(kafka_bootstrap, topics.predictions, day(10, shift=1.0)[100:])
        for number in (11, 12):
            await publish(kafka_bootstrap, topics.predictions, day(number))
        [_, cleared] = await alerts_when(kafka_bootstrap, topics, 2)
        assert (cleared.rule, cleared.subject, cleared.state) == ("feature_drift", "amount", ALERT_STATE_CLEARED)
        assert cleared.event_time_us == BEGIN_US + 12 * DAY
        monitor.signal(signal.SIGKILL)
        await monitor.wait()

    async with monitor:
        await monitor.until_judged("predictions", BEGIN_US + 12 * DAY)
        shown = await monitor.metrics()
        assert shown['headrace_monitor_alert_raised_info{rule="feature_drift",subject="amount"}'] == 0
        assert shown['headrace_monitor_drift_psi_ratio{subject="amount"}'] < 0.1
        assert [raised, cleared] == await read_alerts(kafka_bootstrap, topics.alerts, WAIT_S)
        monitor.signal(signal.SIGTERM)
        assert await monitor.wait() == 0


async def test_a_stream_that_does_not_change_raises_nothing(
    kafka_bootstrap: str, topics: Topics, monitor: MonitorProcess
) -> None:
    async with monitor:
        answers = [day(number) for number in range(14)]
        for rows in answers:
            await publish(kafka_bootstrap, topics.predictions, rows)
        for rows in answers[:12]:
            await publish(kafka_bootstrap, topics.outcomes, outcomes(rows))
        await monitor.until_judged("predictions", BEGIN_US + 13 * DAY)
        await monitor.until_judged("outcomes", BEGIN_US + 11 * DAY)
        assert await read_alerts(kafka_bootstrap, topics.alerts, WAIT_S) == []
        shown = await monitor.metrics()
        assert shown['headrace_monitor_predictions_total{role="answer"}'] == 14 * 600
        assert shown['headrace_monitor_outcomes_total{kind="labelled"}'] == 12 * 600
        assert shown["headrace_monitor_auc_ratio"] > 0.6
        assert shown["headrace_monitor_labelled_ratio"] == 1
        assert shown['headrace_monitor_lag_records{topic="predictions"}'] == 0
        assert shown["headrace_monitor_prediction_age_seconds"] > 0

        async def committed() -> int:
            offsets = await committed_offsets(kafka_bootstrap, topics.group("monitor"))
            return sum(offset for partition, offset in offsets.items() if partition.topic == topics.predictions)

        deadline = asyncio.get_running_loop().time() + WAIT_S
        while await committed() < 14 * 600:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.1)


async def test_scores_that_foretell_nothing_raise_quality(
    kafka_bootstrap: str, topics: Topics, monitor: MonitorProcess
) -> None:
    async with monitor:
        for number in range(9):
            rows = day(number)
            await publish(kafka_bootstrap, topics.predictions, rows)
            await publish(kafka_bootstrap, topics.outcomes, outcomes(rows, blind=number >= 6))
        await monitor.until_judged("outcomes", BEGIN_US + 8 * DAY)
        alerts = await read_alerts(kafka_bootstrap, topics.alerts, WAIT_S)
        quality = [alert for alert in alerts if alert.rule == "quality"]
        assert [alert.event_time_us for alert in quality] == [BEGIN_US + 7 * DAY]
        assert quality[0].value < quality[0].threshold == 0.6
