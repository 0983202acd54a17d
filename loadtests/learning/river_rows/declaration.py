"""River's data sets as pipelines: features as they are given, the label a second later, all models side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.pipeline import (
    HOUR,
    Entity,
    EventColumns,
    EventSchema,
    Label,
    Model,
    Monitoring,
    Number,
    OnDemand,
    Pipeline,
    Releasing,
    Text,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Declared:
    """A data set of River's page.

    Attributes:
        features: names, in River's order.
        models: of the page, the first as champion.
        per_step: events of an hour, which is a step of a lockstep replay.
        parts: of one that a feature counts: 1,000,000 where it is in millionths.
    """

    features: tuple[str, ...]
    models: tuple[str, ...]
    per_step: int
    parts: float = 1.0

    def in_units(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values as features are declared."""
        return in_parts(values, self.parts)


ON_ALL = (
    "Logistic regression",
    "ALMA",
    "Naive Bayes",
    "Hoeffding Tree",
    "Hoeffding Adaptive Tree",
    "[baseline] Last Class",
    "Adaptive Random Forest",
)
MODELS = (*ON_ALL, "Aggregated Mondrian Forest", "Leveraging Bagging")

DECLARED = {
    "Phishing": Declared(
        (
            "empty_server_form_handler",
            "popup_window",
            "https",
            "request_from_other_domain",
            "anchor_from_other_domain",
            "is_popular",
            "long_url",
            "age_of_domain",
            "ip_in_url",
        ),
        MODELS,
        per_step=60,
    ),
    "Bananas": Declared(("x1", "x2"), MODELS, per_step=500, parts=1e6),
    "Elec2": Declared(
        ("date", "day", "period", "nswprice", "nswdemand", "vicprice", "vicdemand", "transfer"),
        ON_ALL,
        per_step=1500,
        parts=1e6,
    ),
}


def in_parts(values: NDArray[np.float64], parts: float) -> NDArray[np.float64]:
    """Values as whole numbers of parts of one; as they are where a feature counts ones."""
    return values if parts == 1.0 else np.rint(values * parts)


def recipe_name(model: str) -> str:
    """Name of the recipe of a model of the page."""
    return model.lower().replace("[", "").replace("]", "").replace(" ", "_")


def recipe(model: str, declared: Declared) -> Model:
    """A model of River's page, for features in their unit."""

    def build() -> Any:
        # Only the learner has River.
        from loadtests.learning.river_rows.models import build as built

        return built(model, declared.parts)

    return Model(recipe_name(model), build)


def given(name: str, parts: float) -> Callable[[EventColumns], NDArray[np.float64]]:
    """A feature that is a number of the event."""

    def value(events: EventColumns) -> NDArray[np.float64]:
        return in_parts(events.numbers[name], parts)

    return value


def pipeline(name: str) -> Pipeline:
    """The pipeline of a data set."""
    declared = DECLARED[name]
    return Pipeline(
        name.lower(),
        event=EventSchema(Text("row"), *(Number(feature) for feature in declared.features)),
        entities=[Entity("row", "row")],
        key="row",
        features=[OnDemand(feature, given(feature, declared.parts)) for feature in declared.features],
        label=Label(horizon=HOUR),
        model=recipe(declared.models[0], declared),
        challengers=[recipe(model, declared) for model in declared.models[1:]],
        monitoring=Monitoring(season=HOUR),
        # Prices drift: between two steps of Elec2 scores move further than a guard rail lets them by default.
        releasing=Releasing(max_score_shift=1.0),
    )
