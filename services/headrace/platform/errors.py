"""What a person who runs the system can put right."""

from __future__ import annotations


class OperatorError(Exception):
    """A mistake or an outage outside this process; the message names the thing, the place and what is allowed.

    Where it ends a service, it is one line of the log and `error: …`, without a stack trace.

    Attributes:
        retriable: whether the same may succeed later without a person's help, so that a restart is worth trying.
    """

    retriable = False
