"""Access tokens that are renewed before they expire. Pure."""

from __future__ import annotations

import base64
import binascii
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

REFRESH_BEFORE_S = 30.0


@dataclass(frozen=True)
class AccessToken:
    """A token and its end.

    Attributes:
        value: as it travels.
        expires_at: in seconds since 1970-01-01 UTC; None where it is not known.
    """

    value: str
    expires_at: float | None = None


TokenProvider = Callable[[], str | AccessToken]
"""Gives a fresh token. Called in a thread of its caller's or the event loop's, never twice at once."""


class TokenCache:
    """The present token; safe to share between threads.

    Args:
        source: the token itself, or what gives a fresh one. The end of a JWT is read from it where it is not given.
        refresh_before_s: how long before its end a token is renewed, in seconds; at most a fifth of its life.
        clock: seconds since 1970-01-01 UTC.
    """

    def __init__(
        self,
        source: str | TokenProvider,
        *,
        refresh_before_s: float = REFRESH_BEFORE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._provider: TokenProvider | None = None if isinstance(source, str) else source
        self._token = AccessToken(source) if isinstance(source, str) else None
        self._refresh_before_s = refresh_before_s
        self._clock = clock
        self._renew_at: float | None = None
        self._renewing = threading.Lock()

    @property
    def renewable(self) -> bool:
        """Whether there can be another one."""
        return self._provider is not None

    def current(self) -> str | None:
        """The token where it is good for a while, without waiting; None where it must be renewed."""
        token = self._token
        if token is None:
            return None
        if self._provider is not None and self._renew_at is not None and self._clock() >= self._renew_at:
            return None
        return token.value

    def get(self) -> str:
        """The token, renewed where it must be; may wait for what gives it."""
        value = self.current()
        if value is not None:
            return value
        with self._renewing:
            # Another thread may have renewed it meanwhile.
            value = self.current()
            if value is not None:
                return value
            assert self._provider is not None
            given = self._provider()
            token = AccessToken(given, _expiry(given)) if isinstance(given, str) else given
            now = self._clock()
            if token.expires_at is not None:
                self._renew_at = token.expires_at - min(self._refresh_before_s, (token.expires_at - now) / 5)
            else:
                self._renew_at = None
            self._token = token
            return token.value

    def refused(self, value: str) -> bool:
        """Forget a token that the gateway does not accept; whether another one can be had."""
        if self._provider is None:
            return False
        token = self._token
        if token is not None and token.value == value:
            self._token = None
        return True


def _expiry(token: str) -> float | None:
    """The `exp` of a JWT, which is not verified here; None where there is none."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return None
    expiry = claims.get("exp") if isinstance(claims, dict) else None
    return float(expiry) if isinstance(expiry, int | float) else None
