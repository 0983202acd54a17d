"""The language of features: entities, their windowed aggregations, and features of the event alone or of others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from headrace.pipeline.aggregations.lanes import Filter
from headrace.pipeline.aggregations.operations import OPERATIONS
from headrace.pipeline.events import EventColumns, FloatArray
from headrace.pipeline.sources import describe_function
from headrace.pipeline.time_units import DAY, HOUR, MINUTE, SECOND

HALF_LIVES = 40
"""Length of a decayed aggregation's window in half-lives unless it is given: what lies beyond weighs below 2^-40."""

Compute = Callable[[EventColumns], FloatArray]

_LATER = ("where", "half_life", "share")


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
    """One windowed feature of an entity. Use `count`, `total`, `mean` and the others.

    For an event at time t, with window W, delay d and hop H (microseconds), it covers the entity's events whose hop
    number time // H lies above (t - d - W) // H and, behind a delay, at or below (t - d) // H; without a delay it
    covers those before t, and the event itself (but for `last` and `time_since_last`, which speak of earlier ones).
    With times that are multiples of H this is t - d - W < time <= t - d. Of these events count those that `where` lets
    through and that have the field `of`.

    Attributes:
        name: name of the feature.
        operation: what is computed.
        window: length in microseconds.
        of: the field that it is of.
        delay: in microseconds; 0 for none.
        hop: step in microseconds by which delayed and trailing edges move.
        over: for label rates, what they are divided by: "all" events of the window, or the "labelled" ones.
        default: value over an empty window.
        where: a plain, pure function from the batch's columns to one bool per event, shape (n,); None for all events.
        half_life: of decayed ones, in microseconds.
        share: of quantiles, 0 to 1.
    """

    name: str
    operation: str
    window: int
    of: str = ""
    delay: int = 0
    hop: int = SECOND
    over: Literal["all", "labelled"] = "all"
    default: float = 0.0
    where: Filter | None = None
    half_life: int = 0
    share: float = 0.0

    @property
    def from_labels(self) -> bool:
        """Whether it needs the entity's label log."""
        return OPERATIONS[self.operation].from_labels

    def describe(self) -> dict[str, str]:
        """Everything that gives the feature its meaning, for fingerprints. What is not used is left out.

        Raises:
            DefinitionError: the source of `where` cannot be told.
        """
        described = {key: str(value) for key, value in vars(self).items() if key not in _LATER or value}
        if self.where is not None:
            described["where"] = describe_function(self.where, f"feature {self.name!r}: where")
        return described


def count(
    window: int, *, name: str = "", delay: int = 0, hop: int = SECOND, where: Filter | None = None
) -> Aggregation:
    """Number of events in the window."""
    return Aggregation(name or _name("count", window, where), "count", window, delay=delay, hop=hop, where=where)


def total(
    of: str, window: int, *, name: str = "", delay: int = 0, hop: int = SECOND, where: Filter | None = None
) -> Aggregation:
    """Sum of the field `of`, in its own unit, over the window."""
    return Aggregation(name or _name(f"sum_{of}", window, where), "sum", window, of, delay, hop, where=where)


def mean(
    of: str,
    window: int,
    *,
    name: str = "",
    delay: int = 0,
    hop: int = SECOND,
    default: float = 0.0,
    where: Filter | None = None,
) -> Aggregation:
    """Mean of the field `of`, in its own unit, over the window; `default` when it is empty."""
    name = name or _name(f"mean_{of}", window, where)
    return Aggregation(name, "mean", window, of, delay, hop, default=default, where=where)


def minimum(
    of: str,
    window: int,
    *,
    name: str = "",
    delay: int = 0,
    hop: int = SECOND,
    default: float = 0.0,
    where: Filter | None = None,
) -> Aggregation:
    """Smallest value of the field `of` in the window; `default` when it is empty."""
    name = name or _name(f"min_{of}", window, where)
    return Aggregation(name, "min", window, of, delay, hop, default=default, where=where)


def maximum(
    of: str,
    window: int,
    *,
    name: str = "",
    delay: int = 0,
    hop: int = SECOND,
    default: float = 0.0,
    where: Filter | None = None,
) -> Aggregation:
    """Largest value of the field `of` in the window; `default` when it is empty."""
    name = name or _name(f"max_{of}", window, where)
    return Aggregation(name, "max", window, of, delay, hop, default=default, where=where)


def std(
    of: str,
    window: int,
    *,
    name: str = "",
    delay: int = 0,
    hop: int = SECOND,
    default: float = 0.0,
    where: Filter | None = None,
) -> Aggregation:
    """Standard deviation of the field `of` over the window, of the population (divided by n); 0 for one event."""
    name = name or _name(f"std_{of}", window, where)
    return Aggregation(name, "std", window, of, delay, hop, default=default, where=where)


def last(
    of: str,
    window: int,
    *,
    default: float,
    name: str = "",
    delay: int = 0,
    hop: int = SECOND,
    where: Filter | None = None,
) -> Aggregation:
    """The field `of` of the last event before this one that has it; `default` when the window has none."""
    name = name or _name(f"last_{of}", window, where)
    return Aggregation(name, "last", window, of, delay, hop, default=default, where=where)


def time_since_last(
    window: int,
    *,
    default: float | None = None,
    name: str = "",
    delay: int = 0,
    hop: int = SECOND,
    where: Filter | None = None,
) -> Aggregation:
    """Seconds since the last event before this one; the window's length (`default`) when it has none."""
    name = name or _name("time_since_last", window, where)
    otherwise = window / SECOND if default is None else default
    return Aggregation(name, "time_since_last", window, delay=delay, hop=hop, default=otherwise, where=where)


