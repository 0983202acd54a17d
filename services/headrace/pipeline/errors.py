"""What can be wrong with a declaration and with an event."""

from __future__ import annotations


class DefinitionError(ValueError):
    """A pipeline is declared wrongly. The message names the part at fault and what is allowed."""


class EventError(ValueError):
    """An event cannot be used.

    Attributes:
        reason: a stable code, for example "missing_field"; see `Rejected.reason` in the contracts.
        field: the field at fault, empty when it is the event as a whole.
        detail: one sentence that says what is wrong and what is allowed.
    """

    def __init__(self, reason: str, field: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.field = field
        self.detail = detail
