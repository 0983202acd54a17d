"""The language of features: entities, windowed aggregations, label-derived aggregations and on-demand features."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from headrace.pipeline.errors import DefinitionError
from headrace.pipeline.events import EventColumns, FloatArray
from headrace.pipeline.time_units import DAY, HOUR, MINUTE, SECOND

Operation = Literal["count", "sum", "mean", "label_count", "label_rate"]
OPERATIONS: tuple[Operation, ...] = ("count", "sum", "mean", "label_count", "label_rate")


@dataclass(frozen=True)
class Entity:
    """What features are kept for: a customer, a terminal.

    Attributes:
        name: how features and Redis keys name it.
        field: the text field of the event that holds its id.
    """

    name: str
    field: str


@dataclass(frozen=True)
class Aggregation:
    """One windowed feature of an entity. Use `count`, `total`, `mean`, `label_count` or `label_rate`.

    For an event at time t, with window W, delay d and hop H (microseconds), it covers the entity's events whose hop
    number time // H lies above (t - d - W) // H and, behind a delay, at or below (t - d) // H; without a delay it
    covers those before t, and the event itself. With times that are multiples of H this is t - d - W < time <= t - d.

    Attributes:
        name: name of the feature.
        operation: what is computed.
        window: length in microseconds.
        of: field that is summed, for sum and mean.
        delay: in microseconds; 0 for none.
        hop: step in microseconds by which delayed and trailing edges move.
        over: for label rates, what they are divided by: "all" events of the window, or the "labelled" ones.
        default: value over an empty window.
    """

    name: str
    operation: Operation
    window: int
    of: str = ""
    delay: int = 0
    hop: int = SECOND
    over: Literal["all", "labelled"] = "all"
    default: float = 0.0

    @property
    def from_labels(self) -> bool:
        """Whether it needs the entity's label log."""
        return self.operation in ("label_count", "label_rate")

    def describe(self) -> dict[str, Any]:
        """Everything that gives the feature its meaning, for fingerprints."""
        return {key: str(value) for key, value in vars(self).items()}


def count(window: int, *, name: str = "", delay: int = 0, hop: int = SECOND) -> Aggregation:
    """Number of events in the window."""
    return Aggregation(name or f"count_{duration_name(window)}", "count", window, delay=delay, hop=hop)


def total(of: str, window: int, *, name: str = "", delay: int = 0, hop: int = SECOND) -> Aggregation:
    """Sum of the field `of`, in its own unit, over the window."""
    return Aggregation(name or f"sum_{of}_{duration_name(window)}", "sum", window, of, delay, hop)


def mean(
    of: str, window: int, *, name: str = "", delay: int = 0, hop: int = SECOND, default: float = 0.0
) -> Aggregation:
    """Mean of the field `of`, in its own unit, over the window; `default` when it is empty."""
    return Aggregation(name or f"mean_{of}_{duration_name(window)}", "mean", window, of, delay, hop, default=default)


def label_count(window: int, *, delay: int, name: str = "", hop: int = SECOND) -> Aggregation:
    """Number of events in the window that are known, at the time of the event, to be positive."""
    return Aggregation(name or f"label_count_{duration_name(window)}", "label_count", window, delay=delay, hop=hop)


def label_rate(
    window: int,
    *,
    delay: int,
    name: str = "",
    hop: int = SECOND,
    over: Literal["all", "labelled"] = "all",
    default: float = 0.0,
) -> Aggregation:
    """Share of known positives among the events of the window, labelled or not; 0 (`default`) when it is empty."""
    return Aggregation(
        name or f"label_rate_{duration_name(window)}",
        "label_rate",
        window,
        delay=delay,
        hop=hop,
        over=over,
        default=default,
    )


@dataclass(frozen=True)
class FeatureView:
    """The aggregations of one entity.

    Attributes:
        entity: name of the entity.
        aggregations: in feature order. Feature names are `<entity>_<aggregation>`.
    """

    entity: str
    aggregations: tuple[Aggregation, ...]

    def __init__(self, entity: str, *aggregations: Aggregation) -> None:
        object.__setattr__(self, "entity", entity)
        object.__setattr__(self, "aggregations", aggregations)


@dataclass(frozen=True)
class OnDemand:
    """A feature computed from the event alone.

    Attributes:
        name: name of the feature.
        compute: a plain, pure function from the batch's columns to one float64 per event, shape (n,).
    """

    name: str
    compute: Callable[[EventColumns], FloatArray]

    def describe(self) -> dict[str, Any]:
        """Name and source (without comments and layout), for fingerprints.

        Raises:
            DefinitionError: the function has no source, so a change to it could not be told.
        """
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(self.compute)))
        except (OSError, TypeError, SyntaxError) as error:
            raise DefinitionError(
                f"on-demand feature {self.name!r}: compute must be a plain function defined in a file"
            ) from error
        return {"name": self.name, "source": ast.unparse(tree)}


def duration_name(duration: int) -> str:
    """A duration in microseconds as names have it: 7d, 12h, 30m, 45s, 10us."""
    for unit, suffix in ((DAY, "d"), (HOUR, "h"), (MINUTE, "m"), (SECOND, "s")):
        if duration % unit == 0:
            return f"{duration // unit}{suffix}"
    return f"{duration}us"
