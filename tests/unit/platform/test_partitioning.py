from __future__ import annotations

from random import Random

import pytest
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.partitioner import murmur2 as library_murmur2
from hypothesis import given
from hypothesis import strategies as st

from headrace.platform.partitioning import murmur2, murmur2_partition, murmur2_partitions, partitioner


@pytest.mark.parametrize(
    ("key", "expected"),
    [  # org.apache.kafka.common.utils.UtilsTest.testMurmur2
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_vectors_of_the_java_client(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected & 0xFFFFFFFF


@given(st.binary(max_size=64), st.integers(min_value=1, max_value=64))
def test_as_the_client_library_has_it(key: bytes, partitions: int) -> None:
    assert murmur2(key) == library_murmur2(key)
    every = list(range(partitions))
    assert (
        partitioner(key, every, every) == DefaultPartitioner()(key, every, every) == murmur2_partition(key, partitions)
    )


def test_a_record_without_a_key_must_name_its_partition() -> None:
    with pytest.raises(ValueError, match="key or a partition"):
        partitioner(None, [0, 1], [0, 1])


@given(st.integers(0, 90), st.integers(0, 20), st.integers(1, 64), st.randoms(use_true_random=False))
def test_keys_are_hashed_together_as_alone(count: int, longest: int, partitions: int, random: Random) -> None:
    keys = [random.randbytes(longest) for _ in range(count)] + [random.randbytes(n) for n in range(longest)]
    assert murmur2_partitions(keys, partitions) == [murmur2_partition(key, partitions) for key in keys]
