"""The access policy: which callers may do what on which pipelines. A TOML file, checked when it is read."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

ANY = "*"


class PolicyError(ValueError):
    """A policy, or a file of API keys, is wrong. The message names the place and what is allowed."""


class Permission(StrEnum):
    """What a caller may be allowed to do."""

    PREDICT = "predict"
    """Score events."""
    FEATURES = "features"
    """See feature values: `GetFeatures`, and `explain` with a prediction."""
    INGEST = "ingest"
    """Append the scored event to `events`."""
    OVERRIDES = "overrides"
    """Use values of his own instead of computed features."""
    PINNED = "pinned"
    """Choose the model version."""
    ADMIN = "admin"
    """Look at the server itself: reflection."""


CallerPattern = Annotated[str, Field(pattern=r"^(\*|(api-key|jwt|certificate|role):\S.*)$", max_length=300)]


class Grant(BaseModel):
    """Permissions for some callers on some pipelines.

    Attributes:
        callers: "api-key:NAME", "jwt:SUBJECT", "certificate:NAME", "role:ROLE", or "*" for everyone who is known.
        pipelines: deployed names, where "*" stands for any text.
        permissions: what they may do.
        quota_rows_per_s: rows that each of them may ask of a gateway process in a second, instead of the setting's;
            the first grant that has one counts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    callers: tuple[CallerPattern, ...] = Field(min_length=1)
    pipelines: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)
    permissions: tuple[Permission, ...] = Field(min_length=1)
    quota_rows_per_s: float | None = Field(default=None, gt=0, le=1e9)


class Grants:
    """What is granted on one pipeline, by caller and role."""

    def __init__(self, grants: Sequence[Grant]) -> None:
        self._permissions: dict[str, frozenset[Permission]] = {}
        self._quotas: dict[str, tuple[int, float]] = {}
        for place, grant in enumerate(grants):
            for caller in grant.callers:
                self._permissions[caller] = self._permissions.get(caller, frozenset()) | frozenset(grant.permissions)
                if grant.quota_rows_per_s is not None:
                    self._quotas.setdefault(caller, (place, grant.quota_rows_per_s))

    def of(self, principals: Sequence[str]) -> tuple[frozenset[Permission], float | None]:
        """Permissions and quota of whoever has these names and roles; none where nothing is granted."""
        permissions: frozenset[Permission] = frozenset()
        quotas = []
        for principal in (*principals, ANY):
            permissions |= self._permissions.get(principal, frozenset())
            if principal in self._quotas:
                quotas.append(self._quotas[principal])
        return permissions, min(quotas)[1] if quotas else None


class Policy(BaseModel):
    """The whole policy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    grants: tuple[Grant, ...] = Field(min_length=1)

    @classmethod
    def parse(cls, content: bytes) -> Policy:
        """Read a policy from the bytes of a TOML file.

        Raises:
            PolicyError: it is no TOML, or not a policy.
        """
        try:
            return cls.model_validate(toml(content))
        except ValidationError as error:
            raise PolicyError(first_fault(error)) from error

    def on(self, deployed: str) -> Grants:
        """What is granted on one pipeline."""
        return Grants(
            [grant for grant in self.grants if any(fnmatchcase(deployed, pattern) for pattern in grant.pipelines)]
        )


def toml(content: bytes) -> dict[str, object]:
    """The table in the bytes of a TOML file.

    Raises:
        PolicyError: it is no TOML.
    """
    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PolicyError(f"no TOML: {error}") from error


def first_fault(error: ValidationError) -> str:
    """The first thing that is wrong, with its place and what is allowed, in one line."""
    one = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in one["loc"])
    return f"{place or 'the file'}: {one['msg']}"
