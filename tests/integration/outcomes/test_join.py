"""The join as a process, on real topics: what each kind of prediction and label becomes."""

from __future__ import annotations

import json

from headrace.v1.prediction_pb2 import OUTCOME_KIND_EXPIRED, ROLE_REPEAT, ROLE_SHADOW
from tests.integration.outcomes.deployment import JSON, PARTITIONS, Deployment, label, on_day, prediction, summary


async def test_labels_meet_their_predictions_in_either_order(deployment: Deployment) -> None:
    await deployment.start()
    await deployment.send_labels([label("early", 1, on_day(7))])
    await deployment.send_predictions([prediction("late", on_day(0))])
    await deployment.joined()
    assert await deployment.outcomes() == []
    await deployment.send_predictions([prediction("early", on_day(0))])
    await deployment.send_labels([label("late", 0, on_day(7))])
    outcomes = await deployment.until_outcomes(2)
    assert summary(outcomes) == [("early", "labelled", 1, None), ("late", "labelled", 0, None)]
    for outcome in outcomes:
        event_id = outcome.prediction.event_id
        assert outcome.prediction == prediction(event_id, on_day(0))
        assert outcome.label == label(event_id, outcome.label.value, on_day(7))
        for source, topic in (
            (outcome.prediction_source, deployment.topics.predictions),
            (outcome.label_source, deployment.topics.labels),
        ):
            assert (source.topic, source.partition) == (topic, deployment.partition_of(event_id))
    await deployment.until_ready()
    assert await deployment.metric('headrace_outcomes_records_total{fate="joined"}') == 2
    assert await deployment.metric('headrace_outcomes_records_total{fate="early_label"}') == 1
    assert await deployment.terminate() == 0


async def test_duplicates_repeats_corrections_and_shadows(deployment: Deployment) -> None:
    await deployment.start()
    first = prediction("e", on_day(0))
    await deployment.send_predictions(
        [
            prediction("e", on_day(0), ROLE_SHADOW, model_version="000002", score=0.75, prediction_id="s"),
            first,
            first,
            prediction("e", on_day(0), prediction_id="again", score=0.5),
            prediction("e", on_day(0), ROLE_REPEAT, prediction_id="repeat"),
        ]
    )
    await deployment.joined()
    one, other = label("e", 0, on_day(7)), label("e", 1, on_day(8))
    await deployment.send_labels([one, one, other, one, other])
    await deployment.joined()
    outcomes = await deployment.outcomes()
    assert summary(outcomes) == [("e", "corrected", 1, 0), ("e", "labelled", 0, None)]
    for outcome in outcomes:
        assert outcome.prediction == first
        assert [(shadow.model_version, shadow.score) for shadow in outcome.shadows] == [("000002", 0.75)]
    await deployment.until_ready()
    for fate, count in {
        "answer": 1,
        "duplicate_prediction": 1,
        "repeat": 2,
        "shadow": 1,
        "duplicate_label": 2,
        "outdated_label": 1,
        "corrected": 1,
    }.items():
        assert await deployment.metric(f'headrace_outcomes_records_total{{fate="{fate}"}}') == count, fate


