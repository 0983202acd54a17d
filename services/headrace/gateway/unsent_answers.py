"""Answers that were made and that their callers have not taken yet. Pure.

A caller who asks and does not read leaves his answers in the memory of this process: gRPC hands out no more than he
takes, and has no means to end a call whose answer is on its way. So each connection may have a number of such rows, and
when there are too many in all, a connection that has some gets no more. Who reads what he asked for has next to none.
"""

from __future__ import annotations

import asyncio

from headrace.gateway.errors import OverloadedError

SHARES = 8
"""How many connections may have as many rows as they may, before those with any get no more."""
RETRY_AFTER_S = 1.0


class UnsentAnswers:
    """Counts them.

    Args:
        most_rows: that may wait for one connection to take them.
    """

    def __init__(self, most_rows: int) -> None:
        self._most_rows = most_rows
        self._of_connections: dict[str, int] = {}
        self._rows = 0

    @property
    def rows(self) -> int:
        """How many wait."""
        return self._rows

    def of_this_call(self, connection: str) -> Unsent:
        """Those of the call that the current task serves; forgotten when the task ends.

        Args:
            connection: by which the call came.
        """
        task = asyncio.current_task()
        assert task is not None
        unsent = Unsent(self, connection)
        task.add_done_callback(lambda _: unsent.end())
        return unsent

    def allows(self, connection: str) -> bool:
        """Whether a connection may ask for more."""
        waiting = self._of_connections.get(connection, 0)
        return waiting < self._most_rows and (not waiting or self._rows < SHARES * self._most_rows)

    def changed(self, connection: str, rows: int) -> None:
        """So many rows more wait for a connection, or fewer."""
        self._rows += rows
        left = self._of_connections.get(connection, 0) + rows
        if left:
            self._of_connections[connection] = left
        else:
            self._of_connections.pop(connection, None)


class Unsent:
    """The rows of one call or stream that wait."""

    __slots__ = ("_all", "_connection", "_ended", "_rows")

    def __init__(self, all_calls: UnsentAnswers, connection: str) -> None:
        self._all = all_calls
        self._connection = connection
        self._rows = 0
        self._ended = False

    @property
    def allowed(self) -> bool:
        """Whether the connection may ask for more."""
        return self._all.allows(self._connection)

    def require(self) -> None:
        """Check before work is done.

        Raises:
            OverloadedError: too many answers wait for this caller to take them.
        """
        if not self.allowed:
            raise OverloadedError("too many answers wait for this caller to take them", RETRY_AFTER_S)

    def made(self, rows: int) -> None:
        """Rows wait from now on."""
        if not self._ended:
            self._rows += rows
            self._all.changed(self._connection, rows)

    def sent(self, rows: int) -> None:
        """Rows were taken."""
        if not self._ended:
            self._rows -= rows
            self._all.changed(self._connection, -rows)

    def end(self) -> None:
        """None waits any more."""
        self.sent(self._rows)
        self._ended = True
