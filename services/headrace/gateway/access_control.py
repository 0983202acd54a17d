"""The door: who calls, what he asks for, and a line in the audit log where he may not have it.

Every transport asks here, with the credentials that it found. While access is open to all (`open`) it need not.
"""

from __future__ import annotations

import asyncio

from headrace.gateway.access import Access, Caller, Credentials, OpenAccess
from headrace.gateway.access_files import AccessFileError, AccessFiles
from headrace.gateway.audit import Audit
from headrace.gateway.errors import GatewayError, PermissionDeniedError, UnauthenticatedError
from headrace.gateway.metrics import ACCESS_RELOAD_FAILURES
from headrace.platform.logging import get_logger

LOOK_S = 1.0


class AccessControl:
    """Access by files that are read again when they change.

    Args:
        files: that access goes by.
        deployed: name of the pipeline that this gateway serves.
        audit: is told of what was denied.

    Raises:
        AccessFileError: a file is not fit.
    """

    def __init__(self, files: AccessFiles, deployed: str, audit: Audit) -> None:
        self._files = files
        self._deployed = deployed
        self.audit = audit
        self._seen = files.fingerprint()
        self.access: Access = files.read(deployed)
        self.open = isinstance(self.access, OpenAccess)
        """Whether everyone may do everything."""

    def caller(self, credentials: Credentials) -> Caller:
        """Whoever makes a call; for a stream to be asked anew with each message, so that what expires or is taken away
        ends it.

        Raises:
            UnauthenticatedError: he is not known.
        """
        return self.access.caller(credentials)

    def denied(self, error: GatewayError, method: str, peer: str) -> None:
        """A call ended with an error: to be noted if that is for who made it.

        Args:
            error: it ended with.
            method: that was called.
            peer: address that it came from.
        """
        if isinstance(error, UnauthenticatedError):
            self.audit.denied(method, error.reason, caller="", peer=peer)
        elif isinstance(error, PermissionDeniedError):
            self.audit.denied(method, f"lacks {error.permission}", caller=error.caller, peer=peer)

    async def run(self) -> None:
        """Follow the files and write the counts of the audit log, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.audit.flush()
            self.refresh()

    def refresh(self) -> None:
        """Read the files again if they changed. What is not fit is logged once; what was read before stays in use."""
        found = self._files.fingerprint()
        if found == self._seen:
            return
        self._seen = found
        try:
            self.access = self._files.read(self._deployed)
        except AccessFileError as error:
            ACCESS_RELOAD_FAILURES.inc()
            get_logger().error("changed access files not taken; the former ones stay in use", reason=str(error))
        else:
            get_logger().info("access files read again")
