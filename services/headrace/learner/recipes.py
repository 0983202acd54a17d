"""What learns: a declared River model, with a state that is saved and restored to the bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.learner import logistic_recipe
from headrace.learner.prequential import ScoreKind
from headrace.learner.river_recipe import RiverRecipe
from headrace.pipeline import Model


class Recipe(Protocol):
    """A River model as the user declares it, and how it learns.

    Attributes:
        model: the River model that is exported and served.
        score_kind: what its scores are.
        fingerprint: SHA-256 of the declaration, hexadecimal.
        knows_absence: whether a feature that is NaN counts as absent; without this a row with one is not learned.
        resets: how often the model began anew, as declared, because its error rose.
    """

    model: Any
    score_kind: ScoreKind
    fingerprint: str
    knows_absence: bool
    resets: int

    def learn(
        self,
        rows: Sequence[Sequence[float]],
        labels: Sequence[bool],
        names: Sequence[str],
        event_ids: Sequence[str] | None = None,
    ) -> NDArray[np.float64]:
        """Learn rows one by one; gives the score of each before its label was learned, float64 [rows]."""
        ...

    def score(self, rows: Sequence[Sequence[float]], names: Sequence[str]) -> NDArray[np.float64]:
        """River's score for each row, float64 [rows]; nothing is learned."""
        ...

    def state(self) -> dict[str, Any]:
        """What was learned, as JSON values and bytes."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put the model where `state` was taken; it goes on to the bit."""
        ...

    def copy(self) -> Recipe:
        """A recipe to export and to score with, which leaves this one as it is."""
        ...

    def comparable(self, state: Mapping[str, Any]) -> Any:
        """A state in a form in which equal states are equal."""
        ...


def declared(model: Model, feature_names: Sequence[str]) -> Recipe:
    """The recipe of a pipeline's model.

    Args:
        model: the declaration; its River model is built anew.
        feature_names: of the pipeline, in order.

    Raises:
        UnsupportedRecipeError: names the step or setting that cannot be served, or not learned twice in the same way.
    """
    plain = model.class_weights is None and model.negative_sampling == 1.0
    built = model.build()
    if plain and model.reset_on_drift is None and model.calibration is None and logistic_recipe.takes(built):
        return logistic_recipe.LogisticRegressionRecipe(built)
    return RiverRecipe(
        model.build,
        feature_names,
        class_weights=model.class_weights,
        negative_sampling=model.negative_sampling,
        reset_on_drift=model.reset_on_drift,
        calibration=model.calibration,
    )


def recognise(model: Any, feature_names: Sequence[str] = ("feature",)) -> Recipe:
    """The recipe of a fresh River model, without further options.

    Raises:
        UnsupportedRecipeError: names the step or setting that cannot be served, or not learned twice in the same way.
    """
    if logistic_recipe.takes(model):
        return logistic_recipe.LogisticRegressionRecipe(model)
    return RiverRecipe(lambda: model, feature_names)
