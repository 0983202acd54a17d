"""A pipeline as plain data: what it keeps and reads, and what a change of it breaks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.pipeline.definition import Pipeline
from headrace.pipeline.features import FeatureView, duration_name
from headrace.pipeline.state import LABEL_RECORD, EntityPlan, FeaturePlan, compile_plan


@dataclass(frozen=True)
class LaneDescription:
    """A column of an entity's records beside time and id.

    Attributes:
        name: of the column.
        dtype: its type, as numpy writes it.
        kind: "value", "cell" of a distinct count, or "flag" of a filter.
    """

    name: str
    dtype: str
    kind: str


@dataclass(frozen=True)
class EntityDescription:
    """What one entity costs.

    Attributes:
        entity: its name.
        field: event field that holds its id.
        features: number of its features.
        lanes: what is kept of an event beside its time (8 bytes) and id (8 bytes).
        event_bytes: bytes that an event adds to a key.
        label_bytes: bytes that a label adds to a key; 0 when labels are not kept.
        bucket_us: length of the buckets that old events are merged into, in microseconds; 0 when they are not.
        bucket_bytes: bytes of a merged bucket, sketches apart; 0 when they are not merged.
        coarse_bound: the most bytes that all merged buckets of a key take, sketches included; 0 when there are none.
        raw_us: how long events are kept one by one, in microseconds of event time.
        retention_us: how long anything of an event is kept, in microseconds of event time.
        reads: keys that are read for one event.
        edges: searches for window edges per event.
    """

    entity: str
    field: str
    features: int
    lanes: tuple[LaneDescription, ...]
    event_bytes: int
    label_bytes: int
    bucket_us: int
    bucket_bytes: int
    coarse_bound: int
    raw_us: int
    retention_us: int
    reads: int
    edges: int

    def bytes_per_key(self, events_per_day: float) -> float:
        """The most bytes of a key's event log at a steady rate of events, labels apart."""
        return self.coarse_bound + self.event_bytes * (1 + events_per_day * self.raw_us / 86_400e6)


@dataclass(frozen=True)
class PlanDescription:
    """A compiled pipeline.

    Attributes:
        pipeline: its name.
        features_fingerprint: of its features.
        schema_fingerprint: of its events.
        features: names, in the order of the vector.
        entities: what each entity costs.
        reads: keys that are read for one event, all in one round trip.
    """

    pipeline: str
    features_fingerprint: int
    schema_fingerprint: int
    features: tuple[str, ...]
    entities: tuple[EntityDescription, ...]
    reads: int


def describe_plan(plan: FeaturePlan) -> PlanDescription:
    """What a compiled pipeline keeps and reads."""
    entities = tuple(_describe_entity(entity) for entity in plan.entities)
    return PlanDescription(
        plan.pipeline.name,
        plan.pipeline.features_fingerprint,
        plan.pipeline.schema_fingerprint,
        plan.pipeline.feature_names,
        entities,
        sum(entity.reads for entity in entities),
    )


def _describe_entity(plan: EntityPlan) -> EntityDescription:
    return EntityDescription(
        plan.entity,
        plan.field,
        len(plan.aggregations),
        tuple(LaneDescription(lane.name, lane.dtype, lane.kind) for lane in plan.lanes),
        plan.event_record.itemsize,
        LABEL_RECORD.itemsize if plan.has_labels else 0,
        plan.bucket,
        plan.coarse.record.itemsize if plan.coarse is not None else 0,
        plan.coarse_bound,
        plan.lateness + plan.bucket if plan.bucket else plan.retention,
        plan.retention,
        1 + plan.has_labels,
        len(plan.edges),
    )


def describe_pipeline(pipeline: Pipeline) -> dict[str, Any]:
    """A pipeline as data that JSON can hold, for a later comparison with another definition.

    It has what gives events, features and state their meaning, and the parts of the rest that are plain data.
    """
    plan = compile_plan(pipeline)
    return {
        "name": pipeline.name,
        "key": pipeline.key,
        "entities": [vars(entity) for entity in pipeline.entities],
        "schema": pipeline.event.describe(),
        "features": dict(_described_features(pipeline)),
        "order": list(pipeline.feature_names),
        "state": {
            entity.entity: {
                "record": [[name, str(entity.event_record[name])] for name in entity.event_record.names or ()],
                "bucket": entity.bucket,
                "retention": entity.retention,
            }
            for entity in plan.entities
        },
        "label": vars(pipeline.label),
        "model": pipeline.model.describe(),
        "lateness": pipeline.lateness,
        "max_jump": pipeline.max_jump,
        "clock": pipeline.clock,
        "features_fingerprint": f"{pipeline.features_fingerprint:016x}",
        "schema_fingerprint": f"{pipeline.schema_fingerprint:016x}",
        "accepted_schema_fingerprints": [f"{one:016x}" for one in pipeline.accepted_schema_fingerprints],
    }


def _described_features(pipeline: Pipeline) -> Iterator[tuple[str, dict[str, Any]]]:
    for part in pipeline.features:
        if isinstance(part, FeatureView):
            for name, aggregation in zip(part.names, part.aggregations, strict=True):
                yield name, {"entity": part.entity} | aggregation.describe()
        else:
            yield part.names[0] if len(part.names) == 1 else f"{part.names[0]} to {part.names[-1]}", part.describe()


