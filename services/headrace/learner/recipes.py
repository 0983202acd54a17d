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
        numeric: whether labels are numbers, not one of two classes.
        reverses: whether a correction takes back the label that it replaces.
    """

    model: Any
    score_kind: ScoreKind
    fingerprint: str
    knows_absence: bool
    resets: int
    numeric: bool
    reverses: bool

    def learn(
        self,
        rows: Sequence[Sequence[float]],
        labels: Sequence[float],
        names: Sequence[str],
        event_ids: Sequence[str] | None = None,
        replaced: Sequence[float | None] | None = None,
    ) -> NDArray[np.float64]:
        """Learn rows one by one; gives the score of each before its label was learned, float64 [rows].

        A row with a label in `replaced` was learned with that one before, and is taken back first.
        """
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


def declared(model: Model, feature_names: Sequence[str], *, numeric: bool = False) -> Recipe:
    """The recipe of a pipeline's model.

    Args:
        model: the declaration; its River model is built anew.
        feature_names: of the pipeline, in order.
        numeric: whether the pipeline's label is a number.

    Raises:
        UnsupportedRecipeError: names the step or setting that cannot be served, or not learned twice in the same way,
            or that does not go with the label.
    """
    plain = not model.learning_options() and model.corrections == "ignore" and not numeric
    built = model.build()
    if plain and logistic_recipe.takes(built):
        return logistic_recipe.LogisticRegressionRecipe(built)
    return RiverRecipe(
        model.build,
        feature_names,
        class_weights=model.class_weights,
        negative_sampling=model.negative_sampling,
        reset_on_drift=model.reset_on_drift,
        calibration=model.calibration,
        reverse_corrections=model.corrections == "reverse",
        numeric=numeric,
    )


def recognise(model: Any, feature_names: Sequence[str] = ("feature",)) -> Recipe:
    """The recipe of a fresh River model, without further options.

    Raises:
        UnsupportedRecipeError: names the step or setting that cannot be served, or not learned twice in the same way.
    """
    if logistic_recipe.takes(model):
        return logistic_recipe.LogisticRegressionRecipe(model)
    return RiverRecipe(lambda: model, feature_names)
