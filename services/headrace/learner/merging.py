"""Merging linear models that learned shares of one stream, each from the same state. Pure.

Models are averaged, each weighted by the rows that it learned (McDonald, Hall, Mann, 2010, "Distributed training
strategies for the structured perceptron"); scalers merge exactly (see `merging_scalers`).

Behind a scaler a weight is in units of that scaler: the same model has other weights behind another one. So there are
two averages. *scaled* averages the weights as they are; behind the merged scaler they then mean something slightly
else, as the weight of a single learner does while its scaler moves on. *features* averages the functions: a model
⟨w, x'⟩ + b with x' = (x − m) / s is ⟨w / s, x⟩ + b − ⟨w, m / s⟩ in the units of the features, and behind the merged
scaler (m*, s*) the average of these is that of w · s* / s, and of b + ⟨w, (m* − m) / s⟩. A feature that was constant
for a share (s = 0) has no part in its function, and keeps its weight. The two agree as soon as the scalers of the
shares do. Before that s* / s can be very large, where a share has seen few rows with a rare feature, and one share
spoils the average; so *scaled* is what is used (`docs/decisions/0017`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Any, Literal

from river import compose, linear_model, optim, utils

from headrace.estimators import PriorCorrection
from headrace.learner import merging_scalers
from headrace.learner.errors import UnsupportedRecipeError
from headrace.learner.merging_scalers import Affine, Feature
from headrace.learner.recipes import Recipe

Units = Literal["features", "scaled"]

GENERALIZED = (linear_model.LogisticRegression, linear_model.LinearRegression)
PASSIVE_AGGRESSIVE = (linear_model.PAClassifier, linear_model.PARegressor)
SUPPORTED = (
    "LogisticRegression or LinearRegression with optim.SGD and without an L1 penalty, PAClassifier or PARegressor; "
    "alone, or behind one StandardScaler, MinMaxScaler or MaxAbsScaler without a window"
)


@dataclass(frozen=True)
class Share:
    """What one learner made of its share.

    Attributes:
        state: of its recipe.
        learned: rows that it learned since the base.
    """

    state: Mapping[str, Any]
    learned: int


@dataclass(frozen=True)
class _Linear:
    """A linear model and what its scaler knows, in numbers.

    Attributes:
        weights: one a feature.
        intercept: the intercept.
        iterations: steps of the optimizer; 0 where there is none.
        scaler: one a feature; empty where there is none.
    """

    weights: tuple[float, ...]
    intercept: float
    iterations: int
    scaler: tuple[Feature, ...]


def check_mergeable(model: Any) -> None:
    """Refuse a model that cannot be merged.

    Args:
        model: a River model as declared.

    Raises:
        UnsupportedRecipeError: names the step or setting.
    """
    scaler, linear = _steps(model)
    if scaler is not None and getattr(scaler, "window_size", None) is not None:
        raise unsupported(f"{type(scaler).__name__}(window_size={scaler.window_size})")
    if type(linear) in GENERALIZED:
        if type(linear.optimizer) is not optim.SGD:
            raise unsupported(f"{type(linear).__name__}(optimizer={type(linear.optimizer).__name__})")
        if linear.l1 != 0:
            raise unsupported(f"{type(linear).__name__}(l1={linear.l1:g})")


def unsupported(what: str) -> UnsupportedRecipeError:
    """The refusal of a part, in one line."""
    return UnsupportedRecipeError(
        f"{what} cannot be learned in shards, as what they make of it cannot be merged: set HEADRACE_LEARNER_SHARDS=1, "
        f"or declare {SUPPORTED}"
    )


def merge(
    recipe: Recipe,
    base: Mapping[str, Any],
    shares: Sequence[Share],
    names: Sequence[str],
    *,
    units: Units = "scaled",
) -> None:
    """Put a recipe into the state that merges those of the shares.

    Where one share alone has learned anything, its state is taken as it is, to the bit; where none has, the base. The
    order of the shares does not matter, to the last bit.

    Args:
        recipe: of a model that `check_mergeable` accepts; its own state is lost.
        base: the state that all shares began from.
        shares: in any order.
        names: of the features.
        units: average weights as they are behind each share's scaler, or in the units of the features.

    Raises:
        SnapshotError: a state does not fit the recipe.
    """
    shares = [share for share in shares if share.learned]
    if len(shares) < 2:
        recipe.restore(shares[0].state if shares else base)
        return
    recipe.restore(base)
    begun = _read(recipe.model, names)
    learned = []
    for share in shares:
        recipe.restore(share.state)
        learned.append(_read(recipe.model, names))
    recipe.restore(base)
    scaler, _ = _steps(recipe.model)
    known = merging_scalers.merge_features(begun.scaler, [one.scaler for one in learned])
    if scaler is not None and units == "features":
        into = [merging_scalers.affine(scaler, feature) for feature in known]
        moved = [
            _behind(one, [merging_scalers.affine(scaler, feature) for feature in one.scaler], into) for one in learned
        ]
    else:
        moved = learned
    counts = [share.learned for share in shares]
    _write(
        recipe.model,
        names,
        _Linear(
            tuple(_average(column, counts) for column in zip(*(one.weights for one in moved), strict=True)),
            _average([one.intercept for one in moved], counts),
            sum(one.iterations for one in learned) - (len(learned) - 1) * begun.iterations,
            known,
        ),
    )


def _behind(model: _Linear, scaled: Sequence[Affine], into: Sequence[Affine]) -> _Linear:
    """The same function of the features behind another scaler."""
    weights, shifts = [], [model.intercept]
    for weight, own, other in zip(model.weights, scaled, into, strict=True):
        if own.scale:
            weights.append(weight * (other.scale / own.scale))
            shifts.append(weight * ((other.offset - own.offset) / own.scale))
        else:
            weights.append(weight)
    return _Linear(tuple(weights), fsum(shifts), model.iterations, model.scaler)


def _average(values: Sequence[float], counts: Sequence[int]) -> float:
    return fsum(count * value for value, count in zip(values, counts, strict=True)) / sum(counts)


def _steps(model: Any) -> tuple[Any, Any]:
    """The scaler, or None, and the linear model.

    Raises:
        UnsupportedRecipeError: names what is neither.
    """
    if isinstance(model, PriorCorrection):
        model = model.classifier
    *scalers, linear = list(model.steps.values()) if type(model) is compose.Pipeline else [model]
    for step in scalers:
        if type(step) not in merging_scalers.SCALERS:
            raise unsupported(type(step).__name__)
    if len(scalers) > 1:
        raise unsupported(f"{type(scalers[0]).__name__} before {type(scalers[1]).__name__}")
    if type(linear) not in (*GENERALIZED, *PASSIVE_AGGRESSIVE):
        raise unsupported(type(linear).__name__)
    return (scalers[0] if scalers else None), linear


def _read(model: Any, names: Sequence[str]) -> _Linear:
    scaler, linear = _steps(model)
    weights = linear.weights
    return _Linear(
        tuple(float(weights.get(name, 0.0)) for name in names),
        float(linear.intercept),
        int(linear.optimizer.n_iterations) if type(linear) in GENERALIZED else 0,
        merging_scalers.read(scaler, names) if scaler is not None else (),
    )


def _write(model: Any, names: Sequence[str], merged: _Linear) -> None:
    scaler, linear = _steps(model)
    weights = dict(zip(names, merged.weights, strict=True))
    if type(linear) in GENERALIZED:
        linear._weights = utils.VectorDict(weights)
        linear.optimizer.n_iterations = merged.iterations
    else:
        linear.weights.clear()
        linear.weights.update(weights)
    linear.intercept = merged.intercept
    if scaler is not None:
        merging_scalers.write(scaler, names, merged.scaler)
