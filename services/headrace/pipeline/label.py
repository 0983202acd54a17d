"""What the truth of an event looks like, and when it is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from headrace.pipeline.time_units import DAY

LabelKind = Literal["binary", "number"]


@dataclass(frozen=True)
class Label:
    """What is learned and when it is known.

    Attributes:
        kind: "binary" (0 or 1), or "number": a value that a regressor learns.
        horizon: how long after an event its label is waited for, in microseconds of event time.
        expired: what a missing label means at the horizon: "drop" (no outcome) or "negative" (an outcome with 0; of
            binary labels alone).
        minimum: smallest allowed number, in `unit`; None for no bound. Of numbers alone, as the two that follow.
        maximum: largest allowed number, in `unit`; None for no bound.
        unit: what the number counts, for people: "minutes", "kWh".
    """

    kind: LabelKind = "binary"
    horizon: int = 30 * DAY
    expired: Literal["drop", "negative"] = "drop"
    minimum: float | None = None
    maximum: float | None = None
    unit: str | None = None

    @property
    def numeric(self) -> bool:
        """Whether the label is a number, not one of two classes."""
        return self.kind == "number"

    def problem(self) -> str:
        """What is wrong with the declaration; empty when nothing is."""
        if self.horizon <= 0:
            return "label horizon must be more than 0 microseconds"
        if self.kind not in ("binary", "number"):
            return f"label kind {self.kind!r}: allowed are 'binary' and 'number'"
        if self.expired not in ("drop", "negative"):
            return f"label expired={self.expired!r}: allowed are 'drop' and 'negative'"
        if not self.numeric:
            given = [name for name in ("minimum", "maximum", "unit") if getattr(self, name) is not None]
            return f"label {given[0]} needs kind='number': a binary label is 0 or 1" if given else ""
        if self.expired == "negative":
            return "label expired='negative' needs kind='binary': a number has no negative; allowed is 'drop'"
        for name in ("minimum", "maximum"):
            bound = getattr(self, name)
            if bound is not None and not math.isfinite(bound):
                return f"label {name} {bound}: a bound must be a finite number"
        if self.minimum is not None and self.maximum is not None and self.minimum >= self.maximum:
            return f"label minimum {self.minimum:g} must be less than maximum {self.maximum:g}"
        return ""

    def refusal(self, value: float) -> str:
        """Why a value is no label, and what is allowed; empty when it is one."""
        if not self.numeric:
            # NaN is in no set.
            return "" if value in {0.0, 1.0} else f"value is {value:g}; a binary label is 0 or 1"
        low = -math.inf if self.minimum is None else self.minimum
        high = math.inf if self.maximum is None else self.maximum
        if math.isfinite(value) and low <= value <= high:
            return ""
        unit = f" {self.unit}" if self.unit else ""
        return f"value is {value:g}; allowed is {self._bounds()}{unit}"

    def _bounds(self) -> str:
        if self.minimum is not None and self.maximum is not None:
            return f"{self.minimum:g} to {self.maximum:g}"
        if self.minimum is not None:
            return f"a finite number from {self.minimum:g}"
        return "a finite number" if self.maximum is None else f"a finite number up to {self.maximum:g}"
