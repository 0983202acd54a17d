"""When a round of several learners ends, and what it goes on without."""

from __future__ import annotations

from headrace.learner.sharded_learning import own_partitions
from headrace.learner.sharded_round import Round
from headrace.v1.model_pb2 import ShardSnapshot


def report(shard: int, learned: int, base: str = "000003", shards: int = 3) -> ShardSnapshot:
    return ShardSnapshot(shard=shard, shards=shards, base=base, learned_count=learned)


def test_ends_when_all_have_said_what_they_have() -> None:
    current = Round("000003", 3, wait_s=10)
    assert current.ends_in(0) is None
    for number in (2, 0):
        assert current.take(report(number, 5), 100)
    assert current.ends_in(104) == 6
    assert current.missing == [1]
    assert current.take(report(1, 0), 105)
    assert current.ends_in(105) == 0
    assert [one.shard for one in current.reports] == [0, 1, 2]


def test_goes_on_without_those_that_lag() -> None:
    current = Round("000003", 3, wait_s=10)
    current.take(report(1, 5), 100)
    assert current.ends_in(111) == 0
    assert current.missing == [0, 2]


def test_waits_while_nobody_has_learned_anything() -> None:
    current = Round("000003", 2, wait_s=10)
    for number in range(2):
        current.take(report(number, 0, shards=2), 100)
    assert current.ends_in(1000) is None
    current.take(report(0, 4, shards=2), 1000)
    assert current.ends_in(1000) == 0


def test_newest_report_of_a_learner_counts() -> None:
    current = Round("000003", 2, wait_s=10)
    current.take(report(0, 0, shards=2), 100)
    current.take(report(0, 7, shards=2), 101)
    assert [one.learned_count for one in current.reports] == [7]


def test_reports_of_other_rounds_are_not_taken() -> None:
    current = Round("000003", 3, wait_s=10)
    assert not current.take(report(0, 5, base="000002"), 100)
    assert not current.take(report(0, 5, shards=4), 100)
    assert not current.take(report(3, 5), 100)
    assert current.missing == [0, 1, 2]


def test_a_refused_report_is_missing_and_its_round_waits_for_another() -> None:
    current = Round("000003", 2, wait_s=10)
    bad = report(0, 5, shards=2)
    current.take(bad, 100)
    current.refuse(bad)
    assert current.missing == [0, 1]
    assert current.ends_in(1000) is None


def test_every_partition_has_one_learner() -> None:
    for shards in range(1, 9):
        read = [one for shard in range(shards) for one in own_partitions(shard, shards, 8)]
        assert sorted(read) == list(range(8))
