"""The files that access goes by: read, checked, and looked at for changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, TypeVar

from headrace.gateway.access import Access, OpenAccess, PolicyAccess
from headrace.gateway.access_keys import ApiKeys
from headrace.gateway.access_policy import Policy, PolicyError
from headrace.gateway.access_tokens import Tokens, token_keys
from headrace.platform.errors import OperatorError

MAX_FILE_BYTES = 1 << 20

T = TypeVar("T")
Fingerprint = tuple[tuple[int, int, int] | None, ...]


class AccessFileError(OperatorError):
    """A file of access is not there, not readable, or wrong; the message names the file and the place in it."""


class AccessFiles(NamedTuple):
    """Where they are, and what belongs to them.

    Attributes:
        policy: who may do what; None leaves everything open to everyone.
        api_keys: hashes of the API keys; None accepts none.
        jwt_keys: public keys of tokens; None accepts no tokens.
        jwt_issuer: the only issuer of tokens.
        jwt_audience: whom a token must be for.
        jwt_roles_claim: claim of the roles.
        jwt_leeway_s: how far clocks may be apart, in seconds.
    """

    policy: Path | None = None
    api_keys: Path | None = None
    jwt_keys: Path | None = None
    jwt_issuer: str = ""
    jwt_audience: str = ""
    jwt_roles_claim: str = "roles"
    jwt_leeway_s: float = 30.0

    def read(self, deployed: str) -> Access:
        """Access as the files say.

        Args:
            deployed: name of the pipeline that this gateway serves.

        Raises:
            AccessFileError: a file is not fit.
        """
        if self.policy is None:
            return OpenAccess()
        tokens = None
        if self.jwt_keys is not None:
            tokens = Tokens(
                _parsed(self.jwt_keys, token_keys),
                issuer=self.jwt_issuer,
                audience=self.jwt_audience,
                roles_claim=self.jwt_roles_claim,
                leeway_s=self.jwt_leeway_s,
            )
        api_keys = _parsed(self.api_keys, ApiKeys.parse) if self.api_keys is not None else None
        return PolicyAccess(_parsed(self.policy, Policy.parse), deployed, tokens, api_keys)

    def fingerprint(self) -> Fingerprint:
        """Changes when a file does."""
        return fingerprint((self.policy, self.api_keys, self.jwt_keys))


def fingerprint(paths: Iterable[Path | None]) -> Fingerprint:
    """Changes when a file changes, comes or goes."""
    return tuple(_of_file(path) if path is not None else None for path in paths)


def _of_file(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _parsed(path: Path, parse: Callable[[bytes], T]) -> T:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise AccessFileError(f"{path} has more than {MAX_FILE_BYTES} bytes")
        return parse(content)
    except OSError as error:
        raise AccessFileError(f"cannot read {path}: {error.strerror}") from error
    except PolicyError as error:
        raise AccessFileError(f"{path}: {error}") from error
