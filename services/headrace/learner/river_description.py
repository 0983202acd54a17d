"""What can be said of a River model before it learns: its settings, and whether it learns the same twice."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping
from typing import Any

from river import base, compose, forest, tree

from headrace.learner.errors import UnsupportedRecipeError

# Scalers look at the features that are there; what is absent stays absent behind them.
_PASS_ABSENCE = (
    "AdaptiveStandardScaler",
    "ConstantScaler",
    "MaxAbsScaler",
    "MinMaxScaler",
    "RobustScaler",
    "StandardScaler",
)


def fingerprint(description: Any) -> str:
    """SHA-256 of a description, hexadecimal."""
    return hashlib.sha256(json.dumps(description, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def describe(value: Any) -> Any:
    """A River model, or a setting of one, as JSON values: class and settings as declared, all the way down.

    Raises:
        UnsupportedRecipeError: a setting of a kind whose content cannot be told.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return {"number": repr(value)}
    if isinstance(value, type):
        return {"class": f"{value.__module__}.{value.__qualname__}"}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if isinstance(value, set | frozenset):
        return {"set": sorted((describe(item) for item in value), key=repr)}
    if isinstance(value, Mapping):
        return {"pairs": [[describe(key), describe(item)] for key, item in value.items()]}
    if isinstance(value, compose.Pipeline):
        return {"steps": [[str(name), describe(step)] for name, step in value.steps.items()]}
    if type(value).__module__.startswith(("river.", "headrace.estimators")):
        settings = {name: describe(setting) for name, setting in _settings(value)}
        return {"class": f"{type(value).__module__}.{type(value).__qualname__}", "settings": settings}
    raise UnsupportedRecipeError(
        f"the recipe has a setting of type {type(value).__name__}, by which a change of the recipe cannot be told"
    )


def parts(model: Any) -> Iterator[Any]:
    """A River model and every River object among its settings, all the way down."""
    if isinstance(model, compose.Pipeline):
        for step in model.steps.values():
            yield from parts(step)
    elif isinstance(model, list | tuple):
        for item in model:
            yield from parts(item)
    elif isinstance(model, Mapping):
        yield from parts(list(model.values()))
    elif type(model).__module__.startswith(("river.", "headrace.estimators")) and not isinstance(model, type):
        yield model
        for _, setting in _settings(model):
            yield from parts(setting)


def order_names(model: Any) -> None:
    """Give the sets of feature names that a model goes through an order, by name.

    `Select` hands features on in the order of a set, which is another one after the set was saved and restored where
    two names share a place in its table.
    """
    for part in parts(model):
        if isinstance(part, compose.Select):
            ordered: Any = dict.fromkeys(sorted(part.keys, key=str))
            part.keys = ordered


def check_seeds(model: Any) -> None:
    """Refuse chance that nobody could repeat.

    Raises:
        UnsupportedRecipeError: names the first part that takes a seed and has none.
    """
    for part in parts(model):
        if dict(_settings(part)).get("seed", 0) is None:
            raise UnsupportedRecipeError(
                f"the recipe has {type(part).__name__}(seed=None): a seed is needed, "
                "so that learning the same outcomes again gives the same model"
            )


def knows_absence(model: Any) -> bool:
    """Whether a feature may be absent from a row: trees and ensembles of trees, behind scalers or not."""
    if isinstance(model, compose.Pipeline):
        *first, last = model.steps.values()
        return all(type(step).__name__ in _PASS_ABSENCE for step in first) and knows_absence(last)
    if type(model).__module__.startswith((tree.__name__, forest.__name__)):
        return True
    wrapped = [setting for name, setting in _settings(model) if name in ("model", "models", "classifier")]
    inner = [one for setting in wrapped for one in (setting if isinstance(setting, list | tuple) else [setting])]
    return bool(inner) and all(isinstance(one, base.Estimator) and knows_absence(one) for one in inner)


def final_step(model: Any) -> Any:
    """The last step of a pipeline that has steps, or the model itself."""
    while isinstance(model, compose.Pipeline):
        model = list(model.steps.values())[-1]
    return model


def takes_weights(model: Any) -> bool:
    """Whether `learn_one` takes the weight `w` of a row."""
    return "w" in inspect.signature(model.learn_one).parameters


def _settings(part: Any) -> Iterator[tuple[str, Any]]:
    """The arguments that a River object was made with, by name."""
    if not hasattr(type(part), "__init__") or type(part).__init__ is object.__init__:
        return
    for name in inspect.signature(type(part).__init__).parameters:
        if name != "self" and hasattr(part, name):
            yield name, getattr(part, name)
