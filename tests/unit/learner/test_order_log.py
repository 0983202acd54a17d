"""Order logs are read back as written, whole or not at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.learner.errors import SnapshotError
from headrace.learner.order_log import OrderLog, ShardOrder, decode, encode
from headrace.v1.model_pb2 import Artifact

PARENT = Artifact(uri="artifact:a/order-1.log", sha256=b"\x01" * 32, size_bytes=7, signature=b"\x02" * 64)
POSITIONS = st.lists(st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**63 - 1)), max_size=50)


def log(positions: list[tuple[int, int]], parent: Artifact | None = PARENT) -> OrderLog:
    return OrderLog(
        "000002",
        "000001" if parent else "",
        parent,
        np.array([partition for partition, _ in positions], np.int32),
        np.array([offset for _, offset in positions], np.int64),
    )


@given(positions=POSITIONS, first=st.booleans(), from_history=st.booleans())
def test_round_trip(positions: list[tuple[int, int]], first: bool, from_history: bool) -> None:
    written = replace(log(positions, None if first else PARENT), base=PARENT if from_history else None)
    read = decode(encode(written))
    assert read.base == written.base
    assert (read.version, read.parent, read.parent_order) == (written.version, written.parent, written.parent_order)
    assert list(zip(read.partitions.tolist(), read.offsets.tolist(), strict=True)) == positions


def test_a_merged_log_names_those_of_the_shards() -> None:
    shards = tuple(ShardOrder(number, PARENT, state_of(number), 10 * number) for number in (0, 2))
    assert decode(encode(replace(log([]), shards=shards))).shards == shards
    assert decode(encode(log([]))).shards == ()


def state_of(number: int) -> Artifact:
    return Artifact(uri=f"artifact:a/shard-{number}.json", sha256=b"\x03" * 32, size_bytes=9, signature=b"\x04" * 64)


@pytest.mark.parametrize("cut", [0, 5, 21, 30, -12, -1])
def test_a_cut_log_is_refused(cut: int) -> None:
    with pytest.raises(SnapshotError):
        decode(encode(log([(0, 1), (1, 2)]))[:cut])
