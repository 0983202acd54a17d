"""ghz, a load generator for gRPC written in Go: fetched once, then run with requests from a file.

`python -m loadtests.gateway.ghz` fetches it into `.run/bench/bin`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google.protobuf.message import Message

from loadtests.gateway.delimited import write_delimited
from loadtests.gateway.requests import serialized, write_protoset
from loadtests.processes import ProcessFailed, finish
from loadtests.servers import BENCH

MODULE = "github.com/bojand/ghz/cmd/ghz"
RELEASE = "v0.121.0"
PROGRAM = BENCH / "bin" / "ghz"
INSTALL_S = 600.0
MOST_S = 120.0
MOST_FAILED = 0.9


@dataclass(frozen=True)
class Run:
    """What a load generator found.

    Attributes:
        rate: answered calls a second.
        calls: how many were made.
        failed: how many of them had no answer.
        p50_ms, p99_ms: percentiles of the latency.
    """

    rate: float
    calls: int
    failed: int
    p50_ms: float
    p99_ms: float


def install() -> bool:
    """Fetch and build ghz where it is not there; whether it is there now. Says why not."""
    stamp = PROGRAM.with_name(f"ghz-{RELEASE}")
    if stamp.exists():
        return True
    go = shutil.which("go")
    if go is None:
        print("ghz is not here and there is no Go to build it with: unary calls come from an own client", flush=True)
        return False
    PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    print(f"building ghz {RELEASE} (a minute) into .run/bench/bin", flush=True)
    try:
        subprocess.run(
            [go, "install", f"{MODULE}@{RELEASE}"],
            env={**os.environ, "GOBIN": str(PROGRAM.parent), "GOFLAGS": ""},
            check=True,
            capture_output=True,
            timeout=INSTALL_S,
            text=True,
        )
    except subprocess.CalledProcessError as error:
        last = error.stderr.strip().splitlines()[-1:] or ["no reason given"]
        print(f"ghz cannot be built ({last[0]}): unary calls come from an own client", flush=True)
        return False
    except subprocess.TimeoutExpired:
        print(f"ghz is not built after {INSTALL_S:g} s: unary calls come from an own client", flush=True)
        return False
    stamp.touch()
    return True


def call(
    address: str,
    method: str,
    requests: Sequence[Message],
    *,
    concurrency: int,
    connections: int,
    cores: frozenset[int],
    directory: Path,
) -> Run:
    """Call a unary method, each request once, so many at a time.

    Args:
        address: host:port, without TLS.
        method: `headrace.v1.Service.Method`.
        requests: each is sent once.
        concurrency: calls under way at once.
        connections: that they are spread over.
        cores: that ghz may run on.
        directory: for its files.

    Raises:
        ProcessFailed: it fails, or nearly all calls have.
    """
    contract, messages = directory / "service.protoset", directory / "requests.bin"
    write_protoset(contract)
    write_delimited(messages, serialized(requests))
    command = [str(PROGRAM), "--insecure", "--protoset", str(contract), "--call", method]
    command += ["--binary-file", str(messages), "--total", str(len(requests)), "--disable-template-functions"]
    command += ["--disable-template-data", "--concurrency", str(concurrency), "--connections", str(connections)]
    command += ["--timeout", "20s", "--format", "json", address]
    said = json.loads(finish(command, cores=cores, directory=directory, timeout_s=MOST_S))
    statuses: dict[str, int] = said["statusCodeDistribution"] or {}
    failed = len(requests) - statuses.get("OK", 0)
    check(method, failed, len(requests), said.get("errorDistribution"))
    latencies = np.array([one["latency"] for one in said["details"]]) / 1e6
    p50, p99 = np.percentile(latencies, [50, 99])
    return Run(float(said["rps"]) * (1 - failed / len(requests)), len(requests), failed, float(p50), float(p99))


def check(method: str, failed: int, calls: int, reasons: object) -> None:
    """Calls may fail, and are a figure; where nearly all do, there is nothing to measure.

    Raises:
        ProcessFailed: nine tenths of the calls have failed.
    """
    if failed > MOST_FAILED * calls:
        raise ProcessFailed(f"{method}: {failed} of {calls} calls have failed: {reasons}")
    if failed:
        print(f"{method}: {failed} of {calls} calls have failed: {reasons}", flush=True)


if __name__ == "__main__":
    raise SystemExit(0 if install() else 1)
