"""Requests are events that nobody has sent before, in files that other programs read."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from headrace.platform.event_codec import check_event
from headrace.platform.pipelines import load_pipeline
from headrace.v1.prediction_service_pb2 import PredictOptions
from loadtests.features.payments import Records
from loadtests.gateway.delimited import read_delimited, write_delimited
from loadtests.gateway.requests import Requests, serialized, write_protoset

pipeline = load_pipeline("pipelines/fraud.py")


@pytest.fixture
def made() -> Requests:
    table = pl.DataFrame(
        {
            "TRANSACTION_ID": [1, 2],
            "TX_DATETIME": ["2020-01-01T00:00:00", "2020-01-02T00:00:00"],
            "CUSTOMER_ID": [10, 11],
            "TERMINAL_ID": [20, 21],
            "TX_AMOUNT": [12.5, 7.0],
            "TX_FRAUD": [0, 1],
        }
    ).with_columns(pl.col("TX_DATETIME").str.to_datetime())
    return Requests(pipeline, Records(pipeline, table), "fraud-bench")


def test_no_event_comes_twice_and_all_follow_the_state(made: Requests) -> None:
    events = [*made.events(3), *made.events(2)]
    assert len({one.event_id for one in events}) == 5
    times = [one.time_us for one in events]
    assert times == sorted(set(times))
    assert times[0] > 1_577_923_200_000_000


def test_both_shapes_are_the_same_event_to_the_gateway(made: Requests) -> None:
    (packed,), (named,) = made.packed(1), made.named(1)
    assert packed.event.schema_fingerprint == pipeline.schema_fingerprint
    assert not named.event.texts
    one, other = check_event(pipeline, packed.event), check_event(pipeline, named.event)
    assert (one.texts, one.numbers) == (["10", "20"], [1250.0])
    assert (other.texts, other.numbers) == (["11", "21"], [700.0])


def test_options_go_with_each_call(made: Requests) -> None:
    assert all(one.options.explain for one in made.packed(2, PredictOptions(explain=True)))
    assert not made.packed(1)[0].HasField("options")


def test_batches_have_a_column_for_each_field(made: Requests) -> None:
    (batch,) = made.batches(1, 3)
    assert len(batch.event_ids) == len(batch.event_times_us) == 3
    columns = {one.name: [*one.texts, *one.numbers] for one in batch.columns}
    assert columns == {
        "customer_id": ["10", "11", "10"],
        "terminal_id": ["20", "21", "20"],
        "amount_cents": [1250.0, 700.0, 1250.0],
    }


def test_a_file_of_messages_is_read_as_it_was_written(made: Requests, tmp_path: Path) -> None:
    messages = made.packed(3)
    write_delimited(tmp_path / "requests", serialized(messages))
    assert read_delimited(tmp_path / "requests") == serialized(messages)
    sizes = [b"", b"x" * 127, b"y" * 128, b"z" * 20_000]
    write_delimited(tmp_path / "raw", sizes)
    assert read_delimited(tmp_path / "raw") == sizes


def test_the_contract_is_written_with_all_that_it_imports(tmp_path: Path) -> None:
    write_protoset(tmp_path / "service.protoset")
    found = FileDescriptorSet.FromString((tmp_path / "service.protoset").read_bytes())
    names = [one.name for one in found.file]
    assert len(names) == len(set(names))
    for at, one in enumerate(found.file):
        assert set(one.dependency) <= set(names[:at])
    assert "PredictionService" in {service.name for one in found.file for service in one.service}
