"""What is wrong with a request, found before it is sent or said by the gateway. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Violation(NamedTuple):
    """One thing that is wrong with a request."""

    field: str
    """Path of the field, for example "event.fields.amount_cents"."""
    description: str
    """What is wrong and what is allowed."""


class InvalidInputError(ValueError):
    """Events that the gateway would refuse; nothing was sent.

    Attributes:
        violations: what is wrong, at least one.
    """

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__(tuple(violations))
        self.violations = tuple(violations)

    def __str__(self) -> str:
        return "; ".join(f"{one.field}: {one.description}" for one in self.violations)

    def of_event(self, index: int) -> InvalidInputError:
        """The same for one event of many."""
        return InvalidInputError(
            [one._replace(field=f"events[{index}]{one.field.removeprefix('event')}") for one in self.violations]
        )


def rows_blamed(violations: Sequence[Violation], first_row: int) -> tuple[Violation, ...]:
    """The gateway's violations of one call as those of the whole table.

    Args:
        violations: of a call.
        first_row: of the call in the table.
    """
    moved = []
    for one in violations:
        head, bracket, rest = one.field.partition("events[")
        number, _, path = rest.partition("]")
        where = f"row {int(number) + first_row}{path}" if not head and bracket and number.isdecimal() else one.field
        moved.append(Violation(where, one.description))
    return tuple(moved)
