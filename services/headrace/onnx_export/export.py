"""From a River model to an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from onnx import helper
from river import compose, linear_model, preprocessing

from headrace.onnx_export.errors import UnsupportedModelError
from headrace.onnx_export.linear import linear_graph

INPUT_NAME = "features"
OUTPUT_NAME = "score"
SUPPORTED = ("LogisticRegression", "StandardScaler | LogisticRegression")

_IR_VERSION = 9
_OPSET = 17


def export(model: Any, feature_names: Sequence[str], metadata: Mapping[str, str] | None = None) -> bytes:
    """The ONNX file of a River model.

    Args:
        model: a River classifier of one of the kinds in `SUPPORTED`; untrained models are fine.
        feature_names: names of the n input columns, in order.
        metadata: text that is stored in the file, by key.

    Returns:
        Bytes of a checked model, IR 9, opset 17: input `features` float32 [N, n], output `score` float32 [N, 1], the
        probability of True; N is dynamic.

    Raises:
        UnsupportedModelError: names the step or setting that has no ONNX form.
    """
    scaler, regression = _steps(model)
    graph = linear_graph(scaler, regression, feature_names, input_name=INPUT_NAME, output_name=OUTPUT_NAME)
    built = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION, producer_name="headrace"
    )
    helper.set_model_props(built, dict(sorted((metadata or {}).items())))
    onnx.checker.check_model(built, full_check=True)
    return built.SerializeToString(deterministic=True)


def _steps(model: Any) -> tuple[preprocessing.StandardScaler | None, linear_model.LogisticRegression]:
    steps = list(model.steps.values()) if type(model) is compose.Pipeline else [model]
    for step in steps:
        if type(step) not in (preprocessing.StandardScaler, linear_model.LogisticRegression):
            raise UnsupportedModelError(f"{type(step).__name__} has no ONNX form; supported are {', '.join(SUPPORTED)}")
    kinds = [type(step) for step in steps]
    if kinds == [linear_model.LogisticRegression]:
        return None, steps[0]
    if kinds == [preprocessing.StandardScaler, linear_model.LogisticRegression]:
        return steps[0], steps[1]
    chain = " | ".join(kind.__name__ for kind in kinds) or "an empty pipeline"
    raise UnsupportedModelError(f"{chain} has no ONNX form; supported are {', '.join(SUPPORTED)}")
