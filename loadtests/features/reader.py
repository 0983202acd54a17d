"""Reads features as a gateway process does, and tells how long it took and what it cost.

`python -m loadtests.features.reader REDIS_URL DEPLOYED EVENTS READS ROWS READS_PER_S`, with a JSON file of events,
prints percentiles of the latency and CPU time per row as JSON. Each read has ROWS events. With READS_PER_S above 0
reads are spread over time, and READS 0 goes on until SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from pathlib import Path

import numpy as np
import uvloop

from headrace.gateway.answer_records import AnswerRecords, LocalRecords
from headrace.gateway.circuit_breaker import CircuitBreaker
from headrace.gateway.feature_reading import FeatureReading
from headrace.pipeline.evaluation import MACHINE_CODE, load_kernel
from headrace.pipeline.state import compile_plan
from headrace.platform.event_codec import CheckedEvent, event_columns
from headrace.platform.feature_state import FeatureStateReader
from headrace.platform.pipelines import load_pipeline
from headrace.platform.redis import Client, connect
from headrace.platform.redis_connection import RedisConnections
from headrace.platform.settings import Settings
from loadtests.features.deployment import PIPELINE

TIMEOUT_S = 5.0
WARM_READS = 200
READY = "reading"
"""What it says when it has warmed up."""


def feature_reading(client: Client, connections: RedisConnections, deployed: str) -> FeatureReading:
    """The gateway's feature stage, wired as its service wires it."""
    plan = compile_plan(load_pipeline(PIPELINE))
    breaker = CircuitBreaker(1.0, time.monotonic)
    local = LocalRecords(60.0, 1 << 20)
    records = AnswerRecords(connections, deployed, local, window_s=60.0, timeout_s=TIMEOUT_S, breaker=breaker)
    reader = FeatureStateReader(connections, plan, deployed)
    kernel = load_kernel(Settings().state_dir / MACHINE_CODE)
    return FeatureReading(plan, reader, records, timeout_s=TIMEOUT_S, breaker=breaker, kernel=kernel)


async def main(url: str, deployed: str, events: list[CheckedEvent], reads: int, rows: int, reads_per_s: float) -> None:
    """Read."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    client, connections = connect(url), RedisConnections(url)
    reading, pipeline = feature_reading(client, connections, deployed), load_pipeline(PIPELINE)
    blocks = [
        [events[(at * rows + one) % len(events)] for one in range(rows)] for at in range(max(1, len(events) // rows))
    ]
    try:
        for at in range(min(WARM_READS, reads or WARM_READS)):
            await reading.read(event_columns(pipeline, blocks[at % len(blocks)]))
        print(READY, flush=True)
        latencies: list[float] = []
        wall, cpu = time.perf_counter(), time.process_time()
        while not stopped.is_set() and (not reads or len(latencies) < reads):
            began = time.perf_counter()
            found = await reading.read(event_columns(pipeline, blocks[len(latencies) % len(blocks)]))
            latencies.append(time.perf_counter() - began)
            if found.states[0].degradations:
                raise RuntimeError("features were their defaults")
            if reads_per_s:
                # Reads that a slow one has delayed are not made up for: each is a caller of its own.
                await asyncio.sleep(max(0.0, began + 1 / reads_per_s - time.perf_counter()))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    finally:
        await connections.aclose()
        await client.aclose()
    p50, p99 = np.percentile(latencies, [50, 99]) * 1e6
    per_row = cpu / len(latencies) / rows * 1e6
    print(json.dumps({"reads": len(latencies), "p50_us": p50, "p99_us": p99, "cpu_us": per_row, "wall_s": wall}))


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[3]).read_text(encoding="utf-8"))
    checked = [CheckedEvent(one[0], one[1], one[2], one[3], answered=False) for one in given]
    uvloop.run(main(sys.argv[1], sys.argv[2], checked, int(sys.argv[4]), int(sys.argv[5]), float(sys.argv[6])))
