"""The charts of the demonstration's report, as plotly figures."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from headrace.demo.figures import DAY_SECONDS, milliseconds, moment, season_name

INK = "#1b2733"
MUTED = "#5b6b7a"
GRID = "#e4e9ee"
BLUE, ORANGE, GREEN = "#1f5fa8", "#b4500f", "#1f7a54"
"""Told apart by people with any common colour blindness, and with 4.5:1 contrast on white."""
PALE_TO_DARK = [[0.0, "#f4f7fa"], [0.5, "#f2b680"], [1.0, "#8a2f0b"]]
CURVE_POINTS = 200
LATENCY_NAMES = {"kafka": "Kafka", "grpc": "gRPC Predict"}
QUALITY_LINES = (
    ("auc", "AUC", BLUE, "solid"),
    ("average_precision", "Average precision", ORANGE, "solid"),
    ("card_precision_at_100", "Card precision@100", GREEN, "dash"),
)


@dataclass(frozen=True)
class VersionServed:
    """What one model version served.

    Attributes:
        version: Its number.
        first_event_time_us: Earliest event time that it scored, µs since 1970 UTC.
        predictions: How many predictions it made.
        label_to_traffic_seconds: From the append of the last outcome it learned to its first prediction; None for a
            version that learned nothing.
    """

    version: int
    first_event_time_us: int
    predictions: int
    label_to_traffic_seconds: float | None = None


@dataclass(frozen=True)
class FeatureDrift:
    """Population stability index of one feature (or the score) in one season against its reference.

    Attributes:
        begin: When the season begins, UTC.
        feature: Name of the feature, or "score".
        psi: The index.
        threshold: Above it the feature has drifted, if that is significant too. A feature that differs from season to
            season by nature, as a weekend flag does, has a higher one.
    """

    begin: dt.datetime
    feature: str
    psi: float
    threshold: float


@dataclass(frozen=True)
class ReportSeries:
    """What the charts show beside the figures of the report; what is empty has no chart.

    Attributes:
        latency_ms: Samples in milliseconds, float64 (n,), by path (`kafka`, `grpc`).
        versions: Every version that served.
        drift: Every measured season and feature.
    """

    latency_ms: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    versions: Sequence[VersionServed] = ()
    drift: Sequence[FeatureDrift] = ()


def quality_chart(
    seasons: Sequence[Mapping[str, Any]], season_seconds: float, warm_up_seasons: int, events: str
) -> Any:
    """The measures of every season, and shaded the first ones, which the overall figures leave out.

    Args:
        seasons: `quality_by_season` of the report.
        season_seconds: Length of a season.
        warm_up_seasons: Seasons to shade.
        events: What the events are called.
    """
    figure = _figure(380, legend=True)
    begins = [moment(one["begin"], season_seconds) for one in seasons]
    for key, name, colour, dash in QUALITY_LINES:
        line = {"color": colour, "width": 2.5, "dash": dash}
        values = [one[key] for one in seasons]
        if key == "card_precision_at_100" and not any(value is not None for value in values):
            continue
        hover = "%{y:.3f}"
        figure.add_trace(go.Scatter(x=begins, y=values, name=name, mode="lines", line=line, hovertemplate=hover))
    if begins and warm_up_seasons:
        first, last = (dt.datetime.fromisoformat(seasons[at]["begin"]) for at in (0, -1))
        until = min(first + dt.timedelta(seconds=warm_up_seasons * season_seconds), last)
        figure.add_vrect(
            x0=begins[0],
            x1=moment(until.isoformat(), season_seconds),
            fillcolor="#eef2f6",
            line_width=0,
            layer="below",
            annotation={"text": "left out of the overall figures", "font": {"size": 12, "color": MUTED}},
            annotation_position="top left",
        )
    figure.update_yaxes(range=[0, 1.02], title_text="measure, 1 is best", tickformat=".1f")
    figure.update_xaxes(title_text=_axis(season_seconds, events))
    figure.update_layout(hovermode="x unified")
    return figure


def latency_chart(samples: Mapping[str, npt.NDArray[np.float64]]) -> Any:
    """Share of predictions answered within a time, for each path, with p50, p95 and p99 marked."""
    figure = _figure(340, legend=True)
    for (key, values), colour in zip(samples.items(), (BLUE, ORANGE, GREEN), strict=False):
        if not len(values):
            continue
        name = LATENCY_NAMES.get(key, key)
        share = np.linspace(0.0, 1.0, CURVE_POINTS + 1)[1:]
        curve = np.maximum(np.quantile(values, share), 1e-3)
        hover = "%{y:.1f} % within %{x:.3g} ms"
        line = {"color": colour, "width": 2.5}
        figure.add_trace(go.Scatter(x=curve, y=share * 100, name=name, line=line, mode="lines", hovertemplate=hover))
        marks = np.array([0.5, 0.95, 0.99])
        at = np.maximum(np.quantile(values, marks), 1e-3)
        figure.add_trace(
            go.Scatter(
                x=at,
                y=marks * 100,
                text=[f" p{mark * 100:.0f}  {milliseconds(value)}" for mark, value in zip(marks, at, strict=True)],
                mode="markers+text",
                textposition=["middle right", "bottom right", "top right"],
                textfont={"color": colour, "size": 12},
                marker={"color": colour, "size": 8},
                showlegend=False,
                hoverinfo="skip",
                cliponaxis=False,
            )
        )
    figure.update_xaxes(type="log", title_text="milliseconds, logarithmic", dtick="D2")
    figure.update_yaxes(range=[0, 112], tickvals=[0, 25, 50, 75, 100], title_text="answered, % of predictions")
    return figure


def served_chart(versions: Sequence[VersionServed], events: str, until: dt.datetime | None = None) -> Any:
    """Version number that served, over the time of the events; the last one to `until` (UTC)."""
    figure = _figure(290)
    ordered = sorted(versions, key=lambda served: served.first_event_time_us)
    moments = [_moment(served.first_event_time_us) for served in ordered]
    numbers = [served.version for served in ordered]
    if ordered and until is not None:
        moments.append(max(moments[-1], until.replace(tzinfo=None)))
        numbers.append(numbers[-1])
    figure.add_trace(
        go.Scatter(
            x=moments,
            y=numbers,
            mode="lines",
            line={"shape": "hv", "color": BLUE, "width": 2.5},
            hovertemplate="version %{y} from %{x|%d %b %H:%M}<extra></extra>",
        )
    )
    figure.update_xaxes(title_text=f"time of the {events}")
    figure.update_yaxes(title_text="version", rangemode="tozero", tickformat="d")
    return figure


def predictions_chart(versions: Sequence[VersionServed]) -> Any:
    """Predictions that each version made."""
    figure = _figure(290)
    ordered = sorted(versions, key=lambda served: served.version)
    figure.add_trace(
        go.Bar(
            x=[served.version for served in ordered],
            y=[served.predictions for served in ordered],
            marker={"color": BLUE, "line": {"width": 0}},
            hovertemplate="version %{x}: %{y:,} predictions<extra></extra>",
        )
    )
    figure.update_xaxes(title_text="version", tickformat="d")
    figure.update_yaxes(title_text="predictions", rangemode="tozero")
    figure.update_layout(bargap=0.15)
    return figure


def label_to_traffic_chart(versions: Sequence[VersionServed]) -> Any:
    """Seconds from the last label that a version learned to its first prediction."""
    figure = _figure(290)
    timed = [
        (served.version, served.label_to_traffic_seconds)
        for served in sorted(versions, key=lambda served: served.version)
        if served.label_to_traffic_seconds is not None
    ]
    figure.add_trace(
        go.Scatter(
            x=[version for version, _ in timed],
            y=[seconds for _, seconds in timed],
            mode="markers",
            marker={"color": ORANGE, "size": 8, "opacity": 0.85},
            hovertemplate="version %{x}: %{y:.2f} s<extra></extra>",
        )
    )
    figure.update_xaxes(title_text="version", tickformat="d")
    figure.update_yaxes(title_text="seconds", rangemode="tozero")
    return figure


def drift_chart(drift: Sequence[FeatureDrift], season_seconds: float, events: str) -> Any:
    """Population stability index of each feature by season, as a multiple of the threshold of its rule."""
    features = list(dict.fromkeys(point.feature for point in drift))
    begins = sorted({point.begin for point in drift})
    row = {feature: i for i, feature in enumerate(features)}
    column = {begin: i for i, begin in enumerate(begins)}
    values = np.full((len(features), len(begins)), np.nan)
    for point in drift:
        values[row[point.feature], column[point.begin]] = point.psi / point.threshold
    figure = _figure(90 + 24 * len(features))
    figure.add_trace(
        go.Heatmap(
            x=[moment(begin.isoformat(), season_seconds) for begin in begins],
            y=features,
            z=values,
            zmin=0.0,
            zmax=2.0,
            colorscale=PALE_TO_DARK,
            xgap=1,
            ygap=2,
            colorbar={
                "title": {"text": "PSI / threshold", "side": "top"},
                "tickvals": [0, 1, 2],
                "ticktext": ["0", "1, drifted above", "2 or more"],
                "thickness": 12,
                "outlinewidth": 0,
            },
            hovertemplate=f"%{{y}}, %{{x|{_day_or_hour(season_seconds)}}}: %{{z:.2f}} of the threshold<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", showgrid=False, automargin=True, ticksuffix="  ")
    figure.update_xaxes(showgrid=False, title_text=_axis(season_seconds, events), type="date")
    return figure


def _axis(season_seconds: float, events: str) -> str:
    name = season_name(season_seconds)
    return f"{name if name == 'day' else 'time'} of the {events}"


def _day_or_hour(season_seconds: float) -> str:
    return "%d %b" if season_seconds % DAY_SECONDS == 0 else "%d %b %H:%M"


def _figure(height: int, *, legend: bool = False) -> Any:
    figure = go.Figure()
    axis = {"gridcolor": GRID, "zeroline": False, "linecolor": GRID, "automargin": True, "title_font_size": 13}
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 56, "r": 24, "t": 36 if legend else 12, "b": 52},
        font={"family": "Inter, Segoe UI, Roboto, Helvetica, Arial, sans-serif", "size": 13, "color": INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        xaxis=axis,
        yaxis=axis,
        hoverlabel={"bgcolor": "white", "bordercolor": GRID},
    )
    return figure


def _moment(event_time_us: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(event_time_us / 1e6, dt.UTC).replace(tzinfo=None)
