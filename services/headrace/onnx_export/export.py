"""From a River model to an ONNX file."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from river import base

# Each module registers its converters.
from headrace.onnx_export import (  # noqa: F401
    baselines,
    clusters,
    corrections,
    encoders,
    ensembles,
    feature_maps,
    linear,
    naive_bayes,
    scalers,
    selection,
    tree_ensembles,
    trees,
    trees_mondrian,
    wrappers,
)
from headrace.onnx_export.conversion import convert, final_step, supported
from headrace.onnx_export.errors import UnsupportedModelError
from headrace.onnx_export.graph import Columns, Graph

INPUT_NAME = "features"
OUTPUT_NAME = "score"
SUPPORTED = supported()

_IR_VERSION = 9
_OPSET = 17
_ML_OPSET = 3

# Of a normal float32, this times it is half a unit in its last place or up to one.
_HALF_ULP = np.float32(2.0**-24)


def export(model: Any, feature_names: Sequence[str], metadata: Mapping[str, str] | None = None) -> bytes:
    """The ONNX file of a River model.

    It computes in double precision, in River's order; only the answer is float32. A probability is rounded *down*:
    for any threshold that float32 can hold (0.5, say), `score >= threshold` then answers the same for the float32
    score as for the double it came from. A value or the number of a cluster is rounded to the nearest.

    A feature that is NaN counts as absent where River's model itself knows absence (trees). Other models answer NaN,
    and such a file does not pass the checks before traffic.

    Args:
        model: a River classifier, regressor or clusterer made of the classes in `SUPPORTED`, alone or in a pipeline;
            untrained models are fine.
        feature_names: names of the n input columns, in the order in which River gets them.
        metadata: text that is stored in the file, by key.

    Returns:
        Bytes of a checked model, IR 9, opset 17, ai.onnx.ml 3: input `features` float32 [N, n], output `score`
        float32 [N, 1]: the probability of True, the value, or the number of the cluster; N is dynamic. The same model
        gives the same bytes.

    Raises:
        UnsupportedModelError: names the step or setting that has no ONNX form.
    """
    graph = Graph()
    score = _score(model, feature_names, graph)
    built = helper.make_model(
        helper.make_graph(
            [*graph.nodes, helper.make_node("Identity", [score], [OUTPUT_NAME])],
            type(final_step(model)).__name__,
            [helper.make_tensor_value_info(INPUT_NAME, TensorProto.FLOAT, ["N", len(feature_names)])],
            [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["N", 1])],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)],
        ir_version=_IR_VERSION,
        producer_name="headrace",
    )
    helper.set_model_props(built, dict(sorted((metadata or {}).items())))
    onnx.checker.check_model(built, full_check=True)
    return built.SerializeToString(deterministic=True)


def check(model: Any, feature_names: Sequence[str]) -> None:
    """Refuse a model that `export` could not turn into a file; for the moment when it is declared.

    Args:
        model: as for `export`; it stays as it is.
        feature_names: as for `export`.

    Raises:
        UnsupportedModelError: names the step or setting that has no ONNX form.
    """
    # A copy: some models draw random numbers for a feature that they have not seen.
    _score(copy.deepcopy(model), feature_names, Graph())


def _score(model: Any, feature_names: Sequence[str], graph: Graph) -> str:
    """Adds the whole model; name of the float32 answer."""
    last = final_step(model)
    if not isinstance(last, base.Classifier | base.Regressor | base.Clusterer):
        raise UnsupportedModelError(
            f"{type(last).__name__} has no ONNX form as the last step: a classifier, regressor or clusterer is needed; "
            f"supported are {', '.join(SUPPORTED)}"
        )
    row = graph.as_double(INPUT_NAME)
    answer = convert(model, Columns(row, tuple(feature_names)), graph)
    if isinstance(last, base.Classifier):
        return _rounded_down(graph, answer)
    return graph.node("Cast", answer, to=TensorProto.FLOAT)


def _rounded_down(graph: Graph, probability: str) -> str:
    """The nearest float32 that is not above a double."""
    nearest = graph.node("Cast", probability, to=TensorProto.FLOAT)
    above = graph.node("Greater", graph.as_double(nearest), probability)
    # Half a unit in the last place or a little more: rounding makes it one.
    step = graph.node("Mul", graph.node("Abs", nearest), graph.constant(np.array(_HALF_ULP)))
    return graph.node("Where", above, graph.node("Sub", nearest, step), nearest)
