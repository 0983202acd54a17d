"""What a benchmark measured: figures with their controls, as a table and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Better = Literal["higher", "lower"]

COLUMNS = ("figure", "value", "unit", "control", "control value", "ratio", "goal", "met")


@dataclass(frozen=True)
class Figure:
    """One measured value, with the control of the same run where it has one.

    Attributes:
        name: what was measured.
        value: the result, in `unit`.
        unit: for example "events/s"; empty for a bare ratio.
        control: what it is compared with; None where it stands alone.
        control_value: the control's result, in `unit`.
        ratio: how many times better than the control the value is; above 1 is better, whichever way the unit goes.
        goal: the goal in words; None where there is none.
        met: whether the goal is reached; None where there is none, or where this run cannot say.
    """

    name: str
    value: float
    unit: str
    control: str | None = None
    control_value: float | None = None
    ratio: float | None = None
    goal: str | None = None
    met: bool | None = None


def figure(
    name: str,
    value: float,
    unit: str,
    *,
    better: Better = "higher",
    control: tuple[str, float] | None = None,
    least: float | None = None,
    most: float | None = None,
    least_ratio: float | None = None,
) -> Figure:
    """A figure, judged against its goals.

    Args:
        name: what was measured.
        value: the result.
        unit: its unit.
        better: whether a higher or a lower value is better; the ratio is turned so that above 1 is better.
        control: name and result of the control, in the same unit.
        least: the value must be at least this.
        most: the value must be at most this.
        least_ratio: the ratio must be at least this. Needs a control.

    Raises:
        ValueError: a goal for the ratio without a control.
    """
    ratio = None
    if control is not None:
        over, under = (value, control[1]) if better == "higher" else (control[1], value)
        ratio = over / under if under else math.inf
    goals: list[str] = []
    met: list[bool] = []
    if least is not None:
        goals.append(f"≥ {number(least)} {unit}".rstrip())
        met.append(value >= least)
    if most is not None:
        goals.append(f"≤ {number(most)} {unit}".rstrip())
        met.append(value <= most)
    if least_ratio is not None:
        if ratio is None:
            raise ValueError(f"{name}: a goal for the ratio needs a control")
        goals.append(f"≥ {number(least_ratio)} × control")
        met.append(ratio >= least_ratio)
    return Figure(
        name,
        value,
        unit,
        None if control is None else control[0],
        None if control is None else control[1],
        ratio,
        ", ".join(goals) or None,
        all(met) if met else None,
    )


def number(value: float) -> str:
    """A number for people: three significant digits, thousands with commas."""
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = 2 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def table(figures: Sequence[Figure]) -> str:
    """The figures as lines of text, one each, in columns."""
    rows = [COLUMNS, *(cells(one) for one in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    right = {1, 4, 5}
    lines = [
        "  ".join(cell.rjust(width) if at in right else cell.ljust(width) for at, (cell, width) in enumerate(cells))
        for cells in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def cells(one: Figure) -> tuple[str, ...]:
    """A figure as text, in the order of `COLUMNS`."""
    return (
        one.name,
        number(one.value),
        one.unit,
        one.control or "",
        "" if one.control_value is None else number(one.control_value),
        "" if one.ratio is None else number(one.ratio),
        one.goal or "",
        {True: "yes", False: "NO", None: ""}[one.met],
    )


def write_json(path: Path, figures: Sequence[Figure]) -> None:
    """Write the figures as a JSON list, all of it or nothing. A value that is not finite becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    rows = [
        {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(one).items()
        }
        for one in figures
    ]
    draft.write_text(json.dumps(rows, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    draft.replace(path)
