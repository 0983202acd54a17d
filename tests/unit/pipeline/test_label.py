"""Labels: what is declared, what is one, and what a label that is a number cannot go with."""

from __future__ import annotations

import math
from typing import Any

import pytest

from headrace.pipeline import (
    DAY,
    Decision,
    DefinitionError,
    Entity,
    EventSchema,
    FeatureView,
    Label,
    Model,
    Money,
    Monitoring,
    Pipeline,
    Text,
    count,
    label_count,
    label_mean,
    label_rate,
)
from headrace.pipeline.description import compare_definitions, describe_pipeline

RIDES = Label(kind="number", minimum=0, maximum=600, unit="minutes")


def declare(label: Label = RIDES, model: Model | None = None, **parts: Any) -> Pipeline:
    given: dict[str, Any] = {"features": [FeatureView("rider", count(DAY))]} | parts
    return Pipeline(
        "rides",
        event=EventSchema(Text("rider"), Money("fare")),
        entities=[Entity("rider", "rider")],
        key="rider",
        label=label,
        model=model or Model("minutes", lambda: None, Decision(threshold=45)),
        **given,
    )


def model(**options: Any) -> Model:
    return Model("minutes", lambda: None, **options)


@pytest.mark.parametrize(
    ("label", "value", "refusal"),
    [
        (Label(), 0.0, ""),
        (Label(), 1.0, ""),
        (Label(), 0.5, "value is 0.5; a binary label is 0 or 1"),
        (Label(), math.nan, "value is nan; a binary label is 0 or 1"),
        (RIDES, 0.0, ""),
        (RIDES, 599.75, ""),
        (RIDES, 600.5, "value is 600.5; allowed is 0 to 600 minutes"),
        (RIDES, math.nan, "value is nan; allowed is 0 to 600 minutes"),
        (Label(kind="number"), -1e300, ""),
        (Label(kind="number"), math.inf, "value is inf; allowed is a finite number"),
        (Label(kind="number", minimum=2, unit="kWh"), 1.0, "value is 1; allowed is a finite number from 2 kWh"),
        (Label(kind="number", maximum=2), 3.0, "value is 3; allowed is a finite number up to 2"),
    ],
)
def test_what_is_a_label(label: Label, value: float, refusal: str) -> None:
    assert label.refusal(value) == refusal


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"label": Label(kind="text")}, "label kind 'text': allowed are 'binary' and 'number'"),  # type: ignore[arg-type]
        ({"label": Label(expired="positive")}, "label expired='positive': allowed are"),  # type: ignore[arg-type]
        ({"label": Label(minimum=0)}, "label minimum needs kind='number': a binary label is 0 or 1"),
        ({"label": Label(unit="minutes")}, "label unit needs kind='number'"),
        ({"label": Label(kind="number", expired="negative")}, "label expired='negative' needs kind='binary'"),
        ({"label": Label(kind="number", minimum=2, maximum=2)}, "label minimum 2 must be less than maximum 2"),
        ({"label": Label(kind="number", maximum=math.inf)}, "label maximum inf: a bound must be a finite number"),
        ({"model": model(decision=Decision(threshold=math.nan))}, "decision threshold nan: allowed is a finite number"),
        ({"model": model(class_weights={True: 2})}, "model 'minutes': class_weights needs a binary label"),
        ({"model": model(negative_sampling=0.5)}, "model 'minutes': negative_sampling needs a binary label"),
        ({"model": model(reset_on_drift=0.01)}, "model 'minutes': reset_on_drift needs a binary label"),
        ({"model": model(calibration="platt")}, "model 'minutes': calibration needs a binary label"),
        ({"model": model(corrections="reverse")}, "model 'minutes': corrections='reverse' needs a binary label"),
        ({"model": model(corrections="learn")}, "model 'minutes': corrections 'learn': allowed are"),
        ({"monitoring": Monitoring(min_auc=0.6)}, "monitoring min_auc needs a binary label; it is a number"),
        *(
            (
                {"features": [FeatureView("rider", aggregation)]},
                f"feature 'rider_{aggregation.name}': {aggregation.operation} needs a binary label; it is a number",
            )
            for aggregation in (label_rate(DAY, delay=DAY), label_count(DAY, delay=DAY), label_mean(DAY, delay=DAY))
        ),
    ],
)
def test_what_a_number_cannot_go_with_is_refused_by_name(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError) as raised:
        declare(**parts)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("option", ["class_weights", "negative_sampling", "reset_on_drift", "calibration"])
def test_corrections_are_not_reversed_beside_options_that_change_what_was_learned(option: str) -> None:
    value = {"class_weights": {True: 2.0}, "negative_sampling": 0.5, "reset_on_drift": 0.01, "calibration": "platt"}
    with pytest.raises(DefinitionError, match=f"corrections='reverse' cannot go with {option}"):
        declare(Label(), model(corrections="reverse", **{option: value[option]}))


def test_a_threshold_is_in_the_unit_of_the_label() -> None:
    decision = declare().model.decision
    assert decision.decide(44.5, untrained=False) == "accept"
    assert decision.decide(45, untrained=False) == "review"


def test_another_kind_of_label_breaks_what_runs() -> None:
    old = describe_pipeline(declare(Label(), Model("minutes", lambda: None)))
    changes = compare_definitions(old, declare())
    assert (changes[0].breaking, changes[0].what) == (True, "label kind binary is now number")
    wider = compare_definitions(describe_pipeline(declare()), declare(Label(kind="number", minimum=0, unit="minutes")))
    assert [(one.breaking, one.what) for one in wider] == [(False, "label: maximum none instead of 600")]
