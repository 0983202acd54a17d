"""Logistic regression behind an optional standard scaler, as an ONNX graph.

The graph computes in double precision: it subtracts the mean before it multiplies, because folding the means into the
intercept cancels badly where a mean is large beside its deviation. Only the result is float32, and it is rounded
*down*: for any threshold that float32 can hold (0.5, say), `score >= threshold` then answers the same for the float32
score as for the double it came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from river import linear_model, optim, preprocessing

from headrace.onnx_export.errors import UnsupportedModelError

# A normal float32 times this is the next float32 towards zero.
_ONE_ULP_DOWN = np.float32(1 - 2.0**-24)


def linear_graph(
    scaler: preprocessing.StandardScaler | None,
    regression: linear_model.LogisticRegression,
    feature_names: Sequence[str],
    *,
    input_name: str,
    output_name: str,
) -> onnx.GraphProto:
    """The graph of sigmoid((x - mean) / std · w + b).

    Args:
        scaler: scales the features first; absent for raw features.
        regression: the model behind it.
        feature_names: names of the n columns of the input, in order. A feature that the model has not seen has weight
            0, as in River.
        input_name: name of the float32 input, shape [N, n].
        output_name: name of the float32 output, shape [N, 1]: the probability of True.

    Returns:
        The graph; N is dynamic.

    Raises:
        UnsupportedModelError: for a windowed scaler or a loss other than the logistic one, whose link function is
            not the sigmoid.
    """
    if scaler is not None and scaler.window_size is not None:
        raise UnsupportedModelError("StandardScaler(window_size=...): only the running scaler has an ONNX form")
    if type(regression.loss) is not optim.losses.Log:
        raise UnsupportedModelError(
            f"LogisticRegression(loss={type(regression.loss).__name__}): only optim.losses.Log has an ONNX form"
        )
    mean, deviation, weights = _parameters(scaler, regression, feature_names)
    initializers = [
        numpy_helper.from_array(mean, "mean"),
        numpy_helper.from_array(deviation, "deviation"),
        numpy_helper.from_array(weights.reshape(-1, 1), "weights"),
        numpy_helper.from_array(np.array([regression.intercept], np.float64), "intercept"),
        numpy_helper.from_array(np.array(_ONE_ULP_DOWN, np.float32), "one_ulp_down"),
    ]
    nodes = [
        helper.make_node("Cast", [input_name], ["row"], to=TensorProto.DOUBLE),
        helper.make_node("Sub", ["row", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "deviation"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "weights"], ["product"]),
        helper.make_node("Add", ["product", "intercept"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["probability"]),
        *_round_down("probability", output_name),
    ]
    width = len(feature_names)
    return helper.make_graph(
        nodes,
        "logistic_regression",
        [helper.make_tensor_value_info(input_name, TensorProto.FLOAT, ["N", width])],
        [helper.make_tensor_value_info(output_name, TensorProto.FLOAT, ["N", 1])],
        initializers,
    )


def _parameters(
    scaler: preprocessing.StandardScaler | None,
    regression: linear_model.LogisticRegression,
    feature_names: Sequence[str],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Mean, deviation and weight by feature, each float64 [n]."""
    learned: dict[str, float] = regression.weights
    unseen: Any = regression.initializer
    weights = np.array([learned[name] if name in learned else float(unseen()) for name in feature_names], np.float64)
    mean = np.zeros(len(feature_names))
    deviation = np.ones(len(feature_names))
    if scaler is not None:
        mean = np.array([scaler.means.get(name, 0.0) for name in feature_names], np.float64)
        if scaler.with_std:
            variance = np.array([scaler.vars.get(name, 0.0) for name in feature_names], np.float64)
            # River scales a feature that has not varied yet to 0, whatever its value.
            weights = np.where(variance > 0, weights, 0.0)
            deviation = np.sqrt(np.where(variance > 0, variance, 1.0))
    return mean, deviation, weights


def _round_down(source: str, target: str) -> list[onnx.NodeProto]:
    """Nodes that cast a positive double to the nearest float32 that is not above it."""
    return [
        helper.make_node("Cast", [source], ["nearest"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["nearest"], ["nearest_as_double"], to=TensorProto.DOUBLE),
        helper.make_node("Greater", ["nearest_as_double", source], ["above"]),
        helper.make_node("Mul", ["nearest", "one_ulp_down"], ["below"]),
        helper.make_node("Where", ["above", "below", "nearest"], [target]),
    ]
