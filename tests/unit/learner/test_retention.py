"""What of the versions leaves, and when."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from headrace.learner import version_records
from headrace.learner.errors import SnapshotError
from headrace.learner.retention import DAY_S, SWEEP_INTERVAL_S, Retention, outdated
from headrace.platform.artifacts import ArtifactStore
from headrace.platform.signing import KeyPair, Signer, Verifier, create_key_pair
from headrace.v1.model_pb2 import Artifact, GoldenRows, ModelVersion, OffsetRange


@pytest.fixture
def keys(tmp_path: Path) -> KeyPair:
    return create_key_pair(tmp_path / "keys")


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "artifacts")


@pytest.fixture
def retention(store: ArtifactStore, keys: KeyPair) -> Retention:
    return Retention(store, Signer.read(keys.private), "fraud", keep=2, lineage_days=10)


def stored(store: ArtifactStore, number: int, recipe: str = "a", **fields: object) -> ModelVersion:
    name = f"{number:06d}"

    def put(what: str) -> Artifact:
        content = f"{what} {name}".encode()
        reference = store.put(f"fraud/models/{name}/{what}", content)
        return Artifact(uri=reference.uri, sha256=hashlib.sha256(content).digest())

    version = ModelVersion(pipeline="fraud", version=name, recipe_fingerprint=recipe, metrics={"log_loss": 0.5, "b": 1})
    version.onnx.CopyFrom(put("onnx"))
    version.snapshot.CopyFrom(put("snapshot"))
    version.order.CopyFrom(put("order"))
    version.golden.CopyFrom(GoldenRows(rows=1, features=[1.0], scores=[0.5]))
    for field, value in fields.items():
        setattr(version, field, value)
    return version


def names(versions: list[ModelVersion]) -> list[str]:
    return [one.version for one in versions]


def test_the_newest_of_each_recipe_stay_and_what_is_in_use() -> None:
    announced = [ModelVersion(version=f"{n:06d}", recipe_fingerprint="ab"[n % 2]) for n in range(10)]
    new = [ModelVersion(version=f"{n:06d}", recipe_fingerprint="ab"[n % 2]) for n in (10, 11)]
    assert names(outdated(announced, new, 5, ())) == ["000000", "000001"]
    assert names(outdated(announced, new, 4, ("000001", "000002"))) == ["000000", "000003"]
    assert outdated(announced, new, 6, ()) == []


def test_what_is_in_use_counts_among_the_newest_but_takes_no_place_of_theirs() -> None:
    announced = [ModelVersion(version=f"{n:06d}", recipe_fingerprint="a") for n in range(5)]
    assert names(outdated(announced, [], 2, ("000000",))) == ["000001", "000002"]


def test_a_record_is_the_version_without_its_golden_rows(
    store: ArtifactStore, keys: KeyPair, retention: Retention
) -> None:
    version = stored(store, 7)
    version.learned.append(OffsetRange(partition=1, first=3, end=9))
    retention.record([version])
    retention.record([version])
    found = version_records.get(store, Verifier.read(keys.public), "fraud", "000007")
    version.ClearField("golden")
    assert found == version
    assert version_records.get(store, Verifier.read(keys.public), "fraud", "000008") is None


def test_a_record_that_was_changed_or_signed_by_another_is_refused(
    store: ArtifactStore, keys: KeyPair, retention: Retention, tmp_path: Path
) -> None:
    retention.record([stored(store, 7)])
    verifier = Verifier.read(keys.public)
    (path,) = (store.directory / "fraud/models/000007").glob("version-*.record")
    content = path.read_bytes()
    other = Verifier.read(create_key_pair(tmp_path / "other").public)
    with pytest.raises(SnapshotError, match="not signed with this learner's key"):
        version_records.decode(content, other, "record")
    with pytest.raises(SnapshotError, match="not signed with this learner's key, or was changed"):
        version_records.decode(content[:-1] + b"x", verifier, "record")
    for damaged in (b"", content[:30], content[3:]):
        with pytest.raises(SnapshotError, match="is damaged"):
            version_records.decode(damaged, verifier, "record")
    # A good record in the folder of another version.
    path.rename(store.directory / "fraud/models" / "moved")
    (store.directory / "fraud/models/000008").mkdir()
    (store.directory / "fraud/models/moved").rename(store.directory / "fraud/models/000008" / path.name)
    with pytest.raises(SnapshotError, match="is that of version 000007"):
        version_records.get(store, verifier, "fraud", "000008")


def test_model_and_snapshot_leave_and_the_order_stays(store: ArtifactStore, retention: Retention) -> None:
    plain = stored(store, 1)
    begun = stored(store, 2, origin="bootstrap")
    went_on = stored(store, 3, origin="bootstrap")
    went_on.learned.append(OffsetRange(first=0, end=5))
    retention.remove([plain, begun, went_on])
    left = {number: sorted(store.children(f"fraud/models/{number:06d}")) for number in (1, 2, 3)}
    # A replay of what began with a history begins from the snapshot that the history gave.
    assert left == {1: ["order"], 2: ["order", "snapshot"], 3: ["order"]}


def test_lineage_leaves_after_its_days_but_for_what_is_announced(store: ArtifactStore, retention: Retention) -> None:
    now_s = 1_700_000_000.0
    for number, days in ((999_998, 30.0), (999_999, 20.0), (1_000_000, 10.5), (1_000_001, 9.5), (1_000_002, 0.0)):
        stored(store, number)
        for file in (store.directory / f"fraud/models/{number}").iterdir():
            os.utime(file, (now_s, now_s - days * DAY_S))
    assert retention.sweep({"999998"}, now_s) == ["999999", "1000000"]
    assert sorted(store.children("fraud/models")) == ["1000001", "1000002", "999998"]
    # Not at every announcement.
    assert retention.sweep(set(), now_s + 1) == []
    assert retention.sweep(set(), now_s + SWEEP_INTERVAL_S) == ["999998"]
