"""What ends the join, each with one line for the person who runs it."""

from __future__ import annotations

from headrace.platform.errors import OperatorError


class OutcomesError(OperatorError):
    """The join cannot go on; the message names the thing at fault and what helps."""


class RecordsLostError(OutcomesError):
    """A topic ends before what was read from it: records that were joined are not there any more."""


class StoreUnavailableError(OutcomesError):
    """A join store cannot be opened, written or read."""

    retriable = True


class StalledError(OutcomesError):
    """Records that are there do not arrive."""

    retriable = True


class AssignmentError(OutcomesError):
    """Kafka assigned a partition of one topic without the same partition of the other."""

    retriable = True
