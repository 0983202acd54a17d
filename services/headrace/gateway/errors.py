"""What can go wrong with a request, by what its caller can do. Knows no transport."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Violation(NamedTuple):
    """One thing that is wrong with a request."""

    field: str
    """Path of the field, for example "event.fields.amount_cents"."""
    description: str
    """What is wrong and what is allowed."""


class GatewayError(Exception):
    """A request has no answer. The message is for the caller."""


class InvalidRequestError(GatewayError):
    """The request is wrong; the same request will be wrong again.

    Attributes:
        violations: what is wrong, at least one.
    """

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__(violations)
        self.violations = tuple(violations)

    def __str__(self) -> str:
        return "; ".join(one.description for one in self.violations)


class NotFoundError(GatewayError):
    """There is no such pipeline or model version here."""


class UnauthenticatedError(GatewayError):
    """It is not known who calls.

    Attributes:
        reason: why, as a word that metrics and the audit log count by; the message says it to the caller.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[1])


class PermissionDeniedError(GatewayError):
    """Who calls is known, and may not do this.

    Attributes:
        caller: who it is.
        permission: what he lacks.
    """

    def __init__(self, caller: str, permission: str) -> None:
        super().__init__(caller, permission)
        self.caller = caller
        self.permission = permission

    def __str__(self) -> str:
        return f"{self.caller} lacks the permission {self.permission!r} on this pipeline"


class OverloadedError(GatewayError):
    """A queue or the spool is full: nothing was done, and the same request may be sent again later.

    Attributes:
        retry_after_s: when to try again, in seconds.
    """

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message, retry_after_s)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return str(self.args[0])


class ExpiredError(GatewayError):
    """The deadline passed before the work began."""


class NotServingError(GatewayError):
    """This process cannot answer now: no route table, no model, or it is about to end."""


class ModelFaultError(GatewayError):
    """The model gave something that is no score."""


class StateUnreadableError(Exception):
    """The feature state or the idempotency records could not be read or written in time."""
