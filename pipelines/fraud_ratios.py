"""Card fraud by `fraud.py` with five more features: a logistic regression sees ratios and roots only if they are given.

A payment is judged beside the customer's own mean, and a terminal by the root of its share of known frauds: from none
to one in twenty says more than from one in twenty to two. `make bench-quality` holds both pipelines side by side on the
handbook's payments.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from headrace.pipeline import Derived, Model, Pipeline
from headrace.platform.pipelines import load_pipeline

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

fraud = load_pipeline(str(Path(__file__).with_name("fraud.py")))


def amount_over_mean(features: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """The amount as a multiple of the customer's mean over 30 days, 20 at the most."""
    return np.minimum(features["amount"] / np.maximum(features["customer_mean_amount_cents_30d"], 1.0), 20.0)


def log_amount(features: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """The logarithm of the amount and 1."""
    return np.log1p(features["amount"])


def root_of_rate_1d(features: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Root of the terminal's share of frauds, over a day."""
    return np.sqrt(features["terminal_label_rate_1d"])


def root_of_rate_7d(features: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """The same over a week."""
    return np.sqrt(features["terminal_label_rate_7d"])


def root_of_rate_30d(features: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """The same over 30 days."""
    return np.sqrt(features["terminal_label_rate_30d"])


pipeline = Pipeline(
    "fraud-ratios",
    event=fraud.event,
    entities=fraud.entities,
    key=fraud.key,
    features=[
        *fraud.features,
        Derived("amount_over_mean", amount_over_mean),
        Derived("log_amount", log_amount),
        Derived("root_of_rate_1d", root_of_rate_1d),
        Derived("root_of_rate_7d", root_of_rate_7d),
        Derived("root_of_rate_30d", root_of_rate_30d),
    ],
    label=fraud.label,
    model=Model("ratios_logistic_regression", fraud.model.build, fraud.model.decision),
    monitoring=fraud.monitoring,
)
