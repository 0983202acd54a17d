"""A kind of River model that the suite is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

WIDTH = 4
NAMES = tuple(f"f{i}" for i in range(WIDTH))
"""Features of all models but those that learn one of River's data sets."""


@dataclass(frozen=True)
class Case:
    """A kind of model.

    Attributes:
        make: gives a fresh one.
        kind: what it answers: the probability of True, a value, or the number of a cluster.
        knows_absence: River's model itself handles a feature that is not there; NaN in the file means that.
        answers_nan: a row of NaN gets NaN; else the model does not look at features, or compares them only.
        extremes: the sum of its terms has a fixed order in River too, so that terms up to 1e38 may cancel.
        codes: it is made for features that are codes of classes; others would be as many classes as rows.
        only_names: it is made for the features `NAMES`, so it learns no data set.
    """

    make: Callable[[], Any]
    kind: Literal["classifier", "regressor", "clusterer"] = "classifier"
    knows_absence: bool = False
    answers_nan: bool = True
    extremes: bool = True
    codes: bool = False
    only_names: bool = False
