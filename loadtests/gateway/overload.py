"""Goodput at one half, one and three times what the gateway can do: `python -m loadtests.gateway.overload --quick`.

Calls of 100 rows with deadlines of 250 ms, in an open loop (`loadtests.gateway.overloader`). The control is the
capacity, measured in the same run with a number of calls always under way.
"""

from __future__ import annotations

import json
import math

from loadtests.figures import Figure
from loadtests.gateway.parts import Bench, part
from loadtests.processes import finish, module

SECONDS = 8.0
QUICK_S = 2.0
MOST_S = 120.0


async def overload(bench: Bench) -> list[Figure]:
    """Measure; see the module."""
    deployed = await bench.deployed()
    seconds = QUICK_S if bench.options.quick else SECONDS
    written = deployed.servers.directory / "overload.json"
    async with deployed.serving("overload") as gateway:
        await deployed.check(gateway)
        command = module("loadtests.gateway.overloader", gateway.address, "--seconds", seconds, "--json", written)
        said = finish(command, cores=deployed.cores, directory=deployed.servers.directory, timeout_s=MOST_S)
    for line in said.splitlines():
        if " offered; " in line:
            bench.note(line)
    found = json.loads(written.read_text(encoding="utf-8"))
    return [Figure(**{**row, "value": math.nan if row["value"] is None else row["value"]}) for row in found]


if __name__ == "__main__":
    part("overload", overload)
