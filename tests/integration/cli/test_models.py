"""`headrace models`, with nothing up but Kafka."""

from __future__ import annotations

import json

import pytest

from headrace.v1.alert_pb2 import ALERT_STATE_RAISED, Alert
from headrace.v1.model_pb2 import RELEASE_KIND_REFRESH
from tests.integration.cli.written_pipeline import WrittenPipeline

pytestmark = pytest.mark.timeout(180)


async def test_versions_are_listed_shown_and_compared(written: WrittenPipeline) -> None:
    status, said = await written.command("models", "list")
    assert (status, said) == (0, f"{written.topics.deployed} has no versions\n")

    versions = await written.versions(6, keep=4)
    for one, parent in zip(versions[1:], versions, strict=False):
        # What lineage needs of an announcement, each part of it.
        assert (one.parent, one.recipe, one.kind) == (parent.version, written.pipeline.model.name, RELEASE_KIND_REFRESH)
        assert [(span.first, span.end) for span in one.learned] == [(0, one.learned_count), (0, 0)]
        assert one.features_fingerprint == written.pipeline.features_fingerprint
        assert len(one.recipe_fingerprint) == 64
        assert {"log_loss", "rolling_auc"} <= set(one.metrics)
        assert {(len(file.sha256), len(file.signature)) for file in (one.onnx, one.snapshot, one.order)} == {(32, 64)}
    await written.route(versions[3], versions[2])
    alert = Alert(rule="rollout", subject="000004", state=ALERT_STATE_RAISED, detail="golden rows: apart by 0.5")
    await written.write(written.topics.alerts, [(b"rollout/000004", alert.SerializeToString())])
    written.store.path(versions[3].onnx.uri).write_bytes(b"changed")

    status, said = await written.command("models", "list", "--json")
    assert status == 0, said
    listed = [json.loads(line) for line in said.splitlines()]
    assert [(one["version"], one["state"], one["route"]) for one in listed] == [
        ("000002", "previous", None),
        ("000003", "live", "champion"),
        ("000004", "refused", None),
        ("000005", "candidate", None),
    ]
    assert listed[2]["refused"] == "golden rows: apart by 0.5"
    assert [one["learned_count"] for one in listed] == [200, 300, 400, 500]
    assert [one["artifacts"]["onnx"]["file"] for one in listed] == ["ok", "changed", "ok", "ok"]
    assert {one["way_into_traffic"] for one in listed} == {"refresh"}
    status, said = await written.command("models", "list", "--all", "--limit", "5")
    assert status == 0, said
    assert said.splitlines()[1].split()[:2] == ["000001", "retired"]
    assert said.splitlines()[-1] == "6 versions; the newest 5 are shown"

    shown = await written.shown("models", "show", "5")
    assert shown["parent"] == "000004"
    assert shown["learned"] == [{"partition": 0, "first": 0, "end": 500}, {"partition": 1, "first": 0, "end": 0}]
    states = {name: (one["file"], one["signature"]) for name, one in shown["artifacts"].items()}
    assert states == dict.fromkeys(("onnx", "snapshot", "order"), ("ok", "verified"))
    assert shown["serving"]["gateways"]["using"] is None
    assert shown["serving"]["triton"][0]["said"].startswith("not known: ")
    # Only its lineage is kept.
    status, said = await written.command("models", "show", "000000")
    assert status == 0, said
    assert "version 000000" in said
    assert "file missing, signature verified" in said

    found = await written.shown("models", "diff", "000002", "000005")
    assert found["learned_count"] == [200, 500]
    assert found["learned"][0] == {"partition": 0, "first_end": 200, "second_end": 500}
    assert set(found["model"]["weights"]) == {*written.pipeline.feature_names, "(intercept)"}
    assert found["scores"]["rows"] == 256
    assert found["scores"]["largest_difference"] >= found["scores"]["mean_difference"] > 0
    assert found["not_compared"] == []
    status, said = await written.command("models", "diff", "000001", "000005")
    assert status == 0, said
    assert "not compared snapshot of version 000001 cannot be loaded" in said


async def test_a_mistake_is_one_line(written: WrittenPipeline) -> None:
    await written.versions(1)
    for arguments, text in (
        (("models", "show", "000009"), "has no version '000009'; announced are 000000 to 000000"),
        (("models", "show", "newest"), "has no version 'newest'"),
        (("lineage", "nobody"), "event 'nobody' has no prediction in "),
        (("lineage", ""), "an event id has 1 to 128 bytes, this one 0"),
    ):
        status, said = await written.command(*arguments)
        assert status != 0
        assert text in said
        assert len(said.splitlines()) == 1
    status, said = await written.command("models", "list", HEADRACE_NAMESPACE=f"{written.namespace}-other")
    assert "is not there; `headrace topics create`" in said


async def test_without_the_key_signatures_are_not_checked(written: WrittenPipeline) -> None:
    await written.versions(1)
    shown = await written.shown("models", "show", "0", HEADRACE_SIGNING_PUBLIC_KEY="/nowhere/key.pem")
    assert {one["signature"] for one in shown["artifacts"].values()} == {"not checked"}
