"""Ten minutes at 80 % of the top rate, in an open loop: does the gateway's memory grow, and do its latencies?

`python -m loadtests.gateway.soak`, or `make soak-gateway`; `--soak-s` for another length. A run of its own.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from pathlib import Path
from statistics import fmean

import numpy as np

from loadtests.figures import Figure, figure
from loadtests.gateway.calling import PREDICT, call_by_own_client, grpc_path
from loadtests.gateway.delimited import write_delimited
from loadtests.gateway.deployment import Deployment, Gateway, complete
from loadtests.gateway.memory_growth import Sample, growth
from loadtests.gateway.open_loop import Latencies, latencies
from loadtests.gateway.parts import Bench, part
from loadtests.gateway.requests import serialized
from loadtests.machine import resident_bytes
from loadtests.processes import ProcessFailed, module, running

SHARE = 0.8
MOST_GROWTH = 0.02
CLOSED_LOOP = 64
STRETCH_S = 20.0
"""The load is offered by one client process after the other, so that none holds ten minutes of requests."""
PATIENCE_S = 30.0
SAMPLES_A_STRETCH = 20
QUICK_S = 30.0
MIB = 2**20


async def soak(bench: Bench) -> list[Figure]:
    """Measure; see the module."""
    deployed, options = await bench.deployed(), bench.options
    seconds = min(options.soak_s, QUICK_S) if options.quick else options.soak_s
    stretches = max(2, round(seconds / STRETCH_S))
    stretch_s = seconds / stretches
    async with deployed.serving("soak") as gateway:
        await deployed.check(gateway)
        for calls in (1000, 2000 if options.quick else 20_000):
            made = serialized(deployed.requests.packed(calls))
            run, _ = call_by_own_client(deployed, gateway.address, PREDICT, made, CLOSED_LOOP)
        rate = SHARE * run.rate
        samples: list[Sample] = []
        found: list[Latencies] = []
        ends = Counter[str]()
        began, before = time.monotonic(), gateway.degraded()
        for number in range(stretches):
            found.append(_offer(deployed, gateway, rate, stretch_s, began, samples, ends))
            memory = samples[-1].resident / MIB
            so_far = ", ".join(f"{count} {status}" for status, count in ends.most_common()) or "no call failed"
            print(f"{number + 1} of {stretches}: p99 {found[-1].p99_ms:.1f} ms, {memory:.1f} MiB, {so_far}", flush=True)
        degraded = gateway.degraded() - before
        for status, count in ends.most_common():
            bench.note(f"{count} of {round(rate * seconds)} calls of the soak ended with {status}")
    begin, end, grown = growth(samples)
    answered, failed = fmean(one.answered for one in found), fmean(one.failed for one in found)
    name, first, last = f"soak of {seconds:g} s at {SHARE:.0%} load", found[0].p99_ms, found[-1].p99_ms
    return [
        figure(f"{name}: rate", answered, "calls/s"),
        figure(f"{name}: memory at its end", end / MIB, "MiB", better="lower", control=("after warm-up", begin / MIB)),
        figure(f"{name}: growth after warm-up", 100 * grown, "%", better="lower", most=100 * MOST_GROWTH),
        figure(f"{name}: p99 of the last stretch", last, "ms", better="lower", control=("the first one", first)),
        figure(f"{name}: share of failed calls", failed, "", better="lower", most=0),
        complete(name, degraded, rate * seconds),
    ]


def _offer(
    deployed: Deployment,
    gateway: Gateway,
    rate: float,
    seconds: float,
    began: float,
    samples: list[Sample],
    ends: Counter[str],
) -> Latencies:
    """Offer the load for a while; take samples of the memory meanwhile, and count how calls ended that failed.

    Raises:
        ProcessFailed: gateway or client has ended, or hangs.
    """
    directory = deployed.servers.directory
    requests, times = directory / "requests.bin", directory / "times.npy"
    write_delimited(requests, serialized(deployed.requests.packed(round(rate * seconds))))
    arguments = (gateway.address, grpc_path(PREDICT), requests, rate, "poisson", times)
    command = module("loadtests.gateway.opener", *arguments)
    with running("opener", command, cores=deployed.cores, directory=directory) as client:
        deadline = time.monotonic() + seconds + PATIENCE_S
        while True:
            gateway.check()
            samples.append(Sample(time.monotonic() - began, resident_bytes(gateway.popen.pid, children=True)))
            try:
                if client.popen.wait(seconds / SAMPLES_A_STRETCH):
                    client.check()
                break
            except subprocess.TimeoutExpired:
                if time.monotonic() > deadline:
                    raise ProcessFailed(f"the client of the open loop hangs:\n{client.text()}") from None
        failed = _failed(client.log)
        ends.update(failed)
    due, ended = np.load(times)
    try:
        return latencies(due, ended)
    except ValueError as error:
        raise ProcessFailed(f"{error}; {failed}") from None


def _failed(log: Path) -> dict[str, int]:
    said: dict[str, dict[str, int]] = json.loads(log.read_text(encoding="utf-8").strip().splitlines()[-1])
    return said["failed"]


if __name__ == "__main__":
    part("soak", soak)
