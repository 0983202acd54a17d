"""Logistic regression with plain SGD, alone or behind a `StandardScaler`: the recipe whose state has an explicit form.

It learns as River does to the bit, in about half the time, and its state is a few numbers in JSON.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river import compose, linear_model, optim, preprocessing, utils

from headrace.learner.errors import ModelDivergedError, SnapshotError
from headrace.learner.prequential import ScoreKind

_KIND = "logistic_regression"

_SCHEDULERS = (optim.schedulers.Constant, optim.schedulers.InverseScaling)
_INITIALIZERS = (optim.initializers.Zeros, optim.initializers.Constant)


class LogisticRegressionRecipe:
    """Logistic regression by stochastic gradient descent, behind an optional standard scaler.

    Args:
        model: a fresh River model that `takes` accepts. It is learned in place.
    """

    score_kind: ScoreKind = "probability"
    knows_absence = False
    resets = 0
    numeric = False
    reverses = False

    def __init__(self, model: Any) -> None:
        self.model = model
        scaler, regression = _steps(model)
        # River ships no types.
        self._scaler: Any = scaler
        self._regression: Any = regression
        self.fingerprint = _fingerprint(_describe(scaler, regression))

    def learn(
        self,
        rows: Sequence[Sequence[float]],
        labels: Sequence[float],
        names: Sequence[str],
        event_ids: Sequence[str] | None = None,
        replaced: Sequence[float | None] | None = None,
    ) -> NDArray[np.float64]:
        """Learn rows one by one; the result is that of `learn_one` of the River pipeline, to the bit.

        Args:
            rows: feature values, each row as long as `names`.
            labels: one per row.
            names: feature names in column order.
            event_ids: not used, as every row is learned.
            replaced: not used, as nothing that was learned can be taken back.

        Returns:
            float64 [rows]: the probability of True that the model gave each row before it learned anything of it.
        """
        raw, learn = self._regression._raw_dot_one, self._regression.learn_one
        logits = []
        for (before, x), label in zip(self._scaled(rows, names), labels, strict=True):
            logits.append(raw(before))
            learn(x, label)
        return 1.0 / (1.0 + np.exp(-np.clip(np.array(logits, np.float64), -500.0, 500.0)))

    def _scaled(
        self, rows: Sequence[Sequence[float]], names: Sequence[str]
    ) -> Iterator[tuple[dict[str, float], dict[str, float]]]:
        """The rows as the regression predicts from them, and as it learns them: between the two the scaler, which sees
        no label, learns the row, as in River's pipeline.
        """
        scaler = self._scaler
        if scaler is None:
            for row in rows:
                x = dict(zip(names, row, strict=True))
                yield x, x
            return
        counts = {scaler.counts.get(name, 0) for name in names}
        if not scaler.with_std or len(counts) > 1:
            for row in rows:
                x = dict(zip(names, row, strict=True))
                before = scaler.transform_one(x)
                scaler.learn_one(x)
                yield before, scaler.transform_one(x)
            return
        # The operations of StandardScaler.learn_one and transform_one in their order, in one loop over lists: the same
        # bits in half the time, since all features of a row are always there and share one count.
        (count,) = counts
        means = [scaler.means.get(name, 0.0) for name in names]
        variances = [scaler.vars.get(name, 0.0) for name in names]
        columns = range(len(names))
        for row in rows:
            count += 1
            seen, values = [], []
            for i, value, mean, variance in zip(columns, row, means, variances, strict=True):
                off = value - mean
                seen.append(off / variance**0.5 if variance else 0.0)
                mean += off / count  # noqa: PLW2901
                left = value - mean
                variance += (off * left - variance) / count  # noqa: PLW2901
                means[i], variances[i] = mean, variance
                values.append(left / variance**0.5 if variance else 0.0)
            yield dict(zip(names, seen, strict=True)), dict(zip(names, values, strict=True))
        for name, mean, variance in zip(names, means, variances, strict=True):
            scaler.counts[name], scaler.means[name], scaler.vars[name] = count, mean, variance

    def score(self, rows: Sequence[Sequence[float]], names: Sequence[str]) -> NDArray[np.float64]:
        """River's probability of True for each row, float64 [rows]; nothing is learned."""
        predict = self.model.predict_proba_one
        return np.array([predict(dict(zip(names, row, strict=True)))[True] for row in rows], np.float64)

    def copy(self) -> LogisticRegressionRecipe:
        """A recipe to export and to score with: itself, as neither changes it."""
        return self

    def comparable(self, state: Mapping[str, Any]) -> Any:
        """A state in a form in which equal states are equal: itself."""
        return dict(state)

    def state(self) -> dict[str, Any]:
        """What was learned, as JSON values; `restore` of it gives a model that goes on to the bit.

        Raises:
            ModelDivergedError: names the first value that is not finite.
        """
        regression, scaler = self._regression, self._scaler
        state: dict[str, Any] = {
            "kind": _KIND,
            "regression": {
                # Pairs keep the order of the features, and with it the order of summation.
                "weights": [[name, float(value)] for name, value in regression.weights.items()],
                "intercept": float(regression.intercept),
                "iterations": int(regression.optimizer.n_iterations),
            },
            "scaler": None,
        }
        if scaler is not None:
            state["scaler"] = {
                "counts": [[name, int(value)] for name, value in scaler.counts.items()],
                "means": [[name, float(value)] for name, value in scaler.means.items()],
                "variances": [[name, float(value)] for name, value in scaler.vars.items()],
            }
        _check_finite(state)
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put the model where `state` was taken.

        Raises:
            SnapshotError: the state is of another kind of model, or damaged.
        """
        if state.get("kind") != _KIND or (state.get("scaler") is None) != (self._scaler is None):
            raise SnapshotError(f"the snapshot holds a {state.get('kind')!r} state that does not fit the recipe")
        try:
            learned = state["regression"]
            self._regression._weights = utils.VectorDict({str(n): float(v) for n, v in learned["weights"]})
            self._regression.intercept = float(learned["intercept"])
            self._regression.optimizer.n_iterations = int(learned["iterations"])
            if self._scaler is not None:
                scaler = state["scaler"]
                self._scaler.counts.clear()
                self._scaler.means.clear()
                self._scaler.vars.clear()
                self._scaler.counts.update({str(name): int(value) for name, value in scaler["counts"]})
                self._scaler.means.update({str(name): float(value) for name, value in scaler["means"]})
                self._scaler.vars.update({str(name): float(value) for name, value in scaler["variances"]})
        except (KeyError, TypeError, ValueError) as error:
            raise SnapshotError(f"the model state in the snapshot is damaged: {error!r}") from error


def takes(model: Any) -> bool:
    """Whether a River model is one that this recipe holds in every setting."""
    try:
        scaler, regression = _steps(model)
    except TypeError:
        return False
    schedules = (regression.optimizer.lr, regression.intercept_lr)
    return (
        (scaler is None or scaler.window_size is None)
        and regression.l1 == 0
        and type(regression.optimizer) is optim.SGD
        and type(regression.loss) is optim.losses.Log
        and type(regression.initializer) in _INITIALIZERS
        and all(type(schedule) in _SCHEDULERS for schedule in schedules)
    )


def _steps(model: Any) -> tuple[preprocessing.StandardScaler | None, linear_model.LogisticRegression]:
    steps = list(model.steps.values()) if type(model) is compose.Pipeline else [model]
    kinds = [type(step) for step in steps]
    if kinds == [linear_model.LogisticRegression]:
        return None, steps[0]
    if kinds == [preprocessing.StandardScaler, linear_model.LogisticRegression]:
        return steps[0], steps[1]
    raise TypeError("another model")


def _describe(scaler: preprocessing.StandardScaler | None, regression: linear_model.LogisticRegression) -> Any:
    def named(part: Any) -> dict[str, Any]:
        return {"name": type(part).__name__, **{k: v for k, v in vars(part).items() if not k.startswith("_")}}

    return {
        "scaler": None if scaler is None else {"with_std": scaler.with_std},
        "regression": {
            "optimizer": {"name": "SGD", "lr": named(regression.optimizer.lr)},
            "loss": named(regression.loss),
            "l2": regression.l2,
            "intercept_init": regression.intercept_init,
            "intercept_lr": named(regression.intercept_lr),
            "clip_gradient": regression.clip_gradient,
            "initializer": named(regression.initializer),
        },
    }


def _fingerprint(description: Any) -> str:
    canonical = json.dumps(description, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _check_finite(value: Any, path: str = "model") -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ModelDivergedError(f"{path} is {value}: lower the learning rate or look at the features")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_finite(item, f"{path}.{key}")
    elif isinstance(value, list):
        for item in value:
            _check_finite(item, path if not isinstance(item, list) else f"{path} of {item[0]}")
