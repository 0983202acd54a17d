"""API keys: `hrk_<name>_<secret>`, of which a file keeps the hash of the secret alone.

A secret has 256 random bits, so a plain SHA-256 cannot be searched; a slow password hash would only make calls slow.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import math
import re
import secrets
from typing import Annotated, NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from headrace.gateway.access_policy import Permission, PolicyError, first_fault, toml
from headrace.gateway.errors import UnauthenticatedError

PREFIX = "hrk_"
SECRET_BYTES = 32
KEY_NAME = r"^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$"
MAX_KEY_CHARACTERS = 200
# Compared with where no key has the name, so that both cases take the same time.
_NOBODY = bytes(32)


class StoredKey(BaseModel):
    """One key as the file has it.

    Attributes:
        sha256: hash of the secret, 64 hexadecimal digits.
        permissions: the most that it may do, whatever the policy grants; all when left out.
        expires: when it ends; never when left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    permissions: tuple[Permission, ...] = tuple(Permission)
    expires: AwareDatetime | None = None


class ApiKey(NamedTuple):
    """A key that is accepted."""

    name: str
    permissions: frozenset[Permission]
    expires_s: float


class _Entry(NamedTuple):
    digest: bytes
    key: ApiKey


_FILE: TypeAdapter[dict[str, StoredKey]] = TypeAdapter(dict[Annotated[str, Field(pattern=KEY_NAME)], StoredKey])


class ApiKeys:
    """The keys that are accepted."""

    def __init__(self, stored: dict[str, StoredKey]) -> None:
        self._entries = {
            name: _Entry(
                bytes.fromhex(one.sha256),
                ApiKey(name, frozenset(one.permissions), one.expires.timestamp() if one.expires else math.inf),
            )
            for name, one in stored.items()
        }

    @classmethod
    def parse(cls, content: bytes) -> ApiKeys:
        """Read the bytes of a TOML file with a table for each key.

        Raises:
            PolicyError: it is no TOML, or not such a file.
        """
        return cls(stored_keys(content))

    @staticmethod
    def looks_like_one(secret: str) -> bool:
        """Whether a text has the form of a key, and not of a token."""
        return secret.startswith(PREFIX)

    def verify(self, given: str, now_s: float) -> ApiKey:
        """The key that was given, found by its name and compared in constant time.

        Args:
            given: the whole key.
            now_s: Unix time in seconds.

        Raises:
            UnauthenticatedError: it is no key, not one of these, or has ended.
        """
        prefix, _, rest = given.partition("_")
        name, _, secret = rest.partition("_")
        if len(given) > MAX_KEY_CHARACTERS or f"{prefix}_" != PREFIX or not secret:
            raise UnauthenticatedError("bad_api_key", "the API key is not accepted")
        entry = self._entries.get(name)
        digest = _digest(secret)
        if not hmac.compare_digest(digest, entry.digest if entry is not None else _NOBODY) or entry is None:
            raise UnauthenticatedError("bad_api_key", "the API key is not accepted")
        if now_s >= entry.key.expires_s:
            raise UnauthenticatedError("expired", "the API key has expired")
        return entry.key


class NewKey(NamedTuple):
    """A key just made."""

    key: str
    """To be handed to whoever calls, and kept nowhere else."""
    table: str
    """To be appended to the file of keys."""


def stored_keys(content: bytes) -> dict[str, StoredKey]:
    """The keys in the bytes of a TOML file.

    Raises:
        PolicyError: it is no TOML, or not such a file.
    """
    try:
        return _FILE.validate_python(toml(content))
    except ValidationError as error:
        raise PolicyError(first_fault(error)) from error


def new_key(
    name: str, permissions: tuple[Permission, ...] = (), expires: dt.datetime | None = None, *, now: dt.datetime
) -> NewKey:
    """Make a key.

    Args:
        name: of whoever will call; a-z, 0-9 and inner hyphens.
        permissions: the most that it may do; empty for whatever the policy grants.
        expires: when it ends; None for never.
        now: noted beside it.

    Raises:
        PolicyError: the name is not allowed.
    """
    if not re.fullmatch(KEY_NAME, name):
        raise PolicyError(f"{name!r} is no name of a key; allowed are a-z, 0-9 and inner hyphens, at most 64")
    secret = secrets.token_urlsafe(SECRET_BYTES)
    lines = [f"[{name}]  # made {now:%Y-%m-%d}", f'sha256 = "{_digest(secret).hex()}"']
    if permissions:
        lines.append(f"permissions = {[one.value for one in permissions]}")
    if expires is not None:
        lines.append(f"expires = {expires.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}")
    return NewKey(f"{PREFIX}{name}_{secret}", "\n".join(lines) + "\n")


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode(errors="surrogatepass")).digest()
