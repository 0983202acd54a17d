from __future__ import annotations

from typing import Any

import pytest

from headrace.gateway.triton_errors import ModelMismatchError
from headrace.gateway.triton_metadata import DeclaredModel, Tensor, check_declared
from headrace.platform.triton_config import FINGERPRINT_PARAMETER, NAMES_PARAMETER, FeatureIdentity, names_sha256

NAMES = ("amount", "night")
EXPECTED = FeatureIdentity.of(NAMES, 0xABC)


def declared(**given: Any) -> DeclaredModel:
    usual: dict[str, Any] = {
        "inputs": {"features": Tensor("FP32", (2,))},
        "outputs": {"score": Tensor("FP32", (1,))},
        "batches": True,
        "parameters": {FINGERPRINT_PARAMETER: "0000000000000abc", NAMES_PARAMETER: names_sha256(NAMES)},
    }
    return DeclaredModel(**(usual | given))


def test_the_version_that_is_meant_passes() -> None:
    check_declared("m", declared(), EXPECTED)
    check_declared("m", declared(inputs={"features": Tensor("FP32", (-1,))}), EXPECTED)
    check_declared("m", declared(), FeatureIdentity(2))
    check_declared("m", declared(outputs={"score": Tensor("FP32", (1,)), "more": Tensor("INT64", (1,))}), EXPECTED)


def test_a_version_without_parameters_is_checked_by_width_and_datatypes() -> None:
    check_declared("m", declared(parameters={}), EXPECTED)
    with pytest.raises(ModelMismatchError, match="the width"):
        check_declared("m", declared(parameters={}), FeatureIdentity(3))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"batches": False}, "one row at a time"),
        ({"inputs": {}}, r"the inputs \[\]; expected is 'features'"),
        ({"inputs": {"x": Tensor("FP32", (2,))}}, r"the inputs \['x'\]"),
        ({"inputs": {"features": Tensor("FP32", (2,)), "x": Tensor("FP32", (2,))}}, "the inputs"),
        ({"inputs": {"features": Tensor("FP64", (2,))}}, "is FP64; expected is FP32"),
        ({"inputs": {"features": Tensor("FP32", (3,))}}, r"the width \[3\]; expected is 2"),
        ({"inputs": {"features": Tensor("FP32", (2, 1))}}, r"the width \[2, 1\]"),
        ({"outputs": {}}, "the outputs"),
        ({"outputs": {"score": Tensor("INT64", (1,))}}, "is INT64"),
        ({"outputs": {"score": Tensor("FP32", (2,))}}, r"the width \[2\]; expected is 1"),
        (
            {"parameters": {FINGERPRINT_PARAMETER: "0000000000000abd"}},
            "the definition 0000000000000abd; the route table says 0000000000000abc",
        ),
        ({"parameters": {NAMES_PARAMETER: names_sha256(NAMES[::-1])}}, "in another order"),
    ],
)
def test_another_model_is_refused_by_what_differs(given: Any, reason: str) -> None:
    with pytest.raises(ModelMismatchError, match=reason):
        check_declared("m", declared(**given), EXPECTED)
