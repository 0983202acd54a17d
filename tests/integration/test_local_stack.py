"""The stack without Docker, on a private one beside the stack that the other tests use."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import redis
import tritonclient.grpc
from onnx import TensorProto, helper

from deploy.local import Layout, Stack, StackError
from deploy.local.processes import marked_processes, port_is_free, read_process
from headrace.platform.triton_config import MODEL_FILE, triton_model_config
from headrace.v1.event_pb2 import Label
from tests.integration.gateway.deployment import event
from tests.integration.loop.live_loop import command, live_loop
from tests.ports import free_ports

pytestmark = [pytest.mark.timeout(180), pytest.mark.faults]


def wait_until(condition: Callable[[], bool], what: str, deadline: float = 30.0) -> None:
    end = time.monotonic() + deadline
    while not condition():
        assert time.monotonic() < end, f"not within {deadline} s: {what}"
        time.sleep(0.02)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(run=tmp_path / "local", keys=tmp_path / "keys")


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    directory = Path(tempfile.mkdtemp(prefix="private-stack-"))
    stack = Stack(Layout(run=directory / "local", keys=directory / "keys"), free_ports())
    try:
        stack.start_infrastructure()
        yield stack
    finally:
        stack.stop()
        shutil.rmtree(directory)


def model(features: int, columns: bool = True) -> bytes:
    """A logistic regression with weights from -1 to 1."""
    shape: list[str | int] = ["N", 1] if columns else ["N"]
    weights = np.linspace(-1, 1, features, dtype=np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["features", "weights"], ["sum"]),
            helper.make_node("Sigmoid", ["sum"], ["score"]),
        ],
        "logistic",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", features])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, shape)],
        [helper.make_tensor("weights", TensorProto.FLOAT, [features, 1] if columns else [features], weights)],
    )
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(built)
    return bytes(built.SerializeToString())


def infer(client: tritonclient.grpc.InferenceServerClient, name: str, rows: np.ndarray) -> np.ndarray:
    tensor = tritonclient.grpc.InferInput("features", list(rows.shape), "FP32")
    tensor.set_data_from_numpy(rows)
    return np.asarray(client.infer(name, [tensor], client_timeout=10).as_numpy("score"))


def test_a_second_up_changes_nothing_and_says_so(stack: Stack) -> None:
    before = {line.name: line.process_id for line in stack.status()}
    done = subprocess.run(
        [sys.executable, "-m", "deploy.local", "up", "--only", "infrastructure"],
        cwd=stack.layout.root,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "already up: nothing to do\n"
    assert {line.name: line.process_id for line in stack.status()} == before


def test_status_shows_each_program_ready(private: Stack) -> None:
    lines = {line.name: line for line in private.status()}
    for name in ("kafka", "redis", "triton"):
        assert lines[name].state in {"RUNNING", "STARTING"}
        assert lines[name].ready
        assert lines[name].process_id == private.process_id(name)
    for name in private.ports.operations:
        assert (lines[name].state, lines[name].process_id, lines[name].ready) == ("STOPPED", None, False)


def test_a_taken_port_is_reported_by_name_before_anything_starts(layout: Layout) -> None:
    ports = free_ports()
    stack = Stack(layout, ports)
    with (
        socket.create_server(("127.0.0.1", ports.redis)),
        socket.create_server(("127.0.0.1", ports.triton_grpc)),
        pytest.raises(StackError) as raised,
    ):
        stack.start_infrastructure()
    first, second = str(raised.value).splitlines()
    assert first.startswith(f"port {ports.redis} (redis, clients) is taken by pid {os.getpid()} (")
    assert second.startswith(f"port {ports.triton_grpc} (triton, gRPC) is taken by pid {os.getpid()} (")
    assert not marked_processes(layout.run)


def test_stop_leaves_no_process_even_without_the_supervisor(layout: Layout) -> None:
    ports = free_ports()
    stack = Stack(layout, ports)
    assert stack.start_infrastructure() == ["kafka", "redis", "triton"]
    supervisor = int(layout.supervisor_pid.read_text())
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: read_process(supervisor) is None, "the supervisor has ended")
    left = marked_processes(layout.run)
    assert left
    with pytest.raises(StackError, match=rf"port {ports.kafka} .* left from an earlier start of this stack"):
        stack.start_infrastructure()
    assert stack.stop()
    assert not any(read_process(process.id) for process in left)
    assert not marked_processes(layout.run)
    assert all(port_is_free(port) for port in (ports.kafka, ports.redis, ports.triton_grpc))
    assert not stack.stop()


def test_a_model_pushed_to_triton_gives_the_numbers_of_onnxruntime(triton_url: str, namespace: str) -> None:
    rows = np.random.default_rng(7).normal(size=(500, 20)).astype(np.float32)
    expected = onnxruntime.InferenceSession(model(20)).run(["score"], {"features": rows})[0]
    with tritonclient.grpc.InferenceServerClient(triton_url) as client:
        client.load_model(namespace, config=triton_model_config(namespace, 20), files={MODEL_FILE: model(20)})
        try:
            answer = infer(client, namespace, rows)
            assert answer.shape == (500, 1)
            np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-6)
        finally:
            client.unload_model(namespace)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no model", "Protobuf parsing failed"),
        (model(21), r"input 'features' has the shape \[-1, 21\] in the model, the configuration says \[-1, 20\]"),
        (model(20, columns=False), r"output 'score' has the shape \[-1\] in the model"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_with_the_reason(
    triton_url: str, stack: Stack, namespace: str, content: bytes, reason: str
) -> None:
    with tritonclient.grpc.InferenceServerClient(triton_url) as client:
        with pytest.raises(tritonclient.grpc.InferenceServerException) as raised:
            client.load_model(namespace, config=triton_model_config(namespace, 20), files={MODEL_FILE: content})
        assert re.search(reason, str(raised.value))
        assert client.is_server_ready()


@pytest.mark.parametrize("name", ["redis", "triton", "kafka"])
def test_a_killed_program_is_restarted_and_ready_again(private: Stack, name: str) -> None:
    with redis.Redis(port=private.ports.redis) as connection:
        connection.set("kept", name)
    with tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{private.ports.triton_grpc}") as client:
        client.load_model("held", config=triton_model_config("held", 3), files={MODEL_FILE: model(3)})
    private.wait_ready(name)
    killed = private.process_id(name)
    with_children = [process for process in marked_processes(private.layout.run) if process.group == killed]
    os.kill(killed, signal.SIGKILL)
    wait_until(
        lambda: not any(read_process(process.id) for process in with_children), "the killed and its children end"
    )
    wait_until(lambda: any(line.name == name and line.process_id for line in private.status()), f"{name} is restarted")
    private.wait_ready(name)
    assert private.process_id(name) != killed
    with redis.Redis(port=private.ports.redis) as connection:
        assert connection.get("kept") == name.encode()


@pytest.mark.timeout(400)
async def test_learners_that_share_the_outcomes_are_started_and_their_merged_version_answers(private: Stack) -> None:
    settings = {
        "HEADRACE_NAMESPACE": "shared",
        "HEADRACE_LEARNER_SHARDS": "2",
        "HEADRACE_LEARNER_PUBLISH_INTERVAL_S": "0.3",
        "HEADRACE_ROLLOUT_MLFLOW_URI": "off",
    }
    await asyncio.to_thread(private.start_services, settings)
    further = next(line for line in private.status() if line.name == "learner-1")
    assert further.ports == {"operations": private.ports.further_learners[0]}
    events = [event(f"e{number}", customer=f"c{number % 5}", at=number * 1_000_000) for number in range(80)]
    async with live_loop(f"127.0.0.1:{private.ports.kafka}", "fraud-shared") as loop:
        await loop.adopted(lambda model: model.untrained, "the untrained version")
        await loop.send_events(events, "customer_id")
        await loop.answered(one.event_id for one in events)
        await loop.send_labels(
            Label(event_id=one.event_id, value=float(number % 9 == 0), label_time_us=one.event_time_us + 1)
            for number, one in enumerate(events)
        )
        newest = await loop.adopted(lambda model: model.learned_count == len(events), "what all have learned")
        versions = await loop.announced()
        assert all(len(one.shards) == 2 and not one.missing_shards for one in versions[1:])
        learned = [sum(one.shards[shard].learned_count for one in versions[1:]) for shard in range(2)]
        assert sum(learned) == len(events)
        assert min(learned) > 0
        again = event("again", at=100_000_000)
        await loop.send_events([again], "customer_id")
        await loop.answered([again.event_id])
        assert loop.answers[again.event_id].model_version == newest.version
    shown = await command(private.services_environment(), "models", "show", newest.version)
    assert [(one["shard"], one["learned_count"]) for one in shown["shards"]] == [
        (one.shard, one.learned_count) for one in newest.shards
    ]
    assert {"order of shard 0", "order of shard 1"} <= shown["artifacts"].keys()
    await asyncio.to_thread(private.stop_services)
    assert not any(line.ready for line in private.status() if line.name in private.ports.operations)
