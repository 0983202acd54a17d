"""The configuration that a model is pushed to Triton with.

The same for the official onnxruntime backend and for a Python-based backend of that name. The ONNX model takes
`features` (float32, rows x features) and gives `score` (float32, rows).
"""

from __future__ import annotations

import json

MODEL_FILE = "file:1/model.onnx"
"""Name of the ONNX file in a push: version 1 of the Triton model, because each version is a Triton model of its own."""

MAX_BATCH_ROWS = 4096
"""Most rows of one inference request."""


def triton_model_config(model_name: str, features: int) -> str:
    """Configuration of a Triton model as JSON.

    Args:
        model_name: name of the Triton model, `<deployed pipeline>-<version>`.
        features: number of features, the second dimension of the input.
    """
    return json.dumps(
        {
            "name": model_name,
            "backend": "onnxruntime",
            "max_batch_size": MAX_BATCH_ROWS,
            "input": [{"name": "features", "data_type": "TYPE_FP32", "dims": [features]}],
            # The model gives one number a row. Triton wants a dimension beside the rows: its clients see rows x 1.
            "output": [{"name": "score", "data_type": "TYPE_FP32", "dims": [1], "reshape": {"shape": []}}],
            "instance_group": [{"kind": "KIND_CPU", "count": 1}],
            # The gateway batches; one thread each, as many models share the machine with their callers.
            "parameters": {
                "intra_op_thread_count": {"string_value": "1"},
                "inter_op_thread_count": {"string_value": "1"},
            },
        }
    )
