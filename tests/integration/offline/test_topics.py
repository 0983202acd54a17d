"""Features from the topics of a deployed pipeline: what the stream takes, and what it served."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from headrace.pipeline.recompute import EventHistory, LabelHistory, Positions, recompute
from headrace.platform import kafka
from headrace.platform.event_codec import event_columns
from headrace.v1.prediction_pb2 import DEGRADATION_FEATURES_DEFAULTED, ROLE_ANSWER, ROLE_SHADOW, Prediction
from headrace.v1.vector_pb2 import FeatureVector
from tests.integration.features.deployment import Deployment
from tests.integration.features.log_contents import Contents
from tests.integration.features.payments import Payments

pytestmark = pytest.mark.timeout(120)


def yardstick(contents: Contents) -> dict[str, list[float]]:
    """The vector of each event id with everything known, in the order of partition and offset."""
    places = list(contents.accepted)
    columns = event_columns(contents.plan.pipeline, [one.event for one in contents.accepted.values()])
    history = EventHistory(columns, np.array([place[0] for place in places]), np.array([place[1] for place in places]))
    labels = list(contents.labels.values())
    none = np.zeros(len(labels), np.int64)
    known = LabelHistory(
        [one.prediction.event_id for one in labels],
        [[one.prediction.entities[at] for one in labels] for at in range(len(contents.plan.pipeline.entities))],
        np.array([one.prediction.event_time_us for one in labels], np.int64),
        np.array([one.label.label_time_us for one in labels], np.int64),
        np.array([one.label.value for one in labels], np.float64),
        np.full(len(labels), np.nan),
        none,
        none,
    )
    rows = np.sort(np.unique(columns.ids, return_index=True)[1])
    queries = columns.take(rows)
    vectors = recompute(contents.plan, queries, Positions(), history, known)
    return dict(zip(queries.ids, vectors.tolist(), strict=True))


async def test_a_training_set_and_the_parity_of_a_deployed_pipeline(deployment: Deployment, tmp_path: Path) -> None:
    payments = Payments(deployment.plan.pipeline, 2000, seed=11)
    half = len(payments.records) // 2
    await deployment.publish(payments.records[:half])
    worker = await deployment.start()
    await deployment.until(deployment.caught_up, "the first half is committed")
    await deployment.publish_outcomes(payments.outcomes())
    await deployment.publish(payments.records[half:])
    await deployment.until(deployment.caught_up, "everything is committed")
    assert not worker.ended
    contents = await deployment.contents()
    expected = yardstick(contents)

    to = tmp_path / "set.parquet"
    status, said = await deployment.command(
        "features", "compute", "--from", "topic", "--labels", "topic", "--to", str(to), "--workers", "1"
    )
    assert status == 0, said
    table = pl.read_parquet(to)
    assert table["event_id"].to_list() == list(expected)
    names = deployment.plan.pipeline.feature_names
    np.testing.assert_array_equal(table.select(names).to_numpy(), np.array(list(expected.values())))
    labels = {one.prediction.event_id: one.label.value for one in contents.outcomes.values()}
    found = table.select("event_id", "label").drop_nulls()
    assert dict(found.iter_rows()) == {name: value for name, value in labels.items() if name in expected}
    left_out = len(contents.accepted) - len(expected)
    assert f"{len(expected):,} events with 15 features; {left_out:,} left out, whose id an earlier one has" in said
    assert f"{len(contents.refused):,} records skipped, as the stream does: {len(contents.refused)} undecodable" in said

    status, said = await deployment.command("features", "parity")
    assert status == 0, said
    assert f"{len(contents.vectors):,} vectors compared, 0 different" in said

    await answer(deployment, contents)
    status, said = await deployment.command("features", "parity", "--served", "predictions")
    assert status == 0, said
    assert "50 vectors compared, 0 different" in said
    for reason in (
        "1 whose event is not among the events",
        "1 made of defaults while the state could not be read",
        "1 of another definition",
        "1 published again",
    ):
        assert f"left out: {reason}\n" in said

    await serve_wrongly(deployment, contents)
    status, said = await deployment.command("features", "parity")
    assert status == 1, said
    assert f"{len(contents.vectors) + 1:,} vectors compared, 1 different" in said
    assert "different: e1" in said
    wrong = next(line for line in said.splitlines() if line.startswith("terminal_count_7d"))
    assert wrong.split()[1:] == ["1", "5"]


async def answer(deployment: Deployment, contents: Contents) -> None:
    """Publish answers made of 50 vectors, and others that are not to be compared."""

    def prediction(vector: FeatureVector) -> Prediction:
        return Prediction(
            prediction_id=f"p-{vector.event_id}",
            event_id=vector.event_id,
            role=ROLE_ANSWER,
            features_fingerprint=vector.features_fingerprint,
            features=vector.values,
            event_positions=vector.event_positions,
            outcome_positions=vector.outcome_positions,
        )

    by_id = {vector.event_id: vector for vector in contents.vectors.values()}
    answers = [prediction(vector) for vector in list(by_id.values())[:54]]
    answers[0].features[3], answers[0].overridden[:] = -1.0, [deployment.plan.pipeline.feature_names[3]]
    answers[50].event_id = "unknown"
    answers[51].degradations.append(DEGRADATION_FEATURES_DEFAULTED)
    answers[52].features_fingerprint += 1
    answers[53].role = ROLE_SHADOW
    async with kafka.producer(deployment.bootstrap) as producer:
        for one in [*answers, answers[7]]:
            await kafka.send(producer, deployment.topics.predictions, one.SerializeToString(), partition=1)


async def serve_wrongly(deployment: Deployment, contents: Contents) -> None:
    """Publish a vector, behind all others, with a terminal count that is 5 too high."""
    (partition, _), right = next((at, one) for at, one in contents.vectors.items() if one.event_id == "e1")
    vector = FeatureVector()
    vector.CopyFrom(right)
    vector.values[deployment.plan.pipeline.feature_names.index("terminal_count_7d")] += 5
    vector.source.offset = 1_000_000
    async with kafka.producer(deployment.bootstrap) as producer:
        await kafka.send(producer, deployment.topics.vectors, vector.SerializeToString(), partition=partition)


async def test_what_is_not_there_is_said_in_one_line(deployment: Deployment, tmp_path: Path) -> None:
    status, said = await deployment.command("features", "parity")
    assert status == 2
    assert said == "error: --served vectors: there are no vectors to compare\n"
    to = tmp_path / "set.parquet"
    status, said = await deployment.command("features", "compute", "--from", "topic", "--to", str(to))
    assert status == 2
    assert said == f"error: {deployment.topics.events}: has no events that can be used\n"
    assert said.count("\n") == 1
