from __future__ import annotations

import numpy as np

from headrace.features.trimming import SLACK_RECORDS, plan_rewrites
from headrace.pipeline.state import HEADER_TIME, LABEL_RECORD, compile_plan
from headrace.platform.pipelines import load_pipeline

entity = compile_plan(load_pipeline("pipelines/fraud.py")).entities[1]


def log(count: int) -> bytes:
    records = np.zeros(count, entity.event_record)
    records["time"] = np.arange(1, count + 1)
    records["id"] = np.arange(count)
    return records.tobytes()


def test_short_logs_and_live_logs_are_left_alone() -> None:
    assert plan_rewrites(entity, entity.event_record, [b"", log(SLACK_RECORDS), log(500)], 0) == []
    assert plan_rewrites(entity, entity.event_record, [log(SLACK_RECORDS)], 10**9) == []


def test_a_third_must_have_expired() -> None:
    assert plan_rewrites(entity, entity.event_record, [log(300)], 100) == []
    assert len(plan_rewrites(entity, entity.event_record, [log(300)], 101)) == 1


def test_what_is_kept_follows_a_header_with_the_next_epoch() -> None:
    stored = log(300)
    (first,) = plan_rewrites(entity, entity.event_record, [b"", stored], 200)
    assert (first.slot, first.length, first.first) == (1, len(stored), stored[: entity.event_record.itemsize])
    kept = np.frombuffer(first.content, entity.event_record)
    assert (kept["time"][0], kept["id"][0]) == (HEADER_TIME, 1)
    assert kept["time"][1:].tolist() == list(range(201, 301))
    (second,) = plan_rewrites(entity, entity.event_record, [first.content], 290)
    again = np.frombuffer(second.content, entity.event_record)
    assert (again["time"][0], again["id"][0]) == (HEADER_TIME, 2)
    assert again["time"][1:].tolist() == list(range(291, 301))
    assert second.first == first.content[: entity.event_record.itemsize]


def test_a_log_that_has_expired_as_a_whole_keeps_its_header() -> None:
    (rewrite,) = plan_rewrites(entity, entity.event_record, [log(100)], 1000)
    assert rewrite.content == entity.header(entity.event_record, 1)


def test_label_logs_are_trimmed_alike() -> None:
    records = np.zeros(90, LABEL_RECORD)
    records["time"] = np.arange(1, 91)
    (rewrite,) = plan_rewrites(entity, LABEL_RECORD, [records.tobytes()], 60)
    assert np.frombuffer(rewrite.content, LABEL_RECORD)["time"].tolist() == [HEADER_TIME, *range(61, 91)]