@dataclass(frozen=True)
class Change:
    """One difference between two definitions.

    Attributes:
        breaking: whether running state, models or producers cannot go on as they are.
        what: the part that differs.
        why: one sentence: what follows from it.
    """

    breaking: bool
    what: str
    why: str


_NEW_STATE = "the features have a new fingerprint: backfill state for it, and train a model on it"
_NO_STATE = "vectors keep their meaning and the state its fingerprint"


def compare_definitions(old: Mapping[str, Any], new: Pipeline) -> list[Change]:
    """What changes from a described definition to another, breaking changes first.

    Args:
        old: what `describe_pipeline` gave.
        new: the definition that is to follow.
    """
    now = describe_pipeline(new)
    changes = [*_schema_changes(old, now), *_feature_changes(old, now), *_state_changes(old, now)]
    if old["name"] != now["name"]:
        why = "topics, state and models are named after it: it is another pipeline beside the old one"
        changes.append(Change(True, f"name {old['name']} is now {now['name']}", why))
    if old["key"] != now["key"]:
        why = "events of one entity would lie in two partitions: publish to new topics"
        changes.append(Change(True, f"key {old['key']} is now {now['key']}", why))
    if (before := old["label"]["kind"]) != (after := now["label"]["kind"]):
        why = "outcomes and models are of the other kind: use a new namespace"
        changes.append(Change(True, f"label kind {before} is now {after}", why))
    for part, why in (
        ("label", "outcomes from now on follow it; those that are made stay"),
        ("model", "a new recipe: its versions go through shadow and canary before they take traffic"),
        ("max_jump", "it holds from the next start of the features service"),
        ("clock", "it holds from the next start of the features service"),
    ):
        changes += [Change(False, f"{part}: {text}", why) for text in _differences(old[part], now[part])]
    return sorted(changes, key=lambda change: not change.breaking)


def _schema_changes(old: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    before, after = ({field["name"]: field for field in of["schema"]} for of in (old, now))
    changes = []
    accepted = old["schema_fingerprint"] in now["accepted_schema_fingerprints"]
    for name in [*before, *(name for name in after if name not in before)]:
        if name not in after:
            why = "packed events of producers that still send it are refused"
            changes.append(Change(True, f"event field {name} is gone", why))
        elif name not in before:
            if accepted:
                why = "a trailing optional field: events without it are still read"
                changes.append(Change(False, f"event field {name} is new", why))
            else:
                missing = "required" if not after[name]["optional"] else "not at the end"
                why = (
                    f"it is {missing}, so packed events without it are refused; allowed is an optional field at the end"
                )
                changes.append(Change(True, f"event field {name} is new", why))
        else:
            for text in _differences(before[name], after[name]):
                why = "packed events of producers with the old schema are refused until they follow"
                changes.append(Change(True, f"event field {name}: {text}", why))
    if not changes and old["schema"] != now["schema"]:
        changes.append(
            Change(True, "event fields are in another order", "packed events are in the order of the schema")
        )
    return changes


def _feature_changes(old: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    before, after = old["features"], now["features"]
    changes = [Change(True, f"feature {name} is gone", _NEW_STATE) for name in before if name not in after]
    changes += [Change(True, f"feature {name} is new", _NEW_STATE) for name in after if name not in before]
    for name in before:
        if name in after:
            texts = _differences(before[name], after[name])
            changes += [Change(True, f"feature {name}: {text}", _NEW_STATE) for text in texts]
    if not changes and old["order"] != now["order"]:
        changes.append(Change(True, "features are in another order", _NEW_STATE))
    if not changes and old["features_fingerprint"] != now["features_fingerprint"]:
        why = f"fields that features use or entities differ: {_NEW_STATE}"
        changes.append(Change(True, "the fingerprint of the features", why))
    return changes


def _state_changes(old: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    if old["lateness"] == now["lateness"]:
        return []
    what = f"lateness is now {duration_name(now['lateness'])} instead of {duration_name(old['lateness'])}"
    if now["lateness"] > old["lateness"]:
        why = f"{_NO_STATE}; events that were dropped by the shorter one stay dropped until it has passed once"
        return [Change(False, what, why)]
    return [Change(False, what, f"{_NO_STATE}; later events are flagged as late")]


def _differences(before: Any, after: Any) -> list[str]:
    """Which parts of two described things differ, one sentence each."""
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return [] if before == after else [f"{after} instead of {before}"]
    texts = []
    for key in [*before, *(key for key in after if key not in before)]:
        one, other = before.get(key), after.get(key)
        if one == other:
            continue
        if key in ("source", "where", "derived"):
            texts.append(f"its function ({key}) is another one")
        elif isinstance(one, Mapping) and isinstance(other, Mapping):
            texts.extend(f"{key} {text}" for text in _differences(one, other))
        elif isinstance(one, Sequence) and len(str(one)) > 60:
            texts.append(f"its {key} differ")
        else:
            texts.append(f"{key} {_shown(other)} instead of {_shown(one)}")
    return texts


def _shown(value: object) -> str:
    return "none" if value is None or value == "" else str(value)
