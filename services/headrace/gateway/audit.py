"""The audit log: who was denied what, and who did what only few may. No payloads, no credentials.

Lines are bounded in time, so that nobody can fill the disk by being denied: what is beyond is counted, and the counts
are logged when the time is over. Admin calls have a bound of their own: denied calls do not keep them out.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from headrace.gateway.metrics import ACCESS_DENIED
from headrace.platform.logging import get_logger

WINDOW_S = 10.0
LINES = 20
"""Most lines of a kind in a window, beside one of counts."""
MOST_CHARACTERS = 200


class Audit:
    """Writes the audit log.

    Args:
        pipeline: deployed name.
        clock: monotonic seconds.
    """

    def __init__(self, pipeline: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._pipeline = pipeline
        self._clock = clock
        self._log = get_logger(audit=True)
        self._since = clock()
        self._lines: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()

    def denied(self, method: str, reason: str, *, caller: str, peer: str) -> None:
        """A call was denied.

        Args:
            method: that was called, one of few words.
            reason: why, one of few words.
            caller: who it was, where that is known.
            peer: address that the call came from.
        """
        ACCESS_DENIED.labels(method, reason).inc()
        if self._room("access denied", f"{method}: {reason}"):
            self._log.warning("access denied", method=method, reason=reason, **self._who(caller, peer))

    def administered(self, method: str, *, caller: str, peer: str) -> None:
        """A call was made that only few may make."""
        if self._room("admin call", f"{method}: admin call"):
            self._log.info("admin call", method=method, **self._who(caller, peer))

    def flush(self) -> None:
        """Log the counts of what was left out, where the time is over. To be called now and then."""
        now = self._clock()
        if now - self._since < WINDOW_S:
            return
        self._since = now
        self._lines.clear()
        if self._left_out:
            left_out, self._left_out = dict(self._left_out), Counter()
            self._log.warning("audit lines left out", left_out=left_out, pipeline=self._pipeline)

    def _room(self, event: str, counted_as: str) -> bool:
        self.flush()
        if self._lines[event] >= LINES:
            self._left_out[counted_as] += 1
            return False
        self._lines[event] += 1
        return True

    def _who(self, caller: str, peer: str) -> dict[str, Any]:
        return {"caller": caller[:MOST_CHARACTERS], "peer": peer[:MOST_CHARACTERS], "pipeline": self._pipeline}
