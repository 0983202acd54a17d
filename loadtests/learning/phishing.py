"""River's Phishing data as a pipeline: features as they are given, the label at once, all models side by side.

`headrace demo run --pipeline loadtests/learning/phishing.py --events 1250 --lockstep` replays it;
`python -m loadtests.learning.benchmarks --whole` does, and holds what was learned to River's page.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

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
    Text,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FEATURES = (
    "empty_server_form_handler",
    "popup_window",
    "https",
    "request_from_other_domain",
    "anchor_from_other_domain",
    "is_popular",
    "long_url",
    "age_of_domain",
    "ip_in_url",
)
MODELS = (
    "Logistic regression",
    "ALMA",
    "Naive Bayes",
    "Hoeffding Tree",
    "Hoeffding Adaptive Tree",
    "Adaptive Random Forest",
    "Leveraging Bagging",
)


def given(name: str) -> Callable[[EventColumns], NDArray[np.float64]]:
    """A feature that is a number of the event."""

    def value(events: EventColumns) -> NDArray[np.float64]:
        return events.numbers[name]

    return value


def declared(name: str) -> Model:
    """A model of River's page."""

    def build() -> Any:
        # Only the learner has River.
        from loadtests.learning.river_models import MODELS as BUILDS

        return BUILDS[name]()

    return Model(name.lower().replace(" ", "_"), build)


pipeline = Pipeline(
    "phishing",
    event=EventSchema(Text("site"), *(Number(name) for name in FEATURES)),
    entities=[Entity("site", "site")],
    key="site",
    features=[OnDemand(name, given(name)) for name in FEATURES],
    label=Label(horizon=HOUR),
    model=declared(MODELS[0]),
    challengers=[declared(name) for name in MODELS[1:]],
    monitoring=Monitoring(season=HOUR),
)
