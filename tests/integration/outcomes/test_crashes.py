"""Exactly once through kill -9, lost stores, and two processes that take turns."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections import Counter

import pytest

from headrace.pipeline import DAY, HOUR
from headrace.platform import kafka
from headrace.v1.event_pb2 import Label
from headrace.v1.prediction_pb2 import Prediction
from tests.integration.outcomes.deployment import Deployment, label, on_day, prediction, summary

EVENTS = 3000
DAYS = 60
HORIZON = 30 * DAY
LATENESS = HOUR

Summary = list[tuple[str, str, float, float | None]]


def payments(seed: int) -> tuple[list[Prediction], list[Label], Summary]:
    """Sixty days of predictions, their labels a week later, and the outcomes that they must make but for expiry.

    One in ten events has no label, one in ten has two of the same, one in ten a correction.
    """
    chance = random.Random(seed)
    predictions, labels = [], []
    expected: Summary = []
    for number in range(EVENTS):
        event_id, day = f"{seed}-{number}", number * DAYS / EVENTS
        predictions.append(prediction(event_id, on_day(day)))
        fate, value = chance.random(), float(chance.random() < 0.3)
        if fate < 0.1:
            continue
        labels.append(label(event_id, value, on_day(day + 7)))
        expected.append((event_id, "labelled", value, None))
        if fate < 0.2:
            labels.append(labels[-1])
        elif fate < 0.3:
            labels.append(label(event_id, 1 - value, on_day(day + 9)))
            expected.append((event_id, "corrected", 1 - value, value))
    labels.sort(key=lambda one: one.label_time_us)
    return predictions, labels, expected


def expiring(deployment: Deployment, predictions: list[Prediction], labels: list[Label]) -> Summary:
    """The outcomes of the events without a label whose horizon has passed."""
    labelled = {one.event_id for one in labels}
    reached: Counter[int] = Counter()
    for one in predictions:
        partition = deployment.partition_of(one.event_id)
        reached[partition] = max(reached[partition], one.event_time_us)
    return [
        (one.event_id, "expired", 0.0, None)
        for one in predictions
        if one.event_id not in labelled
        and one.event_time_us + HORIZON <= reached[deployment.partition_of(one.event_id)] - LATENESS
    ]


async def publish(deployment: Deployment, predictions: list[Prediction], labels: list[Label]) -> None:
    """As a stream that goes on while processes come and go: the labels of a day beside the predictions of the day."""
    sent = 0
    for start in range(0, len(predictions), 50):
        batch = predictions[start : start + 50]
        await deployment.send_predictions(batch)
        until = sent
        while until < len(labels) and labels[until].label_time_us <= batch[-1].event_time_us:
            until += 1
        await deployment.send_labels(labels[sent:until])
        sent = until
        # The pace of the stream, not a wait for something.
        await asyncio.sleep(0.1)
    await deployment.send_labels(labels[sent:])


@pytest.mark.timeout(180)
async def test_each_label_meets_its_prediction_once_through_kills(deployment: Deployment) -> None:
    chance = random.Random(1)
    predictions, labels, expected = payments(1)
    expected = sorted(expected + expiring(deployment, predictions, labels))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(publish(deployment, predictions, labels))
        killed_with = []
        for _ in range(8):
            # Small transactions, so that a kill falls into one.
            await deployment.start(batch_records=20, expiry_records=20)

            async def joining() -> bool:
                return any(entry["event"] == "catching up" for entry in deployment.log())

            await deployment.until(joining, "it takes its partitions over")
            # The moment is the point; nothing is waited for.
            await asyncio.sleep(chance.uniform(0, 0.6))
            await deployment.kill()
            killed_with.append(len(await deployment.outcomes()))
            if chance.random() < 0.4:
                shutil.rmtree(deployment.stores, ignore_errors=True)
    assert len(set(killed_with)) > 2, f"the kills fell into nothing: {killed_with}"
    await deployment.start()
    await deployment.joined()
    outcomes = await deployment.until_outcomes(len(expected))
    assert summary(outcomes) == expected
    assert await deployment.terminate() == 0
    # Once more, all over again, without a store: nothing is published.
    shutil.rmtree(deployment.stores)
    await deployment.start()
    await deployment.until_ready()
    assert len(await deployment.outcomes()) == len(expected)


@pytest.mark.timeout(120)
async def test_partitions_move_between_two_processes(deployment: Deployment) -> None:
    predictions, labels, expected = payments(3)
    expected = sorted(expected + expiring(deployment, predictions, labels))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(publish(deployment, predictions, labels))
        await deployment.start(instance="a", batch_records=50)
        await deployment.until_ready()
        first = deployment.processes[0]
        await deployment.start(instance="b", batch_records=50)

        async def shared() -> bool:
            return any(
                entry["event"] == "partitions assigned" and len(entry["partitions"]) == 2 for entry in deployment.log()
            )

        await deployment.until(shared, "the second process has its share")
    # Its partitions go to the other one when its session has ended.
    await deployment.kill(first)
    await deployment.joined()
    outcomes = await deployment.until_outcomes(len(expected))
    assert summary(outcomes) == expected


async def test_a_process_that_is_fenced_ends_and_its_successor_goes_on(deployment: Deployment) -> None:
    await deployment.start()
    await deployment.until_ready()
    transactional_id = deployment.topics.transactional_id("outcomes", deployment.partition_of("e"))
    async with kafka.transactional_producer(deployment.bootstrap, transactional_id):
        await deployment.send_predictions([prediction("e", on_day(0))])
        await deployment.send_labels([label("e", 1, on_day(7))])
        assert await asyncio.wait_for(deployment.processes[-1].wait(), 30) == 1
    assert any(entry["event"] == "service failed" for entry in deployment.log())
    await deployment.start()
    assert summary(await deployment.until_outcomes(1)) == [("e", "labelled", 1, None)]
