"""`headrace lineage`: from an event to all that its answer was made of."""

from __future__ import annotations

import shutil

import pytest

from headrace.cli import record_search
from headrace.platform.kafka import TopicPartition
from headrace.v1.event_pb2 import Event
from headrace.v1.prediction_pb2 import ROLE_REPEAT, ROLE_SHADOW
from tests.integration.cli.written_pipeline import TIME_US, WrittenPipeline

pytestmark = pytest.mark.timeout(180)


async def test_an_event_of_the_stream_is_traced_to_the_end(
    written: WrittenPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that the prediction is several windows back.
    monkeypatch.setattr(record_search, "FIRST_WINDOW", 20)
    versions = await written.versions(4)
    await written.route(versions[3])
    at = await written.scored("pay-1", "000002", filling=400)
    shadow = written.prediction("pay-1", "000003", ROLE_SHADOW, score=0.75)
    await written.answered(shadow)
    await written.answered(written.prediction("last", "000003"), filling=200)
    before = await written.shown("lineage", "pay-1")
    assert (before["complete"], before["outcome"]) == (True, None)
    assert "--whole finds answers before it" in str(before["notes"])
    assert "--whole" not in str((await written.shown("lineage", "pay-1", "--whole"))["notes"])
    outcome_at = await written.outcome(written.prediction("pay-1", "000002"), at, 1.0)

    found = await written.shown("lineage", "pay-1")
    assert found["complete"], found["missing"]
    assert found["event"]["position"].startswith(f"{written.topics.events}/")
    assert found["prediction"]["position"] == f"{at.topic}/{at.partition}/{at.offset}"
    assert [(one["role"], one["model_version"]) for one in found["others"]] == [("shadow", "000003")]
    features = found["features"]
    assert list(features["values"]) == list(written.pipeline.feature_names)
    assert list(features["values"].values())[:3] == [0.0, 0.25, 0.5]
    assert features["evaluated_at"] == {"events": [4, -1], "outcomes": [-1, -1]}
    assert features["equals_vector"]
    model = found["model"]
    assert (model["version"], model["state"], model["parent"]) == ("000002", "retired", "000001")
    assert model["learned"][0] == {"partition": 0, "first": 0, "end": 200}
    assert model["artifacts"]["onnx"]["sha256"] == versions[2].onnx.sha256.hex()
    assert {one["signature"] for one in model["artifacts"].values()} == {"verified"}
    assert (found["ancestors"]["count"], found["ancestors"]["whole"]) == (2, True)
    outcome = found["outcome"]
    assert outcome["position"] == f"{outcome_at.topic}/{outcome_at.partition}/{outcome_at.offset}"
    assert (outcome["label"], outcome["kind"]) == (1.0, "labelled")
    # The versions of the test learned everything below 300 of partition 0.
    learned_by = "000001" if outcome_at.partition == 0 else None
    assert outcome["learned_by"] == {written.pipeline.models[0].name: learned_by}

    status, said = await written.command("lineage", "pay-1")
    assert status == 0, said
    assert said.splitlines()[-1] == "complete"


async def test_the_first_answer_counts_and_calls_are_traced_too(written: WrittenPipeline) -> None:
    await written.versions(1)
    first = written.prediction("call-1", "000000", ingested=True)
    at = await written.answered(first)
    event = Event(event_id="call-1", event_time_us=TIME_US).SerializeToString()
    (event_at,) = await written.write(written.topics.events, [(b"c1", event)])
    await written.answered(written.prediction("call-1", "000000", ROLE_REPEAT))
    later = await written.answered(written.prediction("call-1", "000000", score=0.9))

    found = await written.shown("lineage", "call-1")
    # The newest answer ends the search of a large partition; here all is in one window.
    assert found["prediction"]["position"].endswith(f"/{at.offset}")
    assert found["event"]["position"] == f"{event_at.topic}/{event_at.partition}/{event_at.offset}"
    assert [one["role"] for one in found["others"]] == ["repeat", "answer"]
    assert found["others"][1]["position"].endswith(f"/{later.offset}")
    assert found["complete"], found["missing"]

    await written.answered(written.prediction("call-2", "000000"))
    alone = await written.shown("lineage", "call-2")
    assert alone["event"]["position"] is None
    assert alone["complete"]
    assert "no ingest" in alone["notes"][0]


async def test_what_retention_took_is_named(written: WrittenPipeline) -> None:
    await written.versions(4, keep=2)
    await written.scored("old", "000001")
    kept = await written.shown("lineage", "old")
    # The version has left `models`, and its record tells the rest.
    assert kept["complete"], kept["missing"]
    assert kept["model"]["state"] == "retired"
    assert kept["model"]["artifacts"]["onnx"]["file"] == "missing"
    assert kept["model"]["artifacts"]["onnx"]["signature"] == "verified"

    shutil.rmtree(written.store.directory / written.topics.deployed / "models" / "000000")
    topic, partition, offset = kept["event"]["position"].split("/")
    await written.forget(TopicPartition(topic, int(partition)), int(offset) + 1)
    cut = await written.shown("lineage", "old")
    assert not cut["complete"]
    assert {one["what"] for one in cut["missing"]} == {"event", "ancestors"}
    shutil.rmtree(written.store.directory / written.topics.deployed / "models" / "000001")
    gone = await written.shown("lineage", "old")
    assert gone["model"] is None
    assert "version 000001 is not announced any more and has no record" in str(gone["missing"])
    status, said = await written.command("lineage", "old")
    assert status == 1
    assert said.splitlines()[-1] == "NOT complete: 2 missing"