async def test_what_never_gets_a_label_expires_by_event_time(deployment: Deployment) -> None:
    await deployment.start()
    in_one_partition = [f"e{n}" for n in range(100) if deployment.partition_of(f"e{n}") == 1]
    labelled, unlabelled, *later = in_one_partition[:9]
    await deployment.send_predictions([prediction(one, on_day(0)) for one in (labelled, unlabelled)])
    await deployment.send_labels([label(labelled, 1, on_day(20))])
    await deployment.joined()
    # Day by day, since a single leap does not move the time.
    for day, one in enumerate(later):
        await deployment.send_predictions([prediction(one, on_day(25.01 + day))])
    await deployment.joined()
    outcomes = await deployment.until_outcomes(2)
    assert summary(outcomes) == sorted([(labelled, "labelled", 1, None), (unlabelled, "expired", 0, None)])
    expired = next(one for one in outcomes if one.kind == OUTCOME_KIND_EXPIRED)
    assert expired.label == label(unlabelled, 0, on_day(30))
    assert not expired.HasField("label_source")
    # A label that comes after that is late, and a repeated answer is a repeat.
    await deployment.send_labels([label(unlabelled, 1, on_day(31))])
    await deployment.send_predictions([prediction(unlabelled, on_day(0), prediction_id="again")])
    await deployment.joined()
    assert len(await deployment.outcomes()) == 2
    await deployment.until_ready()
    assert await deployment.metric('headrace_outcomes_records_total{fate="late_label"}') == 1
    assert await deployment.metric('headrace_outcomes_records_total{fate="repeat"}') == 1


async def test_labels_that_are_there_in_time_are_not_late_however_far_their_reading_lags(
    deployment: Deployment,
) -> None:
    ids = [f"e{n}" for n in range(400)]
    await deployment.send_predictions([prediction(one, on_day(number / 4)) for number, one in enumerate(ids)])
    await deployment.send_labels([label(one, 1, on_day(number / 4 + 7)) for number, one in enumerate(ids)])
    # Two predictions in a batch: the time runs a hundred days ahead of the labels that are read.
    await deployment.start(batch_records=20)
    await deployment.joined()
    assert summary(await deployment.outcomes()) == sorted((one, "labelled", 1.0, None) for one in ids)


async def test_misplaced_and_keyless_records_are_forwarded(deployment: Deployment) -> None:
    await deployment.start()
    wrong = (deployment.partition_of("e") + 1) % PARTITIONS
    await deployment.send_predictions([prediction("e", on_day(0))], partition=wrong)
    value = json.dumps({"eventId": "e", "value": 1, "labelTimeUs": str(on_day(7))}).encode()
    await deployment.producer.send_and_wait(deployment.topics.labels, value, partition=wrong, headers=JSON)
    outcomes = await deployment.until_outcomes(1)
    await deployment.joined()
    assert summary(outcomes) == [("e", "labelled", 1, None)]
    assert outcomes[0].prediction_source.partition == deployment.partition_of("e")
    assert len(await deployment.outcomes()) == 1


async def test_records_that_cannot_be_used_are_set_aside(deployment: Deployment) -> None:
    topics, producer = deployment.topics, deployment.producer
    await producer.send_and_wait(topics.labels, b"\xff\xff", partition=0)
    await producer.send_and_wait(topics.labels, b'{"eventId": "e", "val": 1}', partition=0, headers=JSON)
    await producer.send_and_wait(topics.labels, label("e", 7, on_day(7)).SerializeToString(), partition=0)
    await producer.send_and_wait(topics.labels, label("e", 1, 0).SerializeToString(), partition=0)
    await producer.send_and_wait(topics.predictions, None, key=b"k", partition=0)
    await deployment.start()
    await deployment.send_predictions([prediction("e", on_day(0))])
    await deployment.send_labels([label("e", 1, on_day(7))])
    await deployment.until_outcomes(1)
    await deployment.joined()
    rejected = sorted(
        (one.source.topic.rsplit(".")[-1], one.source.offset, one.reason, one.json, one.value, one.key)
        for one in await deployment.rejected()
    )
    wrong_value, no_time = label("e", 7, on_day(7)), label("e", 1, 0)
    assert rejected == [
        ("labels", 0, "undecodable", False, b"\xff\xff", b""),
        ("labels", 1, "undecodable", True, b'{"eventId": "e", "val": 1}', b""),
        ("labels", 2, "out_of_range", False, wrong_value.SerializeToString(), b""),
        ("labels", 3, "missing_field", False, no_time.SerializeToString(), b""),
        ("predictions", 0, "undecodable", False, b"", b"k"),
    ]
