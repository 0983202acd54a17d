"""Snapshots of several learners as one."""

from __future__ import annotations

import base64
from dataclasses import replace

import numpy as np
import pytest
from river import linear_model, optim

from headrace.learner.examples import Example
from headrace.learner.learning import Learning
from headrace.learner.merging_progress import merge_snapshots
from headrace.learner.recipes import Recipe, recognise
from headrace.learner.snapshot import Snapshot, decode, encode

NAMES = ("amount", "night")
PARTITIONS = 4


def recipe() -> Recipe:
    return recognise(linear_model.LogisticRegression(optim.SGD(0.05)), NAMES)


def examples(partitions: tuple[int, ...], first: int, count: int) -> list[Example]:
    return [
        Example(
            number,
            f"{number}",
            partitions[number % len(partitions)],
            first + number,
            7 * number,
            number % 3 == 0,
            [float(number % 5), 1.0],
            "correction" if number % 10 == 9 else "",
        )
        for number in range(count)
    ]


def shard(base: Snapshot, number: int, count: int) -> Snapshot:
    learning = Learning.restore(recipe(), base, 7)
    learning.learn(examples((number, number + 2), 100, count))
    return learning.snapshot(f"000001-shard-{number}", "000001")


@pytest.fixture
def base() -> Snapshot:
    learning = Learning(recipe(), NAMES, 7, (0,) * PARTITIONS)
    learning.learn(examples((0, 1, 2, 3), 0, 40))
    return learning.snapshot("000001", "000000")


def test_counts_and_offsets_are_of_all(base: Snapshot) -> None:
    shards = [shard(base, 0, 50), shard(base, 1, 20)]
    merged = merge_snapshots(recipe(), base, shards, 12)
    progress = merged.progress
    assert progress.learned_count == 36 + 45 + 18
    assert dict(progress.ignored) == {"correction": 4 + 5 + 2}
    assert progress.next_offsets == tuple(
        max(one.progress.next_offsets[number] for one in shards) for number in range(PARTITIONS)
    )
    assert progress.first_offsets == (0,) * PARTITIONS
    assert progress.next_command == 12
    assert progress.model_time_us == 48
    assert decode(encode(replace(merged, version="000002"))).progress == progress


def test_metrics_are_sums_and_the_newest_of_each(base: Snapshot) -> None:
    shards = [shard(base, 0, 50), shard(base, 1, 20)]
    merged = merge_snapshots(recipe(), base, shards, 0)
    again = Learning.restore(recipe(), merged, 7)
    assert again.metrics.values()["rolling_count"] == 36 + 45 + 18
    assert merged.metrics["count"] == 36 + 45 + 18
    total = sum(one.metrics["loss"] for one in shards) - base.metrics["loss"]
    assert merged.metrics["loss"] == pytest.approx(total, rel=1e-12)
    scores = [np.frombuffer(base64.b64decode(one.metrics["scores"]), "<f8") for one in (base, *shards, merged)]
    np.testing.assert_array_equal(scores[3], np.concatenate([scores[0], scores[1][36:], scores[2][36:]]))
    assert len(merged.recent) == 36 + 45 + 18


def test_full_windows_are_shared_in_proportion(base: Snapshot) -> None:
    shards = [shard(base, 0, 4000), shard(base, 1, 1000)]
    merged = merge_snapshots(recipe(), base, shards, 0)
    again = Learning.restore(recipe(), merged, 7)
    assert again.metrics.values()["rolling_count"] == 2000
    scores = [np.frombuffer(base64.b64decode(one.metrics["scores"]), "<f8") for one in (*shards, merged)]
    np.testing.assert_array_equal(scores[2][-2000:], np.concatenate([scores[0][-1600:], scores[1][-400:]]))
    assert len(merged.recent) == 256


def test_one_that_learned_alone_is_taken_as_it_is(base: Snapshot) -> None:
    alone = shard(base, 1, 30)
    idle = shard(base, 0, 0)
    merged = merge_snapshots(recipe(), base, [idle, alone], 0)
    assert merged.model == alone.model
    assert merged.metrics == alone.metrics
    np.testing.assert_array_equal(merged.recent, alone.recent)
