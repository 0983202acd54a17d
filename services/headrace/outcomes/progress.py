"""How far the join of one partition has come: what the store keeps and what travels with the commit. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import NamedTuple

from headrace.outcomes.answer_clock import AnswerClock


class Positions(NamedTuple):
    """The next offset of each of the two topics; what lies below has been joined."""

    predictions: int
    labels: int

    def at_least(self, other: Positions) -> Positions:
        """The higher one of each side."""
        return Positions(max(self.predictions, other.predictions), max(self.labels, other.labels))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the join has come.

    Attributes:
        positions: next offsets.
        clock: event time of the predictions below.
        expired_until_us: events due until this event time have expired, in microseconds; 0 for none.
        sizes: number of events in the store by kind of state.
    """

    positions: Positions
    clock: AnswerClock = field(default_factory=AnswerClock)
    expired_until_us: int = 0
    sizes: dict[str, int] = field(default_factory=dict)

    def commit_metadata(self) -> str:
        """What the commit of the predictions' offset carries, so that a rebuilt store decides as the lost one did."""
        return json.dumps(
            {
                "expired_until_us": self.expired_until_us,
                "highest_us": self.clock.highest_us,
                "leap_us": self.clock.leap_us,
            }
        )

    @staticmethod
    def committed(positions: Positions, metadata: str) -> Progress:
        """From what is committed; anything else than `commit_metadata` counts as empty."""
        try:
            found = json.loads(metadata)
            clock = AnswerClock(int(found["highest_us"]), int(found["leap_us"]))
            return Progress(positions, clock, int(found["expired_until_us"]))
        except (ValueError, TypeError, KeyError):
            return Progress(positions)

    def encode(self) -> bytes:
        """As bytes, for the store."""
        return json.dumps(
            {
                "predictions": self.positions.predictions,
                "labels": self.positions.labels,
                "highest_us": self.clock.highest_us,
                "leap_us": self.clock.leap_us,
                "expired_until_us": self.expired_until_us,
                "sizes": self.sizes,
            }
        ).encode()

    @staticmethod
    def decode(stored: bytes) -> Progress:
        """From `encode`.

        Raises:
            ValueError: the bytes are something else.
        """
        try:
            found = json.loads(stored)
            return Progress(
                Positions(int(found["predictions"]), int(found["labels"])),
                AnswerClock(int(found["highest_us"]), int(found["leap_us"])),
                int(found["expired_until_us"]),
                {str(kind): int(count) for kind, count in found["sizes"].items()},
            )
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"the stored progress is damaged: {error!r}") from error
