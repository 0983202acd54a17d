"""Servers of the bare model: the requests of the Open Inference Protocol, and MLServer with the same file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from tritonclient.grpc import service_pb2

from loadtests.environment import control_python
from loadtests.gateway.calling import Server
from loadtests.gateway.deployment import Deployment
from loadtests.processes import listening, running
from loadtests.servers import free_ports

INFER = "inference.GRPCInferenceService.ModelInfer"
ENVIRONMENT = "bench-mlserver"
START_S = 60.0


def infer_requests(deployed: Deployment, count: int) -> list[bytes]:
    """Requests for the score of one row of features each, as bytes."""
    rows = np.random.default_rng(2).gamma(2.0, 10.0, (count, deployed.width)).astype(np.float32)
    request = service_pb2.ModelInferRequest(model_name=deployed.triton_model)
    request.inputs.add(name="features", datatype="FP32", shape=[1, deployed.width])
    found = []
    for row in rows:
        del request.raw_input_contents[:]
        request.raw_input_contents.append(row.tobytes())
        found.append(request.SerializeToString())
    return found


@contextmanager
def mlserver(deployed: Deployment) -> Iterator[Server]:
    """MLServer with the deployed model, in one process, while the block runs.

    Raises:
        NotInstalled: its environment is not there.
        ProcessFailed: it does not start.
    """
    python = control_python(ENVIRONMENT)
    directory = deployed.servers.directory / "mlserver"
    model = directory / "model"
    model.mkdir(parents=True)
    (model / "model.onnx").write_bytes(deployed.onnx)
    http, grpc, metrics = free_ports(3)
    settings = {
        "host": "127.0.0.1",
        "http_port": http,
        "grpc_port": grpc,
        "metrics_port": metrics,
        # The model runs in the server's own process: a second one would only add a hop.
        "parallel_workers": 0,
        "debug": False,
    }
    (directory / "settings.json").write_text(json.dumps(settings))
    of_model = {
        "name": deployed.triton_model,
        "implementation": "loadtests.controls.mlserver_onnx.OnnxModel",
        "parameters": {"uri": str(model / "model.onnx")},
    }
    (model / "model-settings.json").write_text(json.dumps(of_model))
    command = [str(python.parent / "mlserver"), "start", str(directory)]
    with running("mlserver", command, cores=deployed.cores, directory=deployed.servers.directory) as process:
        listening(process, grpc, START_S)
        yield Server("MLServer", f"127.0.0.1:{grpc}", process)
