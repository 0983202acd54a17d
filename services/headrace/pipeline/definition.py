"""A whole pipeline, checked when it is built."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from headrace.pipeline.aggregations.operations import OPERATIONS
from headrace.pipeline.encodings import Encoding
from headrace.pipeline.errors import DefinitionError
from headrace.pipeline.features import Aggregation, Derived, Entity, FeatureView, OnDemand
from headrace.pipeline.label import Label
from headrace.pipeline.releasing import Releasing
from headrace.pipeline.schema import EventSchema, Field
from headrace.pipeline.time_units import DAY


@dataclass(frozen=True)
class Decision:
    """What to do with a score.

    Attributes:
        threshold: scores at or above it give `above`, others `below`: a probability, or a number in the unit of the
            label where that is a number.
        above: decision for high scores.
        below: decision for low scores.
        untrained: decision while the model has learned nothing.
    """

    threshold: float = 0.5
    above: str = "review"
    below: str = "accept"
    untrained: str = "accept"

    def decide(self, score: float, *, untrained: bool) -> str:
        """The decision for a score."""
        if untrained:
            return self.untrained
        return self.above if score >= self.threshold else self.below


@dataclass(frozen=True)
class Model:
    """How the model is made.

    Attributes:
        name: name of the recipe.
        build: returns a fresh River pipeline; imports River itself, so that only the learner needs it.
        decision: what to do with a score.
        class_weights: weight in learning of an outcome by its label, {True: 20}; what is not named weighs 1. Scores
            shift with it: `calibration` shifts them back.
        negative_sampling: share of the outcomes with label 0 that is learned, above 0 and at most 1, chosen by a hash
            of the event id. The served probability is corrected for it exactly.
        reset_on_drift: confidence (delta, 0.002 say) of ADWIN on the error of each outcome before it is learned; where
            it finds that the error rose, the model begins anew. None is off.
        calibration: "platt" learns Platt scaling of the served probability from every outcome. None is off.
        corrections: what a later, different label of an event does: "ignore" (what was learned stays) or "reverse" (it
            is taken back, and the new label learned), for models that can; others are refused when the learner starts.
    """

    name: str
    build: Callable[[], Any]
    decision: Decision = field(default_factory=Decision)
    class_weights: Mapping[bool, float] | None = None
    negative_sampling: float = 1.0
    reset_on_drift: float | None = None
    calibration: Literal["platt"] | None = None
    corrections: Literal["ignore", "reverse"] = "ignore"

    def describe(self) -> dict[str, Any]:
        """What is declared beside the River model; options that are off are left out."""
        options = {
            "class_weights": None if self.class_weights is None else {str(k): v for k, v in self.class_weights.items()},
            "negative_sampling": None if self.negative_sampling == 1.0 else self.negative_sampling,
            "reset_on_drift": self.reset_on_drift,
            "calibration": self.calibration,
            "corrections": None if self.corrections == "ignore" else self.corrections,
        }
        return {"name": self.name, "decision": vars(self.decision)} | {
            k: v for k, v in options.items() if v is not None
        }

    def problem(self) -> str:
        """What is wrong with the declaration; empty when nothing is."""
        weights = dict(self.class_weights or {})
        if any(label not in (False, True) for label in weights):
            return f"class_weights {weights!r}: labels are False and True"
        if any(not (math.isfinite(weight) and weight > 0) for weight in weights.values()):
            return f"class_weights {weights!r}: a weight must be more than 0"
        if not 0 < self.negative_sampling <= 1:
            return f"negative_sampling {self.negative_sampling}: allowed is above 0 up to 1"
        if self.reset_on_drift is not None and not 0 < self.reset_on_drift < 1:
            return f"reset_on_drift {self.reset_on_drift}: allowed is between 0 and 1"
        if self.calibration not in (None, "platt"):
            return f"calibration {self.calibration!r}: allowed is 'platt'"
        if self.corrections not in ("ignore", "reverse"):
            return f"corrections {self.corrections!r}: allowed are 'ignore' and 'reverse'"
        if self.corrections == "reverse" and (options := self.learning_options()):
            return f"corrections='reverse' cannot go with {options[0]}: what was learned could not be told any more"
        return ""

    def learning_options(self) -> list[str]:
        """Names of the options that change how a label is learned, of those that are on."""
        on = {
            "class_weights": self.class_weights is not None,
            "negative_sampling": self.negative_sampling != 1.0,
            "reset_on_drift": self.reset_on_drift is not None,
            "calibration": self.calibration is not None,
        }
        return [name for name, is_on in on.items() if is_on]


@dataclass(frozen=True)
class Monitoring:
    """Rules of the monitor. They change nothing that is served, so they are in no fingerprint.

    Attributes:
        season: length in microseconds of the windows that are compared: one whole cycle of the stream, a day.
        reference_seasons: how many first seasons make the reference.
        min_season_rows: predictions that a season needs before its drift is judged: the events of few entities repeat
            each other, so that a small season differs from its reference by more than chance allows.
        psi_threshold: population stability index above which a significant drift is an alert.
        false_discovery_rate: of the significance tests over all features of a season (Benjamini-Hochberg).
        loss_delta: confidence of ADWIN on the log loss of labelled predictions.
        min_auc: area under the ROC curve of a season below which quality is an alert; 0 is off.
    """

    season: int = DAY
    reference_seasons: int = 7
    min_season_rows: int = 1_000
    psi_threshold: float = 0.1
    false_discovery_rate: float = 0.01
    loss_delta: float = 0.002
    min_auc: float = 0.0


Feature = FeatureView | OnDemand | Encoding | Derived


class Pipeline:
    """One declaration of the whole loop.

    Args:
        name: lower-case name, the prefix of its topics: letters, digits and hyphens.
        event: schema of the events.
        entities: what features are kept for.
        key: name of the entity that `events` is keyed by, best the busiest.
        features: feature views, on-demand features, encodings and derived features, in the order of the vector.
        label: what is learned.
        model: how; the champion.
        challengers: other models that learn from the same outcomes beside it, each under a name of its own.
        monitoring: rules of the monitor.
        releasing: rules for new versions of the models on their way into traffic.
        lateness: how far events may come out of order, in microseconds of event time.
        max_jump: an event further ahead of its partition than this (microseconds) is set aside until confirmed.
        clock: "event" uses event time alone; "live" also refuses event times beyond the wall clock.

    Raises:
        DefinitionError: names the part at fault and what is allowed.
    """

    def __init__(
        self,
        name: str,
        *,
        event: EventSchema,
        entities: Sequence[Entity],
        key: str,
        features: Sequence[Feature],
        label: Label,
        model: Model,
        challengers: Sequence[Model] = (),
        monitoring: Monitoring | None = None,
        releasing: Releasing | None = None,
        lateness: int = DAY,
        max_jump: int = DAY,
        clock: Literal["event", "live"] = "event",
    ) -> None:
        self.name = name
        self.event = event
        self.entities = tuple(entities)
        self.key = key
        self.features = tuple(features)
        self.label = label
        self.model = model
        self.challengers = tuple(challengers)
        self.monitoring = monitoring or Monitoring()
        self.releasing = releasing or Releasing()
        self.lateness = lateness
        self.max_jump = max_jump
        self.clock = clock
        self._check()

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features in vector order."""
        return tuple(name for part in self.features for name in part.names)

    @cached_property
    def schema_fingerprint(self) -> int:
        """Identifies the schema of packed events, 64 bits."""
        return _fingerprint(self.event.describe())

    @cached_property
    def accepted_schema_fingerprints(self) -> Mapping[int, int]:
        """Fingerprints of the schemas that packed events may have been made with, and how many fields each has.

        Beside this schema they are those that end before one or more of its trailing optional fields: earlier ones, to
        which these fields were added.
        """
        described = self.event.describe()
        accepted = {self.schema_fingerprint: len(described)}
        for length in range(len(described) - 1, 0, -1):
            if not self.event.fields[length].optional:
                break
            accepted[_fingerprint(described[:length])] = length
        return accepted

    @cached_property
    def features_fingerprint(self) -> int:
        """Identifies fields, features and their order, 64 bits. Must match between a vector and a model.

        Optional fields that no feature names are left out: they can be added while the pipeline runs.
        """
        return _fingerprint(self.describe_features())

    def describe_features(self) -> dict[str, Any]:
        """Everything that gives a vector its meaning.

        Raises:
            DefinitionError: a function has no source, so a change to it could not be told.
        """
        features = [part.describe() for part in self.features]
        # A function that goes through all fields without naming them cannot be seen here; it must not.
        used = {word for text in _named(features) for word in re.findall(r"\w+", text)}
        return {
            "schema": [field.describe() for field in self.event.fields if not field.optional or field.name in used],
            "entities": [vars(entity) for entity in self.entities],
            "features": features,
        }

    @cached_property
    def views(self) -> tuple[FeatureView, ...]:
        """The feature views, in vector order."""
        return tuple(part for part in self.features if isinstance(part, FeatureView))

    @property
    def models(self) -> tuple[Model, ...]:
        """The champion, then the challengers."""
        return (self.model, *self.challengers)

    @cached_property
    def entity_fields(self) -> tuple[str, ...]:
        """For each entity the field that holds its id."""
        return tuple(entity.field for entity in self.entities)

    @cached_property
    def key_field(self) -> str:
        """The field that `events` is keyed by."""
        return next(entity.field for entity in self.entities if entity.name == self.key)

    def _check(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,62}", self.name):
            raise DefinitionError(f"pipeline name {self.name!r}: lower-case letters, digits and hyphens, 63 at most")
        names = [entity.name for entity in self.entities]
        for entity in self.entities:
            if names.count(entity.name) > 1:
                raise DefinitionError(f"entity {entity.name!r} is declared twice")
            if not entity.name.isidentifier():
                raise DefinitionError(f"entity {entity.name!r}: a name must be an identifier")
            declared = self.event.by_name.get(entity.field)
            if declared is None or declared.kind != "text" or declared.optional:
                raise DefinitionError(f"entity {entity.name!r}: {entity.field!r} must be a required text field")
        if self.key not in names:
            raise DefinitionError(f"key {self.key!r} is not an entity; declared are {', '.join(names) or 'none'}")
        self._check_features()
        for duration in ("lateness", "max_jump"):
            if getattr(self, duration) <= 0:
                raise DefinitionError(f"{duration} must be more than 0 microseconds")
        if problem := self.label.problem():
            raise DefinitionError(problem)
        self._check_models()
        if self.label.numeric:
            self._check_numeric_label()

    def _check_numeric_label(self) -> None:
        """Refuse what has a meaning for two classes alone."""
        for view in self.views:
            for name, aggregation in zip(view.names, view.aggregations, strict=True):
                if aggregation.from_labels:
                    raise DefinitionError(
                        f"feature {name!r}: {aggregation.operation} needs a binary label; it is a number"
                    )
        for model in self.models:
            if options := model.learning_options():
                raise DefinitionError(f"model {model.name!r}: {options[0]} needs a binary label; it is a number")
            if model.corrections == "reverse":
                raise DefinitionError(
                    f"model {model.name!r}: corrections='reverse' needs a binary label; it is a number"
                )
        if self.monitoring.min_auc:
            raise DefinitionError("monitoring min_auc needs a binary label; it is a number")

    def _check_models(self) -> None:
        if problem := self.releasing.problem():
            raise DefinitionError(f"releasing: {problem}")
        threshold = self.model.decision.threshold
        if self.label.numeric and not math.isfinite(threshold):
            raise DefinitionError(f"decision threshold {threshold}: allowed is a finite number")
        if not self.label.numeric and not 0 <= threshold <= 1:
            raise DefinitionError(f"decision threshold {threshold}: allowed is 0 to 1")
        names = [model.name for model in self.models]
        for model in self.models:
            if problem := model.problem():
                raise DefinitionError(f"model {model.name!r}: {problem}")
            if names.count(model.name) > 1:
                raise DefinitionError(f"model {model.name!r} is declared twice: a challenger needs a name of its own")

    def _check_features(self) -> None:
        names = [entity.name for entity in self.entities]
        viewed = [view.entity for view in self.views]
        for view in self.views:
            if view.entity not in names:
                raise DefinitionError(f"feature view of {view.entity!r}: no such entity; declared are {names}")
            if viewed.count(view.entity) > 1:
                raise DefinitionError(f"entity {view.entity!r} has two feature views; put all into one")
            if not view.aggregations:
                raise DefinitionError(f"feature view of {view.entity!r} has no aggregations")
            for aggregation in view.aggregations:
                self._check_aggregation(f"{view.entity}_{aggregation.name}", aggregation)
        for part in self.features:
            if isinstance(part, Encoding) and (problem := part.problem(self.event.by_name.get(part.of))):
                raise DefinitionError(f"encoding of {part.of!r}: {problem}")
        for name in self.feature_names:
            if not name.isidentifier():
                raise DefinitionError(f"feature {name!r}: a name must be an identifier")
            if self.feature_names.count(name) > 1:
                raise DefinitionError(f"feature {name!r} is declared twice")
        self.describe_features()
        if not self.feature_names:
            raise DefinitionError("a pipeline needs at least one feature")

    def _check_aggregation(self, name: str, aggregation: Aggregation) -> None:
        operation = OPERATIONS.get(aggregation.operation)
        if operation is None:
            raise DefinitionError(
                f"feature {name!r}: operation {aggregation.operation!r} is none of {', '.join(OPERATIONS)}"
            )
        if aggregation.window <= 0 or aggregation.hop <= 0 or aggregation.delay < 0:
            raise DefinitionError(f"feature {name!r}: window and hop must be more than 0, delay at least 0")
        if aggregation.window % aggregation.hop or aggregation.delay % aggregation.hop:
            raise DefinitionError(f"feature {name!r}: window and delay must be multiples of the hop")
        if not math.isfinite(aggregation.default):
            raise DefinitionError(f"feature {name!r}: default {aggregation.default} must be a finite number")
        if operation.from_labels and not aggregation.delay:
            raise DefinitionError(f"feature {name!r}: a label-derived feature needs a delay")
        if operation.from_labels and aggregation.where is not None:
            raise DefinitionError(
                f"feature {name!r}: a label-derived feature takes no `where`: an outcome does not carry the event's "
                "fields; allowed is a `where` on features of events"
            )
        field = self.event.by_name.get(aggregation.of)
        if operation.takes == "number" and not _is_numeric(field):
            raise DefinitionError(f"feature {name!r}: {aggregation.of!r} is not a numeric field of the event")
        if operation.takes == "value" and (field is None or field.kind not in ("text", "integer")):
            raise DefinitionError(
                f"feature {name!r}: {aggregation.of!r} is not a text or whole-number field of the event"
            )
        if problem := operation.problem(aggregation, field):
            raise DefinitionError(f"feature {name!r}: {problem}")


def _is_numeric(field: Field | None) -> bool:
    return field is not None and field.kind != "text"


def _named(features: Any) -> Iterator[str]:
    """The parts of described features that may name a field of the event."""
    for part in features:
        yield from (str(part[key]) for key in ("of", "source", "where") if key in part)
        yield from _named(part.get("aggregations", ()))


def _fingerprint(description: Any) -> int:
    canonical = json.dumps(description, sort_keys=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(canonical.encode()).digest()[:8], "big")
