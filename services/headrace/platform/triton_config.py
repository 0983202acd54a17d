"""The configuration that a version is pushed to Triton with."""

from __future__ import annotations

import json

#: The name of the ONNX file in a push. Version 1, as each version of a pipeline is a Triton model of its own.
MODEL_FILE = "file:1/model.onnx"

#: The most rows that Triton takes in one request, or puts together from several.
MAX_BATCH_ROWS = 1024


def triton_model_config(model_name: str, features: int) -> str:
    """Configure one version of a pipeline as a Triton model of its own.

    For an ONNX file with the input ``features``, float32 ``[N, features]``, and the output ``score``, float32
    ``[N, 1]``; clients send and receive the same shapes. The column is there because Triton knows no tensor that is
    nothing but its batch dimension: a file whose score has the shape ``[N]`` is refused when it is loaded.

    It is the same for the ONNX Runtime backend of Triton's image and for the one in ``deploy/triton``.

    Parameters
    ----------
    model_name:
        The name to push under, ``<deployed pipeline>-<version>``.
    features:
        How many columns the input has, at least 1.

    Returns
    -------
    str
        JSON, for the ``config`` of a load request that has the model as :data:`MODEL_FILE`.

    Raises
    ------
    ValueError
        The name is empty, or ``features`` is below 1.

    Notes
    -----
    One instance on the CPU with one thread: a second one would double the time of a push and the memory, and these
    models take microseconds. Dynamic batching without a delay puts together what queued up while the instance was
    busy, and keeps nobody waiting when it was not.
    """
    if not model_name:
        raise ValueError("the Triton model has no name")
    if features < 1:
        raise ValueError(f"a model has at least 1 feature, not {features}")
    return json.dumps(
        {
            "name": model_name,
            "backend": "onnxruntime",
            "max_batch_size": MAX_BATCH_ROWS,
            "input": [{"name": "features", "data_type": "TYPE_FP32", "dims": [features]}],
            "output": [{"name": "score", "data_type": "TYPE_FP32", "dims": [1]}],
            "instance_group": [{"kind": "KIND_CPU", "count": 1}],
            "dynamic_batching": {},
            "parameters": {
                "intra_op_thread_count": {"string_value": "1"},
                "inter_op_thread_count": {"string_value": "1"},
            },
        }
    )