def distinct(
    of: str, window: int, *, name: str = "", delay: int = 0, hop: int = SECOND, where: Filter | None = None
) -> Aggregation:
    """Estimated number of distinct values of the text or whole-number field `of` in the window: HyperLogLog, 1.6 %."""
    return Aggregation(name or _name(f"distinct_{of}", window, where), "distinct", window, of, delay, hop, where=where)


def quantile(
    of: str,
    share: float,
    window: int,
    *,
    name: str = "",
    delay: int = 0,
    hop: int = SECOND,
    default: float = 0.0,
    where: Filter | None = None,
) -> Aggregation:
    """The value of the field `of` that the share (0 to 1) of the window lies below: DDSketch, within 1 % of it."""
    name = name or _name(f"p{100 * share:g}".replace(".", "_") + f"_{of}", window, where)
    return Aggregation(name, "quantile", window, of, delay, hop, default=default, where=where, share=share)


def decayed_count(
    half_life: int,
    *,
    window: int = 0,
    name: str = "",
    delay: int = 0,
    hop: int = SECOND,
    where: Filter | None = None,
) -> Aggregation:
    """Number of events, each weighing 2^(-age / half life); `window` (40 half-lives) cuts."""
    return Aggregation(
        name or _name("decayed_count", half_life, where),
        "decayed_count",
        window or HALF_LIVES * half_life,
        delay=delay,
        hop=hop,
        where=where,
        half_life=half_life,
    )


def decayed_mean(
    of: str,
    half_life: int,
    *,
    window: int = 0,
    name: str = "",
    delay: int = 0,
    hop: int = SECOND,
    default: float = 0.0,
    where: Filter | None = None,
) -> Aggregation:
    """Mean of the field `of`, each event weighing 2^(-age / half life); `window` (40 half-lives) cuts."""
    return Aggregation(
        name or _name(f"decayed_mean_{of}", half_life, where),
        "decayed_mean",
        window or HALF_LIVES * half_life,
        of,
        delay,
        hop,
        default=default,
        where=where,
        half_life=half_life,
    )


def label_count(
    window: int, *, delay: int, name: str = "", hop: int = SECOND, where: Filter | None = None
) -> Aggregation:
    """Number of events in the window that are known, at the time of the event, to be positive."""
    name = name or _name("label_count", window, where)
    return Aggregation(name, "label_count", window, delay=delay, hop=hop, where=where)


def label_rate(
    window: int,
    *,
    delay: int,
    name: str = "",
    hop: int = SECOND,
    over: Literal["all", "labelled"] = "all",
    default: float = 0.0,
    where: Filter | None = None,
) -> Aggregation:
    """Share of known positives among the events of the window, labelled or not; 0 (`default`) when it is empty."""
    name = name or _name("label_rate", window, where)
    return Aggregation(name, "label_rate", window, delay=delay, hop=hop, over=over, default=default, where=where)


def label_mean(
    window: int,
    *,
    delay: int,
    name: str = "",
    hop: int = SECOND,
    default: float = 0.0,
    where: Filter | None = None,
) -> Aggregation:
    """Mean of the labels known at the time of the event over the labelled events; `default` when there are none."""
    name = name or _name("label_mean", window, where)
    return Aggregation(name, "label_mean", window, delay=delay, hop=hop, over="labelled", default=default, where=where)


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

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its features, in order."""
        return tuple(f"{self.entity}_{aggregation.name}" for aggregation in self.aggregations)

    def describe(self) -> dict[str, Any]:
        """Everything that gives its features their meaning, for fingerprints."""
        return {"entity": self.entity, "aggregations": [a.describe() for a in self.aggregations]}


@dataclass(frozen=True)
class OnDemand:
    """A feature computed from the event alone.

    Attributes:
        name: name of the feature.
        compute: a plain, pure function from the batch's columns to one float64 per event, shape (n,).
    """

    name: str
    compute: Compute

    @property
    def names(self) -> tuple[str, ...]:
        """Its name."""
        return (self.name,)

    def describe(self) -> dict[str, Any]:
        """Name and source (without comments and layout), for fingerprints.

        Raises:
            DefinitionError: the function has no source, so a change to it could not be told.
        """
        what = f"on-demand feature {self.name!r}: compute"
        return {"name": self.name, "source": describe_function(self.compute, what)}


@dataclass(frozen=True)
class Derived:
    """A feature computed from other features of the same vector, for example an amount over the customer's mean.

    Attributes:
        name: name of the feature.
        compute: a plain, pure function from features by name, float64, shape (n,) each, to one float64 per event,
            shape (n,). It sees every feature that is not derived, and the derived ones that stand before it.
    """

    name: str
    compute: Callable[[Mapping[str, FloatArray]], FloatArray]

    @property
    def names(self) -> tuple[str, ...]:
        """Its name."""
        return (self.name,)

    def describe(self) -> dict[str, Any]:
        """Name and source (without comments and layout), for fingerprints.

        Raises:
            DefinitionError: the function has no source, so a change to it could not be told.
        """
        what = f"derived feature {self.name!r}: compute"
        return {"name": self.name, "derived": describe_function(self.compute, what)}


def duration_name(duration: int) -> str:
    """A duration in microseconds as names have it: 7d, 12h, 30m, 45s, 10us."""
    for unit, suffix in ((DAY, "d"), (HOUR, "h"), (MINUTE, "m"), (SECOND, "s")):
        if duration % unit == 0:
            return f"{duration // unit}{suffix}"
    return f"{duration}us"


def _name(what: str, duration: int, where: Filter | None) -> str:
    return f"{what}_{duration_name(duration)}" + (f"_{where.__name__}" if where is not None else "")
