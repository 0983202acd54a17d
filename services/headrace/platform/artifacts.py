"""Write-once store of artifacts on a directory: an artifact is there whole or not at all, and never changes.

A reference is relative to the store (`artifact:<name>`), so that another machine that mounts the same directory
elsewhere can follow it.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from typing import TYPE_CHECKING, NamedTuple

from headrace.platform.errors import OperatorError

if TYPE_CHECKING:
    from pathlib import Path

SCHEME = "artifact:"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]*(/[A-Za-z0-9][A-Za-z0-9._+=-]*)*")


class ArtifactError(OperatorError):
    """An artifact cannot be written or read; the message names it."""


class ArtifactMissing(ArtifactError):
    """There is no such artifact."""


class ArtifactCorrupt(ArtifactError):
    """The bytes do not have the hash they should have."""


class ArtifactConflict(ArtifactError):
    """The name is taken by other bytes."""


class ArtifactRef(NamedTuple):
    """What finds an artifact and proves that it is the right one."""

    uri: str
    sha256: str
    """Hexadecimal, lower case."""
    size: int
    """Bytes."""


class ArtifactStore:
    """Artifacts below a directory, which is created at the first write."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def put(self, name: str, content: bytes) -> ArtifactRef:
        """Store bytes under a name that is not taken. Storing the same bytes again is no error.

        Blocks for two fsyncs; call it in a thread from a coroutine.

        Args:
            name: relative path: letters, digits and `._+=-`, parts separated by `/`.
            content: the bytes.

        Raises:
            ArtifactConflict: the name is taken by other bytes.
            ArtifactError: the name is not allowed, or the directory cannot be written.
        """
        reference = ArtifactRef(f"{SCHEME}{name}", hashlib.sha256(content).hexdigest(), len(content))
        path = self._path(name)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with draft.open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                # A link fails when the name is taken, which a rename would silently replace.
                os.link(draft, path)
            except FileExistsError:
                if path.read_bytes() != content:
                    raise ArtifactConflict(f"artifact {name} exists with other content") from None
            finally:
                draft.unlink(missing_ok=True)
            _sync_directory(path.parent)
        except OSError as error:
            raise ArtifactError(f"cannot write artifact {name}: {error.strerror}") from error
        return reference

    def get(self, uri: str, sha256: str) -> bytes:
        """Read an artifact and check its hash.

        Raises:
            ArtifactMissing: there is none.
            ArtifactCorrupt: the bytes have another hash.
            ArtifactError: the reference is not one of this store, or the file cannot be read.
        """
        path = self.path(uri)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise ArtifactMissing(f"{uri} is not in {self.directory}") from None
        except OSError as error:
            raise ArtifactError(f"cannot read {uri}: {error.strerror}") from error
        found = hashlib.sha256(content).hexdigest()
        if found != sha256.lower():
            raise ArtifactCorrupt(f"{uri} has SHA-256 {found}, not {sha256}")
        return content

    def delete(self, uri: str) -> None:
        """Remove an artifact; it is no error when it is gone already.

        Raises:
            ArtifactError: the reference is not one of this store, or the file cannot be removed.
        """
        path = self.path(uri)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise ArtifactError(f"cannot delete {uri}: {error.strerror}") from error

    def children(self, name: str) -> list[str]:
        """Names directly below a name, without order: of artifacts, and of the parts that hold them; drafts left out.

        Args:
            name: relative path, as for `put`.

        Raises:
            ArtifactError: the name is not allowed, or the directory cannot be read.
        """
        try:
            with os.scandir(self._path(name)) as entries:
                return [entry.name for entry in entries if not entry.name.startswith(".")]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise ArtifactError(f"cannot list {name}: {error.strerror}") from error

    def read(self, name: str) -> bytes:
        """Read an artifact that says itself whether it is whole: one that is signed, say.

        Args:
            name: relative path, as for `put`.

        Raises:
            ArtifactMissing: there is none.
            ArtifactError: the name is not allowed, or the file cannot be read.
        """
        try:
            return self._path(name).read_bytes()
        except FileNotFoundError:
            raise ArtifactMissing(f"{name} is not in {self.directory}") from None
        except OSError as error:
            raise ArtifactError(f"cannot read {name}: {error.strerror}") from error

    def written_s(self, name: str) -> float:
        """When the first of the artifacts directly below a name was written, seconds since 1970; 0 when there is none.

        Raises:
            ArtifactError: the name is not allowed, or the directory cannot be read.
        """
        try:
            with os.scandir(self._path(name)) as entries:
                return min((entry.stat().st_mtime for entry in entries), default=0.0)
        except FileNotFoundError:
            return 0.0
        except OSError as error:
            raise ArtifactError(f"cannot list {name}: {error.strerror}") from error

    def delete_all(self, name: str) -> None:
        """Remove every artifact directly below a name, and drafts that a crash left there; none need be there.

        Raises:
            ArtifactError: the name is not allowed, or a file cannot be removed.
        """
        directory = self._path(name)
        try:
            for file in [*directory.iterdir()] if directory.is_dir() else []:
                file.unlink(missing_ok=True)
            if directory.is_dir():
                directory.rmdir()
        except OSError as error:
            raise ArtifactError(f"cannot delete {name}: {error.strerror}") from error

    def path(self, uri: str) -> Path:
        """File of an artifact, whether it exists or not.

        Raises:
            ArtifactError: the reference is not one of this store.
        """
        if not uri.startswith(SCHEME):
            raise ArtifactError(f"{uri!r} is no artifact reference: it must start with {SCHEME}")
        return self._path(uri.removeprefix(SCHEME))

    def _path(self, name: str) -> Path:
        if not NAME.fullmatch(name):
            raise ArtifactError(
                f"artifact name {name!r} is not allowed: letters, digits and ._+=- in parts separated by /"
            )
        return self.directory / name


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
