"""Models for tests of Triton alone: pushed to a server of the test's own."""

from __future__ import annotations

import numpy as np
import tritonclient.grpc.aio as triton_grpc
from onnx import TensorProto, helper, numpy_helper

from headrace.platform.triton_config import MODEL_FILE, FeatureIdentity, triton_model_config

NAMES = ("amount", "night", "weekend")
WIDTH = len(NAMES)
IDENTITY = FeatureIdentity.of(NAMES, 0x5EED)


def onnx_file(intercept: float, width: int = WIDTH) -> bytes:
    """A model whose score is that of its intercept, whatever the features are."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["features", "weights"], ["product"]),
            helper.make_node("Add", ["product", "intercept"], ["logit"]),
            helper.make_node("Sigmoid", ["logit"], ["score"]),
        ],
        "constant",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", width])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N", 1])],
        [
            numpy_helper.from_array(np.zeros((width, 1), np.float32), "weights"),
            numpy_helper.from_array(np.array([intercept], np.float32), "intercept"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


def score_of(intercept: float) -> float:
    """What it answers to every row."""
    return float(1 / (1 + np.exp(-intercept)))


async def push(url: str, name: str, intercept: float = 0.0, identity: FeatureIdentity = IDENTITY) -> None:
    """Load it on a server under a name."""
    client = triton_grpc.InferenceServerClient(url)
    try:
        content = onnx_file(intercept, identity.width)
        await client.load_model(name, config=triton_model_config(name, identity), files={MODEL_FILE: content})
    finally:
        await client.close()


async def unload(url: str, name: str) -> None:
    """Take it off."""
    client = triton_grpc.InferenceServerClient(url)
    try:
        await client.unload_model(name)
    finally:
        await client.close()
