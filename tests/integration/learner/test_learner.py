"""The learner as a process against a real broker."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from headrace.learner import version_records
from headrace.learner.announcements import announcer
from headrace.learner.retention import Retention
from headrace.platform import kafka
from headrace.platform.signing import Signer, Verifier, create_key_pair
from headrace.platform.topics import Topics
from headrace.v1.model_pb2 import ModelVersion, RoutedVersion, RouteTable
from tests.integration.learner.deployment import Deployment

pytestmark = pytest.mark.timeout(180)


def learned(count: int) -> Any:
    return lambda versions: bool(versions) and versions[-1].learned_count >= count


def model_state(deployment: Deployment, version: ModelVersion) -> Any:
    content = deployment.store.get(version.snapshot.uri, version.snapshot.sha256.hex())
    return json.loads(content)["model"]


async def test_first_version_is_untrained_and_there_before_any_label(deployment: Deployment) -> None:
    await deployment.start()
    (first,) = await deployment.until(bool)
    assert first.version == "000000"
    assert first.untrained
    assert first.parent == ""
    assert (first.learned_count, first.model_time_us, first.last_outcome_time_us) == (0, 0, 0)
    assert first.learner_epoch == 1
    session = onnxruntime.InferenceSession(deployment.store.path(first.onnx.uri).read_bytes())
    rows = np.array(first.golden.features, np.float32).reshape(first.golden.rows, -1)
    (scores,) = session.run(["score"], {"features": rows})
    assert np.all(scores == 0.5)
    assert list(first.golden.scores) == [0.5] * first.golden.rows
    assert await deployment.terminate() == 0


async def test_learns_what_comes_and_says_everything_of_it(deployment: Deployment) -> None:
    outcomes = deployment.outcomes(700)
    await deployment.start()
    await deployment.until(bool)
    await deployment.feed(outcomes, pause_s=0.05)
    count = deployment.learnable(outcomes)
    versions = await deployment.until(learned(count))
    newest = versions[-1]
    assert len(versions) > 3
    assert newest.learned_count == count
    assert [one.version for one in versions] == [f"{number:06d}" for number in range(len(versions))]
    assert [one.parent for one in versions] == ["", *(one.version for one in versions[:-1])]
    assert {one.learner_epoch for one in versions} == {1}
    assert not newest.untrained
    assert newest.features_fingerprint == deployment.pipeline.features_fingerprint
    assert list(newest.feature_names) == list(deployment.pipeline.feature_names)
    assert len(bytes.fromhex(newest.recipe_fingerprint)) == 32
    assert newest.model_time_us == max(one.label.label_time_us for one in outcomes if one.kind == outcomes[0].kind)
    # Append time of the broker, which is this machine's.
    assert 0 <= newest.created_time_us - newest.last_outcome_time_us < 60_000_000
    assert {"log_loss", "rolling_log_loss", "rolling_auc", "positive_rate"} <= set(newest.metrics)
    assert newest.metrics["rolling_auc"] > 0.6
    assert [one.partition for one in newest.learned] == [0, 1, 2, 3]
    verifier = Verifier.read(deployment.keys.public)
    for artifact in (newest.onnx, newest.snapshot, newest.order):
        verifier.verify(artifact.sha256, artifact.signature)
        assert len(deployment.store.get(artifact.uri, artifact.sha256.hex())) == artifact.size_bytes

    session = onnxruntime.InferenceSession(deployment.store.path(newest.onnx.uri).read_bytes())
    rows = np.array(newest.golden.features, np.float32).reshape(newest.golden.rows, -1)
    (scores,) = session.run(["score"], {"features": rows})
    assert newest.golden.rows == 16
    assert np.abs(scores[:, 0] - np.array(newest.golden.scores)).max() <= 1e-6 < newest.golden.tolerance

    for version in (versions[1], newest):
        again = await deployment.replay(version.version)
        assert again.equal
        assert again.duplicates == 0
        assert again.learned_count == again.recorded_count == version.learned_count

    committed = await kafka.committed_offsets(deployment.bootstrap, deployment.topics.group("learner"))
    for one in newest.learned:
        assert committed[kafka.TopicPartition(deployment.topics.outcomes, one.partition)] == one.end


@pytest.mark.parametrize("seed", [1, 2])
async def test_killed_at_any_moment_learns_each_outcome_once(deployment: Deployment, seed: int) -> None:
    chance = random.Random(seed)
    outcomes = deployment.outcomes(2500, seed)
    async with asyncio.TaskGroup() as tasks:
        feeding = tasks.create_task(deployment.feed(outcomes, per_transaction=25, pause_s=0.12))
        kills = 0
        while not feeding.done() or kills < 3:
            process = await deployment.start()
            await deployment.until_logged("service started")
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(process.wait(), chance.uniform(0.05, 1.2))
            await deployment.kill()
            kills += 1
    await deployment.start()
    count = deployment.learnable(outcomes)
    versions = await deployment.until(learned(count))
    assert versions[-1].learned_count == count
    # Each process that announced did so under an epoch of its own, and none was contradicted.
    epochs = [one.learner_epoch for one in versions]
    assert epochs == sorted(epochs)
    assert len(set(epochs)) > 1
    numbers = [int(one.version) for one in versions]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    again = await deployment.replay(versions[-1].version)
    assert again.rebuilt == again.recorded
    assert again.duplicates == 0
    assert again.learned_count == count


async def feed_by_days(deployment: Deployment, pause_s: float) -> None:
    """Five days of outcomes, a barrier after each, and one barrier with nothing new."""
    outcomes, ends = deployment.outcomes(1500), [0, 0, 0, 0]
    for day in range(5):
        ends = await deployment.feed(outcomes[day * 300 : (day + 1) * 300], pause_s=pause_s)
        await deployment.command(ends, f"day-{day}")
    await deployment.command(ends, "nothing-new")


async def lockstep_run(deployment: Deployment, *, kill_seed: int | None) -> list[ModelVersion]:
    """The versions of a lockstep replay."""
    if kill_seed is None:
        await feed_by_days(deployment, 0.0)
    else:
        chance = random.Random(kill_seed)
        async with asyncio.TaskGroup() as tasks:
            feeding = tasks.create_task(feed_by_days(deployment, 0.25))
            while not feeding.done() or len(deployment.processes) < 3:
                process = await deployment.start(lockstep="true")
                await deployment.until_logged("service starting")
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(process.wait(), chance.uniform(0.1, 1.5))
                await deployment.kill()
    await deployment.start(lockstep="true")
    await deployment.until_logged("service started")
    versions = await deployment.until(lambda found: len(found) >= 7)
    assert await deployment.terminate() == 0
    # Nothing was published after the last command.
    assert await deployment.announced() == versions
    return versions


def what_is_exact(deployment: Deployment, versions: list[ModelVersion]) -> Any:
    return [
        (one.version, one.learned_count, model_state(deployment, one), dict(one.metrics), list(one.golden.scores))
        for one in versions
    ]


async def test_lockstep_is_the_same_with_and_without_kills(deployment: Deployment, tmp_path: Path) -> None:
    logs = tmp_path / "other"
    logs.mkdir()
    other = dataclasses.replace(
        deployment,
        topics=Topics(f"{deployment.topics.deployed}-b"),
        namespace=f"{deployment.namespace}-b",
        logs=logs,
        processes=[],
    )
    await other.create_topics()
    whole = what_is_exact(deployment, await lockstep_run(deployment, kill_seed=None))
    # One version a command: the untrained one, five days, and one that has learned nothing new.
    per_day = deployment.learnable(deployment.outcomes(300))
    assert [count for _, count, *_ in whole] == [0, *(per_day * day for day in (1, 2, 3, 4, 5, 5))]
    try:
        assert what_is_exact(other, await lockstep_run(other, kill_seed=5)) == whole
    finally:
        await other.close()
    assert (await deployment.replay("000005")).equal


async def test_a_command_for_other_partitions_is_refused_and_the_next_one_handled(deployment: Deployment) -> None:
    await deployment.start(lockstep="true")
    await deployment.until(bool)
    await deployment.command([1, 2], "wrong")
    await deployment.command([0, 0, 0, 0], "right")
    versions = await deployment.until(lambda found: len(found) == 2)
    assert versions[-1].untrained
    assert "command refused" in deployment.log()
    assert '"command_id": "wrong"' in deployment.log()


async def test_a_snapshot_of_another_key_is_refused(deployment: Deployment, tmp_path: Path) -> None:
    await deployment.start()
    await deployment.until(bool)
    await deployment.terminate()
    deployment.keys = create_key_pair(tmp_path / "other")
    process = await deployment.start()
    assert await asyncio.wait_for(process.wait(), 30) != 0
    assert "snapshot of version 000000" in deployment.log()
    assert "was not signed with this learner's key" in deployment.log()


async def test_a_changed_snapshot_is_refused(deployment: Deployment) -> None:
    await deployment.start()
    (first,) = await deployment.until(bool)
    await deployment.terminate()
    path = deployment.store.path(first.snapshot.uri)
    path.write_bytes(path.read_bytes().replace(b'"learned_count":0', b'"learned_count":7'))
    process = await deployment.start()
    assert await asyncio.wait_for(process.wait(), 30) != 0
    assert "snapshot of version 000000 cannot be loaded" in deployment.log()


async def test_a_missing_key_is_one_line(deployment: Deployment, tmp_path: Path) -> None:
    process = await deployment.start(signing_key=tmp_path / "nowhere.pem")
    assert await asyncio.wait_for(process.wait(), 30) == 2
    (line,) = deployment.log().splitlines()
    assert "HEADRACE_LEARNER_SIGNING_KEY" in line
    assert "`headrace keys create`" in line


async def test_an_unknown_recipe_is_refused_by_name(deployment: Deployment, tmp_path: Path) -> None:
    deployment.declare(
        tmp_path / "neighbors.py",
        "from river import linear_model, optim, preprocessing\n\n    return preprocessing.StandardScaler() | "
        "linear_model.LogisticRegression(optim.SGD(0.005))",
        "from river import neighbors, preprocessing\n\n    return preprocessing.StandardScaler() | "
        "neighbors.KNNClassifier()",
    )
    process = await deployment.start()
    assert await asyncio.wait_for(process.wait(), 30) != 0
    assert "the recipe cannot be served: KNNClassifier has no ONNX form" in deployment.log()


async def test_a_fenced_learner_cannot_announce(deployment: Deployment) -> None:
    version = ModelVersion(version="000000", learner_epoch=1)
    retention = Retention(deployment.store, Signer.read(deployment.keys.private), deployment.topics.deployed)
    async with (
        announcer(deployment.bootstrap, deployment.topics, retention) as zombie,
        announcer(deployment.bootstrap, deployment.topics, retention) as leader,
    ):
        await leader.announce([version], 0)
        with pytest.raises(kafka.ProducerFenced):
            await zombie.announce([ModelVersion(version="000000", pipeline="zombie", learner_epoch=1)], 0)
        assert [one.pipeline for one in await deployment.announced()] == [""]
    async with announcer(deployment.bootstrap, deployment.topics, retention) as successor:
        assert successor.epoch == 2
        assert successor.newest == version


async def test_old_versions_leave_but_for_those_in_use_and_their_lineage_stays(deployment: Deployment) -> None:
    await deployment.start(lockstep="true", keep_versions=2)
    outcomes = deployment.outcomes(400)
    first = await deployment.until(bool)
    for number in range(4):
        ends = await deployment.feed(outcomes[number * 100 : (number + 1) * 100])
        await deployment.command(ends, f"day-{number}")
        if number == 0:
            held = (await deployment.until(lambda found: found[-1].version == "000001"))[-1]
            await deployment.route(RouteTable(epoch=1, champion=RoutedVersion(model=held)))
    versions = await deployment.until(lambda found: found[-1].version == "000004")
    # A rollout that is away or frozen serves 000001 for as long as it takes.
    assert [one.version for one in versions] == ["000001", "000003", "000004"]
    await deployment.terminate()
    assert deployment.store.path(held.onnx.uri).exists()
    assert not deployment.store.path(first[0].onnx.uri).exists()
    assert not deployment.store.path(first[0].snapshot.uri).exists()
    assert deployment.store.path(first[0].order.uri).exists()
    verifier = Verifier.read(deployment.keys.public)
    record = version_records.get(deployment.store, verifier, deployment.topics.deployed, "000000")
    first[0].ClearField("golden")
    assert record == first[0]
    assert (await deployment.replay("000004")).equal


async def test_a_second_learner_stands_by_and_takes_over(deployment: Deployment) -> None:
    await deployment.start(instance="a")
    await deployment.until(bool)
    await deployment.start(instance="b")
    await deployment.until_logged("standing by")
    first, second = deployment.processes
    first.kill()
    await first.wait()
    outcomes = deployment.outcomes(100)
    await deployment.feed(outcomes)
    versions = await deployment.until(learned(deployment.learnable(outcomes)))
    assert second.returncode is None
    assert versions[0].learner_epoch < versions[-1].learner_epoch
    assert versions[-1].learned_count == deployment.learnable(outcomes)
