"""The report of a run as one HTML page that needs nothing else: figures, latencies as table and picture. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from loadtests.figures import COLUMNS, Figure, cells, number
from loadtests.gateway.curves import Curve, draw
from loadtests.gateway.open_loop import PERCENTILES

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1180px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0; font-size: 13px }
th, td { padding: .25em .7em; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
tr.missed td { background: #fdecea }
svg { width: 100%; height: auto }
.note { color: #555 }
"""
LATENCY_NOTE = (
    "Open loop: callers come at random (Poisson) at the offered rate, whether or not earlier ones have their answers, "
    "and each latency is counted from the moment at which the call was due. Loads are shares of the gateway's top "
    "rate by the same client. Triton alone and MLServer answer the bare model: they get the features ready, and "
    "read, decide and log nothing."
)
COST_HEADS = ("with", "calls/s", "calls/s without", "rate kept", "CPU of the gateway, µs a call", "without", "added")
COST_NOTE = "One gateway with the option and one without, called in turns by the same client, as many calls under way."
_NUMBERS = {COLUMNS.index(name) for name in ("value", "control value", "ratio")}


@dataclass(frozen=True)
class Cost:
    """What an option costs.

    Attributes:
        option: its name.
        rate, rate_without: calls a second with it and without it.
        cpu_us, cpu_us_without: CPU time of the gateway per call, in microseconds.
    """

    option: str
    rate: float
    rate_without: float
    cpu_us: float
    cpu_us_without: float

    def cells(self) -> tuple[str, ...]:
        """As text, in the order of `COST_HEADS`."""
        return (
            self.option,
            number(self.rate),
            number(self.rate_without),
            f"{self.rate / self.rate_without:.0%}",
            number(self.cpu_us),
            number(self.cpu_us_without),
            f"{self.cpu_us - self.cpu_us_without:+.1f}",
        )


def page(
    machine: Sequence[str],
    figures: Sequence[Figure],
    curves: Sequence[Curve],
    costs: Sequence[Cost] = (),
    notes: Sequence[str] = (),
) -> str:
    """The page.

    Args:
        machine: lines that say where and when it was measured.
        figures: all of them.
        curves: latencies against the load; none leaves the picture out.
        costs: of options; none leaves their table out.
        notes: what the reader has to know beside.
    """
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>The gateway, measured</title>',
        f"<style>{STYLE}</style></head><body><h1>The gateway, measured</h1>",
        f'<p class="note">{"<br>".join(map(escape, machine))}</p>',
        *(f'<p class="note">{escape(note)}</p>' for note in notes),
        "<h2>Figures</h2>",
        _figures(figures),
    ]
    if any(curve.points for curve in curves):
        parts += [
            "<h2>Latency against offered load</h2>",
            f'<p class="note">{escape(LATENCY_NOTE)}</p>',
            draw(curves),
            _latencies(curves),
        ]
    if costs:
        parts += ["<h2>Cost of each option</h2>", f'<p class="note">{escape(COST_NOTE)}</p>', _costs(costs)]
    return "\n".join([*parts, "</body></html>"]) + "\n"


def _figures(figures: Sequence[Figure]) -> str:
    rows = [
        (" class='missed'" if one.met is False else "", [(text, at in _NUMBERS) for at, text in enumerate(cells(one))])
        for one in figures
    ]
    return _table(COLUMNS, rows)


def _costs(costs: Sequence[Cost]) -> str:
    return _table(COST_HEADS, [("", [(text, at > 0) for at, text in enumerate(one.cells())]) for one in costs])


def _latencies(curves: Sequence[Curve]) -> str:
    heads = ["server", "offered, calls/s", "answered, calls/s", "failed"]
    heads += [f"p{percentile:g}, ms" for percentile in PERCENTILES]
    rows = []
    for curve in curves:
        for point in curve.points:
            values = [number(point.offered), number(point.answered), f"{point.failed:.2%}"]
            values += [number(one) for one in point.percentiles_ms]
            rows.append(("", [(curve.name, False), *((value, True) for value in values)]))
    return _table(heads, rows)


def _table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[tuple[str, bool]]]]) -> str:
    head = "".join(f"<th>{escape(one)}</th>" for one in heads)
    lines = [
        f"<tr{mark}>"
        + "".join(f"<td{' class=number' if right else ''}>{escape(text)}</td>" for text, right in row)
        + "</tr>"
        for mark, row in rows
    ]
    return "\n".join([f"<table><thead><tr>{head}</tr></thead><tbody>", *lines, "</tbody></table>"])
