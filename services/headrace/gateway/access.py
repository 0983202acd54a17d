"""Who calls, and what he may do: credentials become a caller with permissions, or an error. Knows no transport.

The order is always the same: whoever calls must be known (else `UnauthenticatedError`), and what he asks for must be
granted to him (else `PermissionDeniedError`). What nobody granted is denied.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from headrace.gateway.access_keys import ApiKeys
from headrace.gateway.access_policy import Permission, Policy
from headrace.gateway.access_tokens import Tokens
from headrace.gateway.errors import PermissionDeniedError, UnauthenticatedError

BEARER = "bearer "
REMEMBERED_TOKENS = 10_000
NO_CREDENTIALS = "no credentials; send `authorization: Bearer TOKEN`, `x-api-key: KEY` or a client certificate"


class Credentials(NamedTuple):
    """What a call brings to show who makes it.

    Attributes:
        authorization: value of the header of that name: "Bearer …".
        api_key: value of the header `x-api-key`.
        certificate: names in the client's certificate, the most telling first; the TLS handshake has verified it.
    """

    authorization: str = ""
    api_key: str = ""
    certificate: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a call, and what he may do on this gateway's pipeline.

    Attributes:
        name: kind and name: "api-key:checkout", "jwt:<sub>", "certificate:<name>"; empty while access is open to all.
        permissions: granted to him here.
        quota_rows_per_s: rows that he may ask for in a second; None for what the setting says.
        expires_s: when his credentials end, as Unix time in seconds.
    """

    name: str
    permissions: frozenset[Permission]
    quota_rows_per_s: float | None = None
    expires_s: float = math.inf

    def check(self, permission: Permission) -> None:
        """Check that he has a permission.

        Raises:
            PermissionDeniedError: he has not.
        """
        if permission not in self.permissions:
            raise PermissionDeniedError(self.name, permission.value)

    def check_options(self, *, ingest: bool, explain: bool, overrides: bool, pinned: bool) -> None:
        """Check the options of a prediction; each but `explain`, which shows features, has a permission of its own.

        Raises:
            PermissionDeniedError: he has not the permission for one that is set.
        """
        if ingest:
            self.check(Permission.INGEST)
        if explain:
            self.check(Permission.FEATURES)
        if overrides:
            self.check(Permission.OVERRIDES)
        if pinned:
            self.check(Permission.PINNED)


ANYONE = Caller("", frozenset(Permission))
"""The caller of everything while access is open to all."""


class Identity(NamedTuple):
    """Who someone is, before it is known what he may do."""

    name: str
    principals: tuple[str, ...]
    expires_s: float
    limited_to: frozenset[Permission]


class Access(Protocol):
    """Decides who calls."""

    def caller(self, credentials: Credentials) -> Caller:
        """The caller of a call.

        Raises:
            UnauthenticatedError: he is not known.
        """
        ...


class OpenAccess:
    """Everyone may do everything."""

    def caller(self, credentials: Credentials) -> Caller:
        """Anyone."""
        return ANYONE


class PolicyAccess:
    """Access by a policy. Verified tokens are remembered until they expire, so that a call costs a look-up.

    Args:
        policy: who may do what.
        deployed: name of the pipeline that this gateway serves.
        tokens: verifies JSON Web Tokens; None where none are accepted.
        api_keys: that are accepted; None for none.
        remembered: most tokens to remember.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        policy: Policy,
        deployed: str,
        tokens: Tokens | None,
        api_keys: ApiKeys | None,
        *,
        remembered: int = REMEMBERED_TOKENS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._grants = policy.on(deployed)
        self._tokens = tokens
        self._api_keys = api_keys
        self._limit = remembered
        self._clock = clock
        self._remembered: dict[str, Caller] = {}
        self._certificates: dict[tuple[str, ...], Caller] = {}

    def caller(self, credentials: Credentials) -> Caller:
        """The caller of a call: by its token or API key, or else by its client certificate.

        Raises:
            UnauthenticatedError: no credentials, more than one, or ones that are not accepted.
        """
        authorization, api_key, certificate = credentials
        if authorization:
            if api_key:
                raise UnauthenticatedError("several_credentials", "send a token or an API key, not both")
            known = self._remembered.get(authorization)
            if known is not None and self._clock() < known.expires_s:
                return known
            return self._by_authorization(authorization)
        if api_key:
            return self._by_api_key(api_key)
        if certificate:
            known = self._certificates.get(certificate)
            return known if known is not None else self._by_certificate(certificate)
        raise UnauthenticatedError("no_credentials", NO_CREDENTIALS)

    def _by_authorization(self, authorization: str) -> Caller:
        self._remembered.pop(authorization, None)
        if authorization[: len(BEARER)].lower() != BEARER:
            raise UnauthenticatedError("no_bearer", "the header `authorization` must be `Bearer TOKEN`")
        secret = authorization[len(BEARER) :].strip()
        if ApiKeys.looks_like_one(secret):
            return self._by_api_key(secret)
        if self._tokens is None:
            raise UnauthenticatedError("tokens_off", "tokens are not accepted here")
        token = self._tokens.verify(secret)
        name = f"jwt:{token.subject}"
        principals = (name, *(f"role:{role}" for role in token.roles))
        made = self._granted(Identity(name, principals, token.expires_s, frozenset(Permission)))
        if len(self._remembered) >= self._limit:
            self._forget()
        self._remembered[authorization] = made
        return made

    def _by_api_key(self, secret: str) -> Caller:
        # Not remembered: checking one costs little, and no secret stays in memory.
        if self._api_keys is None:
            raise UnauthenticatedError("api_keys_off", "API keys are not accepted here")
        key = self._api_keys.verify(secret, self._clock())
        name = f"api-key:{key.name}"
        return self._granted(Identity(name, (name,), key.expires_s, key.permissions))

    def _by_certificate(self, names: tuple[str, ...]) -> Caller:
        principals = tuple(f"certificate:{name}" for name in names)
        made = self._granted(Identity(principals[0], principals, math.inf, frozenset(Permission)))
        if len(self._certificates) >= self._limit:
            self._certificates.clear()
        self._certificates[names] = made
        return made

    def _granted(self, identity: Identity) -> Caller:
        permissions, quota = self._grants.of(identity.principals)
        return Caller(identity.name, permissions & identity.limited_to, quota, identity.expires_s)

    def _forget(self) -> None:
        """Make room: what has expired, or else the older half."""
        now = self._clock()
        kept = {text: caller for text, caller in self._remembered.items() if now < caller.expires_s}
        if len(kept) >= self._limit:
            kept = dict(list(kept.items())[self._limit // 2 :])
        self._remembered = kept
