"""Which converter belongs to which River class, and the recursion through pipelines and ensembles.

A converter is registered for one exact class: a subclass may override what its parent does, so it needs its own.
Converters of what is made of other models call `convert`, `shares` and `transform` for those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from river import base, compose

from headrace.onnx_export.errors import UnsupportedModelError
from headrace.onnx_export.graph import Columns, Graph

EstimatorConverter = Callable[[Any, Columns, Graph], str]
EstimatorsConverter = Callable[[Sequence[Any], Columns, Graph], Sequence[str]]
TransformerConverter = Callable[[Any, Columns, Graph], Columns]

_ESTIMATORS: dict[type, EstimatorConverter] = {}
_SHARES: dict[type, EstimatorConverter] = {}
_SHARES_TOGETHER: dict[type, EstimatorsConverter] = {}
_TRANSFORMERS: dict[type, TransformerConverter] = {}


def estimator(*kinds: type) -> Callable[[EstimatorConverter], EstimatorConverter]:
    """Register a converter (model, columns, graph) → name of a float64 tensor [N, 1].

    The tensor holds the probability of True that `predict_proba_one` gives, or the value or number of the cluster
    that `predict_one` gives.
    """

    def register(converter: EstimatorConverter) -> EstimatorConverter:
        _ESTIMATORS.update(dict.fromkeys(kinds, converter))
        return converter

    return register


def shares_of(*kinds: type) -> Callable[[EstimatorConverter], EstimatorConverter]:
    """Register a converter (model, columns, graph) → name of a float64 tensor [N, 2] for a classifier.

    The tensor holds what `predict_proba_one` gives for False and for True, 0 for a class that it does not name. For
    classifiers whose answer does not always name both classes or sum to 1; for the others the probability of True
    says it all (`estimator`). A class needs one of the two.
    """

    def register(converter: EstimatorConverter) -> EstimatorConverter:
        _SHARES.update(dict.fromkeys(kinds, converter))
        return converter

    return register


def shares_of_several(*kinds: type) -> Callable[[EstimatorsConverter], EstimatorsConverter]:
    """Register, beside `shares_of`, a converter of several classifiers of one class that need fewer nodes together."""

    def register(converter: EstimatorsConverter) -> EstimatorsConverter:
        _SHARES_TOGETHER.update(dict.fromkeys(kinds, converter))
        return converter

    return register


def transformer(*kinds: type) -> Callable[[TransformerConverter], TransformerConverter]:
    """Register a converter (step, columns, graph) → columns, as `transform_one` gives them."""

    def register(converter: TransformerConverter) -> TransformerConverter:
        _TRANSFORMERS.update(dict.fromkeys(kinds, converter))
        return converter

    return register


def supported() -> tuple[str, ...]:
    """Names of the River classes that have an ONNX form, in order of name."""
    kinds = {*_ESTIMATORS, *_SHARES, *_TRANSFORMERS, compose.Pipeline}
    return tuple(sorted(kind.__name__ for kind in kinds))


def convert(model: Any, columns: Columns, graph: Graph) -> str:
    """Add an estimator, or a pipeline that ends in one, to the graph.

    Args:
        model: a River model.
        columns: its features.
        graph: gets the nodes.

    Returns:
        Name of a float64 tensor [N, 1]: the probability of True, the value, or the number of the cluster; 0 where
        River names no class or has no value yet.

    Raises:
        UnsupportedModelError: names the class or setting that has no ONNX form.
    """
    if type(model) is compose.Pipeline:
        last, columns = _through(model, columns, graph)
        return convert(last, columns, graph)
    if type(model) in _ESTIMATORS:
        return _ESTIMATORS[type(model)](model, columns, graph)
    if type(model) in _SHARES:
        return graph.split(_SHARES[type(model)](model, columns, graph), 2)[1]
    raise _refused(model)


def shares(model: Any, columns: Columns, graph: Graph) -> str:
    """Add a classifier to the graph, as `convert` does.

    Returns:
        Name of a float64 tensor [N, 2]: what `predict_proba_one` gives for False and for True, 0 where it gives none.

    Raises:
        UnsupportedModelError: as `convert`.
    """
    if type(model) is compose.Pipeline:
        last, columns = _through(model, columns, graph)
        return shares(last, columns, graph)
    if type(model) in _SHARES:
        return _SHARES[type(model)](model, columns, graph)
    true = convert(model, columns, graph)
    false = graph.node("Sub", graph.double(1.0), true)
    return graph.join([false, true])


def shares_of_each(models: Sequence[Any], columns: Columns, graph: Graph) -> Sequence[str]:
    """`shares` of some classifiers that see the same columns."""
    kinds = {type(model) for model in models}
    together = _SHARES_TOGETHER.get(next(iter(kinds))) if len(kinds) == 1 else None
    if together is not None:
        return together(models, columns, graph)
    return [shares(model, columns, graph) for model in models]


def transform(step: Any, columns: Columns, graph: Graph) -> Columns:
    """Add a transformer, a pipeline or a union of transformers to the graph.

    Raises:
        UnsupportedModelError: as `convert`.
    """
    if type(step) is compose.Pipeline:
        last, columns = _through(step, columns, graph)
        return transform(last, columns, graph)
    if type(step) in _TRANSFORMERS:
        return _TRANSFORMERS[type(step)](step, columns, graph)
    raise _refused(step)


def final_step(model: Any) -> Any:
    """The last step of a pipeline, or the model itself.

    Raises:
        UnsupportedModelError: the pipeline is empty.
    """
    while type(model) is compose.Pipeline:
        if not model.steps:
            raise UnsupportedModelError("an empty pipeline has no ONNX form")
        model = list(model.steps.values())[-1]
    return model


def binary_shares(stated: dict[Any, float], owner: str) -> tuple[float, float]:
    """What River says by class, as (False, True); a class that is not named has 0.

    Raises:
        UnsupportedModelError: a class is neither False nor True (nor 0 or 1, which Python holds equal to them).
    """
    for label in stated:
        if label not in (False, True):
            raise UnsupportedModelError(f"{owner}: the class {label!r} is neither True nor False")
    return float(stated.get(False, 0.0)), float(stated.get(True, 0.0))


def only(condition: bool, message: str) -> None:
    """Refuse a setting.

    Raises:
        UnsupportedModelError: with the message, if the condition does not hold.
    """
    if not condition:
        raise UnsupportedModelError(message)


def constant_shares(stated: tuple[float, float], columns: Columns, graph: Graph) -> str:
    """The same shares for every row: float64 [N, 2]."""
    one = graph.repeated(1.0, columns.tensor)
    return graph.node("Mul", one, graph.double(np.array([stated])))


def _through(pipeline: Any, columns: Columns, graph: Graph) -> tuple[Any, Columns]:
    """The last step of a pipeline, and the columns that reach it."""
    final_step(pipeline)
    *first, last = pipeline.steps.values()
    for step in first:
        # An anomaly filter keeps rows from being learned; predictions pass it by.
        if not isinstance(step, base.AnomalyFilter):
            columns = transform(step, columns, graph)
    return last, columns


def _refused(model: Any) -> UnsupportedModelError:
    name = type(model).__name__
    return UnsupportedModelError(f"{name} has no ONNX form; supported are {', '.join(supported())}")
