"""Learners that share the outcomes, as processes against a real broker."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest

from headrace.v1.model_pb2 import ModelVersion
from tests.integration.learner.deployment import PARTITIONS, Deployment

pytestmark = pytest.mark.timeout(240)

SHARED = {"shards": 2, "publish_interval_s": 0.3, "shard_wait_s": 30}


def learned(count: int) -> Any:
    return lambda versions: bool(versions) and versions[-1].learned_count >= count


def ranges(version: ModelVersion) -> dict[int, tuple[int, int]]:
    return {one.partition: (one.first, one.end) for one in version.learned}


async def test_versions_are_merged_and_equal_to_their_replay_through_kill_9(deployment: Deployment) -> None:
    outcomes = deployment.outcomes(1200)
    first, second = [await deployment.start(instance=str(number), **SHARED) for number in range(2)]
    await deployment.until(bool)
    await deployment.feed(outcomes[:500], pause_s=0.02)
    await deployment.until(learned(50))
    # The shard that does not merge dies between two versions, and comes back; then the one that merges.
    second.kill()
    await second.wait()
    await deployment.start(instance="1", **SHARED)
    await deployment.feed(outcomes[500:900], pause_s=0.02)
    await deployment.until(learned(deployment.learnable(outcomes[:500])))
    first.kill()
    await first.wait()
    await deployment.start(instance="0", **SHARED)
    await deployment.feed(outcomes[900:], pause_s=0.02)
    count = deployment.learnable(outcomes)
    versions = await deployment.until(learned(count))
    newest = versions[-1]
    assert newest.learned_count == count
    merged = [one for one in versions if len(one.shards) > 1 and min(x.learned_count for x in one.shards) > 0]
    assert merged
    for version in merged:
        for one in version.shards:
            assert (one.base, one.shards) == (version.parent, 2)
            assert [x.partition for x in one.learned] == list(range(one.shard, PARTITIONS, 2))
    for version, parent in zip(versions[1:], versions, strict=False):
        assert version.learned_count == parent.learned_count + sum(one.learned_count for one in version.shards)
        ends = {p: end for p, (_, end) in ranges(parent).items()}
        for one in version.shards:
            for part in one.learned:
                assert part.first == ends[part.partition]
                ends[part.partition] = part.end
        assert ends == {p: end for p, (_, end) in ranges(version).items()}
    again = await deployment.replay(newest.version)
    assert (again.same, again.equal, again.onnx_equal, again.duplicates) == (True, True, True, 0)
    assert again.learned_count == count

    # One learner goes on where they ended, and its versions are replayed through theirs.
    for process in deployment.processes:
        if process.returncode is None:
            process.terminate()
            assert await asyncio.wait_for(process.wait(), 25) == 0
    await deployment.start()
    more = deployment.outcomes(60, seed=1)
    await deployment.feed(more)
    alone = (await deployment.until(learned(count + deployment.learnable(more))))[-1]
    assert not alone.shards
    assert (await deployment.replay(alone.version)).same


async def test_a_round_goes_on_without_a_shard_that_hangs_which_learns_its_outcomes_later(
    deployment: Deployment,
) -> None:
    outcomes = deployment.outcomes(400)
    settings = SHARED | {"shard_wait_s": 0.5}
    await deployment.start(instance="0", **settings)
    await deployment.until(bool)
    hangs = await deployment.start(instance="1", **settings)
    await deployment.until_logged("service started", 100)
    hangs.send_signal(signal.SIGSTOP)
    await deployment.feed(outcomes)
    alone = await deployment.until(lambda versions: bool(versions) and list(versions[-1].missing_shards) == [1])
    assert {one.shard for one in alone[-1].shards} == {0}
    before = ranges(alone[0])
    assert {partition for partition, (_, end) in ranges(alone[-1]).items() if end > before[partition][1]} <= {0, 2}
    hangs.send_signal(signal.SIGCONT)
    newest = (await deployment.until(learned(deployment.learnable(outcomes))))[-1]
    assert newest.learned_count == deployment.learnable(outcomes)
    assert (await deployment.replay(newest.version)).same
