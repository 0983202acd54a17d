"""Check the report of a lockstep demo: `python .ci/check_report.py REPORT EVENTS`.

Prints every promise that does not hold, and ends with status 1 if there is one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ZERO = (
    "predictions_missing",
    "predictions_duplicated",
    "outcomes_missing",
    "outcomes_duplicated",
    "failed_requests",
    "feature_parity.rows_different",
    "feature_parity.rows_stale",
)


def value_at(report: dict[str, Any], name: str) -> Any:
    """The value at a dotted name, None where there is none."""
    value: Any = report
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def broken_promises(report: dict[str, Any], events: int) -> list[str]:
    """One line for each promise of a lockstep replay of that many events which the report does not show kept."""
    wanted: dict[str, Any] = {"lockstep": True, **dict.fromkeys(ZERO, 0)}
    wanted |= dict.fromkeys(("events", "predictions", "labels", "outcomes", "learned"), events)
    wanted["feature_parity.rows_compared"] = events
    return [
        f"{name} is {json.dumps(found)}, wanted {json.dumps(value)}"
        for name, value in wanted.items()
        if (found := value_at(report, name)) != value
    ]


def main(arguments: list[str]) -> int:
    """Check the report named first against the number of events named second; return the exit status."""
    if len(arguments) != 2 or not arguments[1].isdecimal():
        print("usage: check_report.py REPORT EVENTS", file=sys.stderr)
        return 2
    try:
        report = json.loads(Path(arguments[0]).read_text())
    except (OSError, ValueError) as error:
        print(f"{arguments[0]} is not a report: {error}", file=sys.stderr)
        return 1
    broken = broken_promises(report, int(arguments[1]))
    for line in broken:
        print(f"{arguments[0]}: {line}", file=sys.stderr)
    if not broken:
        print(f"{arguments[0]}: {arguments[1]} events, nothing missing, doubled, different or stale")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
