"""The options that the parts share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

EVENTS = 100_000
QUICK_EVENTS = 5_000
SOAK_S = 600.0

Profile = Literal["calls", "samples"]


@dataclass(frozen=True)
class Options:
    """What to measure with.

    Attributes:
        events: how many payments fill the feature state.
        processes: how many gateway processes share the port.
        controls: whether to run the controls.
        quick: sizes for a check that everything works, not for figures.
        profile: how the gateway's processes are profiled; None leaves them alone.
        soak_s: length of the soak in seconds.
    """

    events: int
    processes: int
    controls: bool
    quick: bool
    profile: Profile | None
    soak_s: float


def parse(description: str, arguments: Sequence[str] | None = None) -> Options:
    """Options from the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--events", type=int, help=f"payments in the feature state ({EVENTS:,})")
    parser.add_argument("--processes", type=int, default=1, help="gateway processes on one port (1)")
    parser.add_argument("--no-controls", action="store_true", help="only ours")
    parser.add_argument("--quick", action="store_true", help="small sizes: a check that it works, not figures")
    parser.add_argument("--soak-s", type=float, default=SOAK_S, help=f"length of the soak in seconds ({SOAK_S:g})")
    parser.add_argument(
        "--profile",
        choices=("calls", "samples"),
        help="profile the gateway: every call (cProfile), or samples of its CPU time; written to .run/bench/profiles/",
    )
    given = parser.parse_args(arguments)
    return Options(
        events=given.events or (QUICK_EVENTS if given.quick else EVENTS),
        processes=given.processes,
        controls=not given.no_controls,
        quick=given.quick,
        profile=given.profile,
        soak_s=given.soak_s,
    )
