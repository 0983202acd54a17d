"""Champion and challengers learn from one order and are published together, beside the learning where that is slow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.learner import order_log, publishing, signed_artifacts, snapshot
from headrace.learner.bootstrap import _versions
from headrace.learner.cohort import Cohort, Member
from headrace.learner.examples import OutcomeRecord
from headrace.learner.learning import Learning
from headrace.learner.publishing import Publisher
from headrace.learner.versions import VersionBuilder
from headrace.platform.artifacts import ArtifactStore
from headrace.platform.signing import Signer, create_key_pair
from headrace.v1.event_pb2 import Label
from headrace.v1.model_pb2 import RELEASE_KIND_PROMOTION, RELEASE_KIND_REFRESH, ModelVersion
from headrace.v1.prediction_pb2 import OUTCOME_KIND_LABELLED, Outcome, Prediction
from tests.unit.learner.river_models import NAMES, recipe, rows

FINGERPRINT = 11
MODELS = ("logistic regression", "Hoeffding tree", "sampled")


def records(count: int, *, absent_every: int = 0) -> list[OutcomeRecord]:
    values, labels, ids = rows(count)
    found = []
    for index, (row, label, event_id) in enumerate(zip(values, labels, ids, strict=True)):
        features = [math.nan, *row[1:]] if absent_every and index % absent_every == 0 else row
        outcome = Outcome(
            kind=OUTCOME_KIND_LABELLED,
            prediction=Prediction(event_id=event_id, features=features, features_fingerprint=FINGERPRINT),
            label=Label(event_id=event_id, value=float(label), label_time_us=(index * 7919) % 1000),
        )
        found.append(OutcomeRecord(index % 2, index // 2, index, outcome.SerializeToString()))
    return found


def cohort(*names: str) -> Cohort:
    return Cohort(
        [
            Member(name, Learning(recipe(name), NAMES, FINGERPRINT, (0, 0)), challenger=index > 0)
            for index, name in enumerate(names)
        ]
    )


def states(of: Cohort) -> dict[str, Any]:
    return {
        one.name: one.learning.recipe.comparable(one.learning.recipe.state()) | {"progress": one.learning.progress()}
        for one in of.members
    }


def test_each_learns_as_if_it_were_alone() -> None:
    together = cohort(*MODELS)
    given = records(500)
    for start in range(0, 500, 120):
        together.learn(given[start : start + 120])
    for name in MODELS:
        alone = cohort(name)
        for start in range(0, 500, 120):
            alone.learn(given[start : start + 120])
        assert states(alone)[name] == states(together)[name]


def test_a_row_with_an_absent_feature_is_learned_by_those_that_know_absence() -> None:
    both = cohort("logistic regression", "Hoeffding tree")
    ignored = both.learn(records(300, absent_every=10))
    assert dict(ignored) == {"not_finite": 30}
    assert [one.learning.learned_count for one in both.members] == [270, 300]


def test_one_that_is_ahead_leaves_out_what_it_has_learned() -> None:
    given = records(400)
    whole, ahead = cohort(*MODELS), cohort(*MODELS)
    for start in range(0, 400, 100):
        whole.learn(given[start : start + 100])
    Cohort([ahead.members[1]]).learn(given[:100])
    assert ahead.next_offsets == (0, 0)
    for start in range(0, 400, 100):
        ahead.learn(given[start : start + 100])
    assert states(ahead) == states(whole)


class Announced:
    """Keeps what is announced."""

    epoch = 1

    def __init__(self) -> None:
        self.announced: list[ModelVersion] = []

    @property
    def newest(self) -> ModelVersion | None:
        return self.announced[-1] if self.announced else None

    async def announce(self, versions: Sequence[ModelVersion], next_command: int) -> None:
        assert next_command == 0
        self.announced += versions


@pytest.fixture
def builder(tmp_path: Path) -> VersionBuilder:
    signer = Signer.read(create_key_pair(tmp_path / "keys").private)
    return VersionBuilder("fraud", 0.5, ArtifactStore(tmp_path / "artifacts"), signer)


def content(builder: VersionBuilder, version: ModelVersion, of: str) -> bytes:
    return signed_artifacts.get(builder.store, builder.signer.verifier(), getattr(version, of), of)


async def test_versions_are_told_apart_by_recipe(builder: VersionBuilder) -> None:
    announced, both = Announced(), cohort("logistic regression", "Hoeffding tree")
    publisher = Publisher(builder, announced, both)  # type: ignore[arg-type]
    await publisher.publish()
    both.learn(records(300))
    await publisher.publish()
    assert [(one.version, one.recipe, one.challenger, one.parent) for one in announced.announced] == [
        ("000000", "logistic regression", False, ""),
        ("000001", "Hoeffding tree", True, ""),
        ("000002", "logistic regression", False, "000000"),
        ("000003", "Hoeffding tree", True, "000001"),
    ]
    assert [one.kind for one in announced.announced[2:]] == [RELEASE_KIND_REFRESH, RELEASE_KIND_PROMOTION]
    assert {one.learned_count for one in announced.announced[2:]} == {300}
    restored = cohort("Hoeffding tree").members[0].learning
    newest = snapshot.decode(content(builder, announced.announced[3], "snapshot"))
    again = Learning.restore(restored.recipe, newest, FINGERPRINT)
    recipes = (again.recipe, both.members[1].learning.recipe)
    assert recipes[0].comparable(recipes[0].state()) == recipes[1].comparable(recipes[1].state())


async def test_what_a_forked_process_writes_is_what_this_one_would(builder: VersionBuilder) -> None:
    given = records(600)
    beside, here = (Announced(), cohort(*MODELS)), (Announced(), cohort(*MODELS))
    for announced, models in (beside, here):
        models.learn(given[:400])
        publisher = Publisher(builder, announced, models)  # type: ignore[arg-type]
        if models is beside[1]:
            publication = publisher.begin_beside()
            # Learned while the versions are made: it belongs to the next ones.
            models.learn(given[400:])
            await publisher.finish(publication)
        else:
            await publisher.publish()
            models.learn(given[400:])
        await publisher.publish()
    for one, other in zip(beside[0].announced, here[0].announced, strict=True):
        assert (one.version, one.recipe, one.learned_count) == (other.version, other.recipe, other.learned_count)
        assert one.onnx.sha256 == other.onnx.sha256
        for which in ("snapshot", "order"):
            kept = content(builder, one, which), content(builder, other, which)
            if which == "order":
                logs = [order_log.decode(file) for file in kept]
                assert logs[0].offsets.tolist() == logs[1].offsets.tolist()
                assert len(logs[0].offsets) == (400 if int(one.version) < 3 else 200)
            else:
                told = [recipe(one.recipe).comparable(snapshot.decode(file).model) for file in kept]
                assert told[0] == told[1]


async def test_a_forked_process_that_dies_costs_no_outcome(
    builder: VersionBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced, models = Announced(), cohort("logistic regression")
    publisher = Publisher(builder, announced, models)  # type: ignore[arg-type]
    publisher._took_s = 1.0
    assert publisher.slow
    models.learn(records(100))
    monkeypatch.setattr(publishing, "BUILD_TIMEOUT_S", 1)
    monkeypatch.setattr(VersionBuilder, "build", lambda *_: signal_pause())
    assert await publisher.finish(publisher.begin_beside()) == []
    monkeypatch.undo()
    assert not publisher.slow
    (version,) = await publisher.publish()
    assert (version.version, version.learned_count) == ("000000", 100)


def signal_pause() -> None:
    import signal

    while True:
        signal.pause()


async def test_a_history_is_where_the_learning_began(builder: VersionBuilder) -> None:
    values, labels, ids = rows(500)
    given = np.array(values, np.float32)
    given[7, 0], given[9, 1] = np.inf, np.nan
    whole = cohort("logistic regression", "Hoeffding tree")
    untrained = _versions(builder, whole, [], 1)
    for part in (slice(0, 200), slice(200, 500)):
        for member in whole.members:
            member.learning.learn_history(
                given[part], np.array(labels[part]), ids[part], np.arange(500, dtype=np.int64)[part]
            )
    trained = _versions(builder, whole, untrained, 1)
    assert [(one.version, one.parent, one.origin) for one in trained] == [
        ("000002", "000000", "bootstrap"),
        ("000003", "000001", "bootstrap"),
    ]
    # The tree knows absence, but no infinite number.
    assert [one.learned_count for one in trained] == [498, 499]
    assert [one.model_time_us for one in trained] == [499, 499]
    log = order_log.decode(content(builder, trained[0], "order"))
    assert (len(log.offsets), log.base) == (0, trained[0].snapshot)
    announced = Announced()
    announced.announced = [*untrained, *trained]
    whole.learn(records(100))
    later = await Publisher(builder, announced, whole).publish()  # type: ignore[arg-type]
    assert [one.origin for one in later] == ["bootstrap", "bootstrap"]
    log = order_log.decode(content(builder, later[0], "order"))
    assert (len(log.offsets), log.base) == (100, None)
    assert log.parent_order == trained[0].order
