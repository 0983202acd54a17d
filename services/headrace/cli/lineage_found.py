"""What is known of an event id, and what is not."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Lineage:
    """What is known of an event id. All parts are JSON values.

    Attributes:
        event_id: as asked for.
        event: where the event is, and how it came.
        prediction: the primary answer, or the newest one found.
        features: names, values, and the state positions that they were evaluated at.
        others: shadows, repeats and later answers.
        model: the version that answered.
        ancestors: the versions that it continues.
        outcome: the label and what was made of it; None when there is none yet.
        missing: what is not known any more, or not found, each with the reason.
        notes: what else a reader should know.
    """

    event_id: str
    event: dict[str, Any] = field(default_factory=dict)
    prediction: dict[str, Any] = field(default_factory=dict)
    features: dict[str, Any] = field(default_factory=dict)
    others: list[dict[str, Any]] = field(default_factory=list)
    model: dict[str, Any] | None = None
    ancestors: dict[str, Any] | None = None
    outcome: dict[str, Any] | None = None
    missing: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def lacks(self, what: str, why: str) -> None:
        """Note that something is not known."""
        self.missing.append({"what": what, "why": why})

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {**vars(self), "complete": not self.missing}
