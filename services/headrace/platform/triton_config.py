"""The configuration that a version is pushed to Triton with. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

#: The name of the ONNX file in a push. Version 1, as each version of a pipeline is a Triton model of its own.
MODEL_FILE = "file:1/model.onnx"

#: The most rows that Triton takes in one request, or puts together from several.
MAX_BATCH_ROWS = 1024

#: Parameters of the configuration that say which features a model takes.
FINGERPRINT_PARAMETER = "headrace_features_fingerprint"
NAMES_PARAMETER = "headrace_feature_names_sha256"

Kind = Literal["auto", "cpu", "gpu"]
Accelerator = Literal["none", "cuda", "tensorrt"]
Precision = Literal["fp32", "fp16"]


class TritonOptionsError(ValueError):
    """An option is out of its range, or cannot be used with another.

    Attributes:
        option: field of `TritonOptions`.
        reason: what it is and what is allowed.
    """

    def __init__(self, option: str, reason: str) -> None:
        super().__init__(option, reason)
        self.option = option
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.option}: {self.reason}"


@dataclass(frozen=True)
class FeatureIdentity:
    """Which features a model takes, as far as a server has to know it.

    Attributes:
        width: number of features.
        fingerprint: of schema, features and their order; None where it is not known.
        names_sha256: hash of the names in model order, hexadecimal; empty where they are not known.
    """

    width: int
    fingerprint: int | None = None
    names_sha256: str = ""

    @staticmethod
    def of(names: Iterable[str], fingerprint: int) -> FeatureIdentity:
        """Of feature names in model order."""
        listed = tuple(names)
        return FeatureIdentity(len(listed), fingerprint, names_sha256(listed))


@dataclass(frozen=True)
class TritonOptions:
    """Where and how Triton runs a version.

    Attributes:
        kind: "auto" takes the GPUs where the server has any and the CPU where not; "cpu" and "gpu" insist.
        instances: copies of the model, for each GPU where it runs on GPUs.
        gpus: numbers of the GPUs to use, only with "gpu"; empty means all of them.
        preferred_batch_rows: batch sizes that Triton's batcher aims at; empty means whatever is queued.
        queue_delay_us: how long Triton's batcher waits for a preferred size, in microseconds.
        accelerator: on a GPU, what runs the model: "none" is ONNX Runtime's CUDA provider as it is, "cuda" the same on
            one stream for each instance, "tensorrt" builds a TensorRT engine when the version is loaded.
        precision: of TensorRT. The learner's check of scores holds for "fp32"; the check of the golden rows refuses
            "fp16" where it changes a score by more than the version's tolerance.
        tensorrt_workspace_bytes: most GPU memory that TensorRT takes while it runs.

    Raises:
        TritonOptionsError: GPUs or an accelerator are named where they cannot be used, or a number is out of its range.
    """

    kind: Kind = "auto"
    instances: int = 1
    gpus: tuple[int, ...] = ()
    preferred_batch_rows: tuple[int, ...] = ()
    queue_delay_us: int = 0
    accelerator: Accelerator = "none"
    precision: Precision = "fp32"
    tensorrt_workspace_bytes: int = 1 << 30

    def __post_init__(self) -> None:
        if self.instances < 1:
            raise TritonOptionsError("instances", f"{self.instances} is not allowed; at least 1")
        if self.kind == "cpu" and self.accelerator != "none":
            raise TritonOptionsError("accelerator", f'{self.accelerator} only with the kind "auto" or "gpu"')
        # A server without a GPU refuses "auto" with numbers of GPUs.
        if self.kind != "gpu" and self.gpus:
            raise TritonOptionsError("gpus", f'{list(self.gpus)} only with the kind "gpu"')
        if any(gpu < 0 for gpu in self.gpus) or len(set(self.gpus)) != len(self.gpus):
            raise TritonOptionsError("gpus", f"{list(self.gpus)} is not allowed; different numbers from 0")
        if any(not 1 <= rows <= MAX_BATCH_ROWS for rows in self.preferred_batch_rows):
            raise TritonOptionsError(
                "preferred_batch_rows",
                f"{list(self.preferred_batch_rows)} is not allowed; from 1 to {MAX_BATCH_ROWS}",
            )
        if self.queue_delay_us < 0:
            raise TritonOptionsError("queue_delay_us", f"{self.queue_delay_us} is not allowed; at least 0")
        if self.precision != "fp32" and self.accelerator != "tensorrt":
            raise TritonOptionsError("precision", f'{self.precision} only with the accelerator "tensorrt"')


def names_sha256(names: Iterable[str]) -> str:
    """Hash of feature names in their order, hexadecimal.

    Args:
        names: in model order; another order gives another hash.
    """
    return hashlib.sha256(json.dumps(list(names), ensure_ascii=False).encode()).hexdigest()


def triton_model_config(model_name: str, features: int | FeatureIdentity, options: TritonOptions | None = None) -> str:
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
        How many columns the input has, at least 1; or which features they are, for gateways to check before they send
        the first row.
    options:
        Where and how it runs; by default once, on a GPU where the server has one.

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
    One instance with one thread: a second one would double the time of a push and the memory, and these models take
    microseconds. Dynamic batching without a delay puts together what queued up while the instance was busy, and keeps
    nobody waiting when it was not. No priority levels: a gateway sends what is urgent first, and keeps few batches
    under way. An engine of TensorRT is built by warm-up requests, so before the version counts as loaded.
    """
    identity = features if isinstance(features, FeatureIdentity) else FeatureIdentity(features)
    options = options or TritonOptions()
    if not model_name:
        raise ValueError("the Triton model has no name")
    if identity.width < 1:
        raise ValueError(f"a model has at least 1 feature, not {identity.width}")
    parameters = {"intra_op_thread_count": "1", "inter_op_thread_count": "1"}
    if identity.fingerprint is not None:
        parameters[FINGERPRINT_PARAMETER] = f"{identity.fingerprint:016x}"
    if identity.names_sha256:
        parameters[NAMES_PARAMETER] = identity.names_sha256
    config: dict[str, Any] = {
        "name": model_name,
        "backend": "onnxruntime",
        "max_batch_size": MAX_BATCH_ROWS,
        "input": [{"name": "features", "data_type": "TYPE_FP32", "dims": [identity.width]}],
        "output": [{"name": "score", "data_type": "TYPE_FP32", "dims": [1]}],
        "instance_group": [_instance_group(options)],
        "dynamic_batching": _dynamic_batching(options),
        "parameters": {name: {"string_value": value} for name, value in parameters.items()},
    }
    if options.accelerator != "none":
        config["optimization"] = {
            "execution_accelerators": {"gpu_execution_accelerator": [_accelerator(options, identity.width)]}
        }
    if options.accelerator == "tensorrt":
        config["model_warmup"] = [_warm_up(rows, identity.width) for rows in (1, MAX_BATCH_ROWS)]
    return json.dumps(config)


