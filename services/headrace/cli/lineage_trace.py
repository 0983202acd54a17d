"""From an event id to everything that its answer was made of, and to what came of it.

A prediction is keyed by its event id, so one partition is searched for it, from the end back. All else is looked up
where the records say that it is: the event and its vector by their offsets, or by time within the partition of the
event's key, the outcome from the time of the prediction on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError

from headrace.cli.lineage_found import Lineage
from headrace.cli.lineage_versions import VersionTracer
from headrace.cli.model_catalog import Catalog, time_text
from headrace.cli.record_search import Found, RecordSearch
from headrace.pipeline import Pipeline
from headrace.platform.errors import OperatorError
from headrace.platform.event_codec import is_json
from headrace.platform.kafka import murmur2_partition
from headrace.platform.topics import Topics
from headrace.v1 import prediction_pb2
from headrace.v1.event_pb2 import Event, SourcePosition
from headrace.v1.model_pb2 import ModelVersion
from headrace.v1.prediction_pb2 import ROLE_ANSWER, Channel, Degradation, Outcome, Prediction, Role, Route
from headrace.v1.vector_pb2 import FeatureVector

SHIPPING_MS = 120_000
"""How much earlier than its prediction an event of the same call may have been written."""


class EventNotFoundError(OperatorError):
    """There is no prediction for the event id where one would be; says where was looked."""


class Tracer:
    """Follows an event through the topics of a deployed pipeline. Reads only.

    Args:
        search: opened.
        topics: of the deployed pipeline.
        pipeline: its declaration.
        catalog: its versions.
        timeout_s: for the search of one topic, in seconds.
        whole: search all of the partition for earlier answers, instead of ending at the newest.
    """

    def __init__(
        self,
        search: RecordSearch,
        topics: Topics,
        pipeline: Pipeline,
        catalog: Catalog,
        *,
        timeout_s: float,
        whole: bool,
    ) -> None:
        self._search = search
        self._topics = topics
        self._pipeline = pipeline
        self._versions = VersionTracer(catalog)
        self._timeout_s = timeout_s
        self._whole = whole

    async def trace(self, event_id: str) -> Lineage:
        """Everything that is known of an event id.

        Raises:
            EventNotFoundError: no prediction was found.
            KafkaFault: a topic cannot be read.
        """
        found = Lineage(event_id)
        key = event_id.encode()
        searched = await self._predictions(key)
        records = searched.records
        answers = [one for one in records if _prediction(one).role == ROLE_ANSWER]
        primary = answers[0] if answers else records[0]
        outcomes = await self._outcomes(key, primary.timestamp, found)
        if outcomes:
            primary = await self._joined(outcomes[0], primary, records, found)
        prediction = _prediction(primary)
        found.prediction = _prediction_as_json(prediction, _position(primary))
        found.others = [
            _prediction_as_json(_prediction(one), _position(one)) for one in records if one.offset != primary.offset
        ]
        if not searched.whole:
            found.notes.append(
                f"predictions were searched back to offset {searched.searched_from}; --whole finds answers before it"
            )
        await self._event(prediction, primary, found)
        await self._vector(prediction, found)
        model = self._versions.answered_by(prediction.model_version, found)
        self._features(prediction, model, found)
        if outcomes:
            found.outcome = self._outcome(outcomes)
        return found

    async def _predictions(self, key: bytes) -> Found:
        topic = self._topics.predictions
        partition = murmur2_partition(key, await self._search.partitions(topic))

        def enough(records: list[Any]) -> bool:
            return not self._whole and any(_prediction(one).role == ROLE_ANSWER for one in records)

        try:
            async with asyncio.timeout(self._timeout_s):
                found: Found = await self._search.backward(topic, partition, key, enough)
        except TimeoutError:
            raise EventNotFoundError(
                f"event {key.decode()!r}: {topic}/{partition} was not searched within {self._timeout_s:g} s; "
                "raise --timeout"
            ) from None
        if not found.records:
            raise EventNotFoundError(
                f"event {key.decode()!r} has no prediction in {topic}/{partition}, which holds offsets "
                f"{found.span.begin} to {found.span.end}; it was not answered, or so long ago that the topic has "
                "forgotten it"
            )
        return found

    async def _outcomes(self, key: bytes, since_ms: int, found: Lineage) -> list[Any]:
        """Records of `outcomes` for the event; none of them can be older than the prediction."""
        topic = self._topics.outcomes
        partition = murmur2_partition(key, await self._search.partitions(topic))
        records = []
        at = await self._search.offset_at(topic, partition, since_ms)
        try:
            async with asyncio.timeout(self._timeout_s):
                async for record in self._search.forward(topic, partition, start=at):
                    if record.key == key:
                        records.append(record)
        except TimeoutError:
            found.lacks(
                "outcome",
                f"{topic}/{partition} was not searched to its end within {self._timeout_s:g} s; raise --timeout",
            )
        return records

    async def _joined(self, outcome: Any, primary: Any, records: list[Any], found: Lineage) -> Any:
        """The prediction that the label was joined to: the first answer in the log."""
        source = Outcome.FromString(outcome.value).prediction_source
        if not source.topic or source.offset == primary.offset:
            return primary
        joined = await self._search.at(source.topic, source.partition, source.offset)
        if joined is None:
            found.lacks("prediction", f"{_text(source)}, the first answer, is no longer in the topic")
            return primary
        if joined.offset not in {one.offset for one in records}:
            records.insert(0, joined)
        return joined

    async def _event(self, prediction: Prediction, record: Any, found: Lineage) -> None:
        found.event = {
            "time": time_text(prediction.event_time_us),
            "channel": Channel.Name(prediction.channel).removeprefix("CHANNEL_").lower(),
            "ingested": prediction.ingested,
            "position": None,
            "entities": dict(zip(self._pipeline.entity_fields, prediction.entities, strict=False)),
        }
        if prediction.HasField("source"):
            source = prediction.source
            found.event["position"] = _text(source)
            there = await self._search.at(source.topic, source.partition, source.offset)
            if there is None:
                begin = (await self._search.span(source.topic, source.partition)).begin
                found.lacks("event", f"{_text(source)} has left the topic, which begins at {begin} now (retention)")
            elif not is_json(there.headers) and Event.FromString(there.value).event_id != prediction.event_id:
                found.lacks("event", f"{_text(source)} is another event: the topic was made anew")
        elif prediction.ingested:
            await self._ingested_event(prediction, record, found)
        else:
            found.notes.append("the event was given in the call alone (no ingest): it is in no topic")

    async def _ingested_event(self, prediction: Prediction, record: Any, found: Lineage) -> None:
        """Find the event that a call had appended: it is written together with its prediction."""
        topic = self._topics.events
        names = list(self._pipeline.entity_fields)
        if self._pipeline.key_field not in names or len(prediction.entities) != len(names):
            partitions: Sequence[int] = range(await self._search.partitions(topic))
        else:
            key = prediction.entities[names.index(self._pipeline.key_field)].encode()
            partitions = [murmur2_partition(key, await self._search.partitions(topic))]
        try:
            async with asyncio.timeout(self._timeout_s):
                for partition in partitions:
                    at = await self._search.offset_at(topic, partition, record.timestamp - SHIPPING_MS)
                    async for one in self._search.forward(topic, partition, start=at):
                        if prediction.event_id.encode() in one.value and _is_event(one, prediction.event_id):
                            found.event["position"] = f"{one.topic}/{one.partition}/{one.offset}"
                            return
        except TimeoutError:
            found.lacks("event", f"{topic} was not searched to its end within {self._timeout_s:g} s; raise --timeout")
            return
        found.lacks(
            "event", f"it was appended to {topic} with the call and is not there: not shipped yet, or retention"
        )

    async def _vector(self, prediction: Prediction, found: Lineage) -> None:
        """On the Kafka path: the vector that was scored. The prediction has its values, so nothing is lost with it."""
        if not prediction.HasField("source"):
            return
        topic, partition = self._topics.vectors, prediction.source.partition
        at = await self._search.offset_at(topic, partition, prediction.received_time_us // 1000)
        needle = Prediction(event_id=prediction.event_id).event_id.encode()
        try:
            async with asyncio.timeout(self._timeout_s):
                async for record in self._search.forward(topic, partition, start=at):
                    if needle not in record.value:
                        continue
                    vector = FeatureVector.FromString(record.value)
                    if vector.source.offset == prediction.source.offset and vector.event_id == prediction.event_id:
                        same = list(vector.values) == list(prediction.features)
                        found.features["vector"] = f"{topic}/{partition}/{record.offset}"
                        found.features["equals_vector"] = same
                        if not same:
                            found.notes.append("the prediction's features differ from those of its vector")
                        return
        except (TimeoutError, DecodeError):
            pass
        found.notes.append(f"the vector has left {topic}/{partition}; the prediction holds its values")

    def _features(self, prediction: Prediction, model: ModelVersion | None, found: Lineage) -> None:
        names: Sequence[str] | None = None
        if prediction.features_fingerprint == self._pipeline.features_fingerprint:
            names = self._pipeline.feature_names
        elif model is not None and model.features_fingerprint == prediction.features_fingerprint:
            names = model.feature_names
        if names is None or len(names) != len(prediction.features):
            names = [f"feature {number}" for number in range(len(prediction.features))]
            found.lacks(
                "feature names",
                f"the definition of features {prediction.features_fingerprint:016x} is neither declared nor that of a "
                "version that is known",
            )
        if not prediction.event_positions:
            found.notes.append("the feature state was empty or was not read: it had no positions")
        found.features |= {
            "fingerprint": f"{prediction.features_fingerprint:016x}",
            "values": dict(zip(names, prediction.features, strict=True)),
            "overridden": list(prediction.overridden),
            "evaluated_at": {
                "events": list(prediction.event_positions),
                "outcomes": list(prediction.outcome_positions),
            },
            "newest_record_time": time_text(prediction.features_time_us),
        }

    def _outcome(self, records: Sequence[Any]) -> dict[str, Any]:
        outcome = Outcome.FromString(records[-1].value)
        first = records[0]
        return {
            "position": f"{first.topic}/{first.partition}/{first.offset}",
            "kind": prediction_pb2.OutcomeKind.Name(outcome.kind).removeprefix("OUTCOME_KIND_").lower(),
            "label": outcome.label.value,
            "label_time": time_text(outcome.label.label_time_us),
            "label_position": _text(outcome.label_source) if outcome.HasField("label_source") else None,
            "corrected_from": outcome.previous_label if outcome.HasField("previous_label") else None,
            "records": [f"{one.topic}/{one.partition}/{one.offset}" for one in records],
            "learned_by": self._versions.learned_by(first.partition, first.offset),
        }


def _prediction(record: Any) -> Prediction:
    return Prediction.FromString(record.value)


def _is_event(record: Any, event_id: str) -> bool:
    try:
        return bool(Event.FromString(record.value).event_id == event_id)
    except DecodeError:
        return False


def _position(record: Any) -> str:
    return f"{record.topic}/{record.partition}/{record.offset}"


def _text(source: SourcePosition) -> str:
    return f"{source.topic}/{source.partition}/{source.offset}"


def _prediction_as_json(prediction: Prediction, position: str) -> dict[str, Any]:
    return {
        "position": position,
        "prediction_id": prediction.prediction_id,
        "role": Role.Name(prediction.role).removeprefix("ROLE_").lower(),
        "score": prediction.score,
        "decision": prediction.decision,
        "model_version": prediction.model_version,
        "route": Route.Name(prediction.route).removeprefix("ROUTE_").lower(),
        "route_epoch": prediction.route_epoch,
        "untrained": prediction.untrained,
        "degradations": [Degradation.Name(one).removeprefix("DEGRADATION_").lower() for one in prediction.degradations],
        "answered_time": time_text(prediction.answered_time_us),
    }
