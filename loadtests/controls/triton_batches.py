"""A bare Triton client: sends feature rows in batches of a size, so many at once, and takes the scores.

`python -m loadtests.controls.triton_batches ADDRESS MODEL WIDTH ROWS CONCURRENCY CALLS` prints `{rate, cpu_us}`: rows a
second, and the client's CPU time per row. It does what a gateway does after the features are there; it leaves out the
caller, the features, the decision and the log.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator

import numpy as np
import tritonclient.grpc.aio as triton_grpc
import uvloop


async def main(address: str, model: str, width: int, rows: int, concurrency: int, calls: int) -> dict[str, float]:
    """Send; see the module."""
    random = np.random.default_rng(0)
    features = [random.gamma(2.0, 10.0, (rows, width)).astype(np.float32) for _ in range(16)]
    waiting = iter(range(calls))

    async def call(client: triton_grpc.InferenceServerClient, mine: Iterator[int]) -> None:
        for number in mine:
            tensor = triton_grpc.InferInput("features", [rows, width], "FP32")
            tensor.set_data_from_numpy(features[number % len(features)])
            answer = await client.infer(model, [tensor])
            assert len(answer.as_numpy("score")) == rows

    client = triton_grpc.InferenceServerClient(address)
    try:
        await call(client, iter(range(concurrency)))
        began, cpu = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(concurrency):
                tasks.create_task(call(client, waiting))
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
    finally:
        await client.close()
    return {"rate": rows * calls / wall, "cpu_us": cpu / (rows * calls) * 1e6}


if __name__ == "__main__":
    print(json.dumps(uvloop.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:7])))))