def _instance_group(options: TritonOptions) -> dict[str, Any]:
    group: dict[str, Any] = {"kind": f"KIND_{options.kind.upper()}", "count": options.instances}
    if options.gpus:
        group["gpus"] = list(options.gpus)
    return group


def _dynamic_batching(options: TritonOptions) -> dict[str, Any]:
    batching: dict[str, Any] = {}
    if options.preferred_batch_rows:
        batching["preferred_batch_size"] = sorted(set(options.preferred_batch_rows))
    if options.queue_delay_us:
        batching["max_queue_delay_microseconds"] = options.queue_delay_us
    return batching


def _accelerator(options: TritonOptions, width: int) -> dict[str, Any]:
    if options.accelerator == "cuda":
        return {"name": "cuda", "parameters": {"use_ep_level_unified_stream": "1"}}
    # One engine for every batch size: without the profile TensorRT builds again whenever a larger batch comes.
    shape = {"min": 1, "opt": 64, "max": MAX_BATCH_ROWS}
    profile = {f"trt_profile_{name}_shapes": f"features:{rows}x{width}" for name, rows in shape.items()}
    return {
        "name": "tensorrt",
        "parameters": {
            "precision_mode": options.precision.upper(),
            "max_workspace_size_bytes": str(options.tensorrt_workspace_bytes),
            **profile,
        },
    }


def _warm_up(rows: int, width: int) -> dict[str, Any]:
    return {
        "name": f"{rows} rows",
        "batch_size": rows,
        "inputs": {"features": {"data_type": "TYPE_FP32", "dims": [width], "zero_data": True}},
    }
