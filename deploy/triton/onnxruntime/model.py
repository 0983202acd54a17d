"""A Triton backend named ``onnxruntime``, for builds of Triton that have only the Python backend.

It serves ``<model>/<version>/model.onnx`` on the CPU by ONNX Runtime, for the same model configuration and the same
pushes over gRPC as Triton's own backend of that name. Of the configuration it reads the inputs and outputs,
``default_model_filename`` and the parameters ``intra_op_thread_count`` and ``inter_op_thread_count``. Instances
on a GPU and accelerators for GPUs are accepted and run on the CPU, with a line in the log. Accelerators for the CPU are
refused: it has none.

It runs inside Triton's Python stub, whose environment must have numpy below 2: with numpy 2 the tensors that reach
the server are zeros. It starts only with an older one.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

if int(np.__version__.partition(".")[0]) >= 2:
    raise RuntimeError(f"numpy {np.__version__} gives zeros for tensors in this Triton: install numpy below 2")


class TritonPythonModel:
    """One loaded model; the name and the methods are what Triton calls."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the session. An error here is what the caller of the load gets."""
        config = json.loads(args["model_config"])
        _check_device(config, args)
        options = onnxruntime.SessionOptions()
        # One thread unless the configuration says otherwise: many models share the machine with their callers.
        options.intra_op_num_threads = _parameter(config, "intra_op_thread_count", 1)
        options.inter_op_num_threads = _parameter(config, "inter_op_thread_count", 1)
        name = config.get("default_model_filename") or "model.onnx"
        path = str(Path(args["model_repository"]) / args["model_version"] / name)
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._inputs = [tensor["name"] for tensor in config["input"]]
        self._outputs = [tensor["name"] for tensor in config["output"]]
        self._batches = int(config.get("max_batch_size", 0)) > 0
        _check("input", config["input"], self._session.get_inputs(), self._batches)
        _check("output", config["output"], self._session.get_outputs(), self._batches)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request, all of them by one run where their rows can be put together."""
        feeds = [
            {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self._inputs}
            for request in requests
        ]
        if len(feeds) > 1 and self._batches and _alike(feeds):
            together = {name: np.concatenate([feed[name] for feed in feeds]) for name in self._inputs}
            try:
                arrays = self._session.run(self._outputs, together)
            except Exception:  # noqa: BLE001
                # One request's values may be what the model fails on, and it must not fail the others: run each alone.
                return [self._answer(feed) for feed in feeds]
            ends = np.cumsum([len(feed[self._inputs[0]]) for feed in feeds])[:-1]
            return [
                self._response(list(parts)) for parts in zip(*(np.split(array, ends) for array in arrays), strict=True)
            ]
        return [self._answer(feed) for feed in feeds]

    def _answer(self, feed: dict[str, Any]) -> Any:
        try:
            return self._response(self._session.run(self._outputs, feed))
        except Exception as error:  # noqa: BLE001
            # Whatever ONNX Runtime raises is this request's answer; the model goes on.
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error)))

    def _response(self, arrays: list[Any]) -> Any:
        return pb_utils.InferenceResponse(
            output_tensors=[
                pb_utils.Tensor(name, np.ascontiguousarray(array))
                for name, array in zip(self._outputs, arrays, strict=True)
            ]
        )


def _alike(feeds: list[dict[str, Any]]) -> bool:
    """Whether the tensors of all requests have one shape behind the row."""
    first = {name: array.shape[1:] for name, array in feeds[0].items()}
    return all(first == {name: array.shape[1:] for name, array in feed.items()} for feed in feeds[1:])


def _check(kind: str, declared: list[dict[str, Any]], tensors: list[Any], batches: bool) -> None:
    """Refuse a configuration that does not fit the model, as Triton's own backend does when it loads one."""
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    for tensor in declared:
        name = tensor["name"]
        if name not in shapes:
            raise pb_utils.TritonModelException(f"{kind} {name!r} is not in the model, which has {sorted(shapes)}")
        dims = [int(dim) for dim in tensor.get("reshape", {}).get("shape", tensor["dims"])]
        wanted = [-1, *dims] if batches else dims
        # A dimension without a fixed size is a name or None in ONNX, and -1 in Triton.
        found = [dim if isinstance(dim, int) else -1 for dim in shapes[name]]
        fits = len(found) == len(wanted) and all(
            -1 in pair or pair[0] == pair[1] for pair in zip(found, wanted, strict=True)
        )
        if not fits or (batches and found[0] != -1):
            raise pb_utils.TritonModelException(
                f"{kind} {name!r} has the shape {found} in the model, the configuration says {wanted}"
            )


def _check_device(config: dict[str, Any], args: dict[str, str]) -> None:
    """Say what for a GPU is not used, and refuse accelerators for the CPU."""
    name = config["name"]
    if args["model_instance_kind"] == "GPU":
        pb_utils.Logger.log_warn(f"{name} has an instance on a GPU, and runs on the CPU: this backend has no other")
    accelerators = config.get("optimization", {}).get("execution_accelerators", {})
    for_cpu = [one["name"] for one in accelerators.get("cpu_execution_accelerator", [])]
    if for_cpu:
        raise pb_utils.TritonModelException(f"{name} wants accelerators that this backend does not have: {for_cpu}")
    for_gpu = [one["name"] for one in accelerators.get("gpu_execution_accelerator", [])]
    if for_gpu:
        pb_utils.Logger.log_warn(f"{name} runs on the CPU: accelerators for GPUs are not used: {for_gpu}")


def _parameter(config: dict[str, Any], name: str, default: int) -> int:
    value = config.get("parameters", {}).get(name)
    return int(value["string_value"]) if value else default
