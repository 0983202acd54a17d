"""Whether an ONNX file gives River's scores."""

from __future__ import annotations

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from headrace.learner.errors import ExportMismatchError
from headrace.onnx_export import INPUT_NAME, OUTPUT_NAME

TOLERANCE = 1e-6


def check(
    content: bytes,
    rows: NDArray[np.float32],
    expected: NDArray[np.float64],
    threshold: float,
    *,
    version: str,
    numeric: bool = False,
) -> None:
    """Run the file on ONNX Runtime and compare.

    Args:
        content: the ONNX file.
        rows: float32 [n, features], n at least 1.
        expected: float64 [n], River's scores.
        threshold: the decision threshold of the pipeline.
        version: named in the error.
        numeric: whether scores are numbers, not probabilities.

    Raises:
        ExportMismatchError: a score differs by more than 1e-6 (of its size, where that is above 1), is not a number,
            or falls on the other side of the threshold. Names the version, the row and both scores.
    """
    options = onnxruntime.SessionOptions()
    # The check runs beside the learning loop on the same cores.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (scores,) = session.run([OUTPUT_NAME], {INPUT_NAME: rows})
    got: NDArray[np.float32] = np.asarray(scores)[:, 0]
    # Written so that a score that is not a number counts as different.
    size = np.maximum(1.0, np.abs(expected))
    different = ~(np.abs(got - expected) <= TOLERANCE * size)
    # Nearer than this, the answer hangs on the order of summation; and a threshold that float32 cannot hold lies
    # between two of its numbers. Probabilities are rounded down, so that they pass no threshold; numbers are not.
    margin = 1e-12 if float(np.float32(threshold)) == threshold and not numeric else 1e-7 * max(1.0, abs(threshold))
    flipped = ((got >= threshold) != (expected >= threshold)) & (np.abs(expected - threshold) > margin)
    wrong = np.flatnonzero(different | flipped)
    if len(wrong):
        row = int(wrong[0])
        raise ExportMismatchError(
            f"version {version} is not announced: on {len(wrong)} of {len(rows)} recent rows the ONNX file differs; "
            f"the first gives {got[row]!r} where River gives {expected[row]!r}"
        )
