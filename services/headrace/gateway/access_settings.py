"""Settings of the gateway's door: who is let in, by what, and how long a connection may stay."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from pydantic import Field

from headrace.gateway.access_files import AccessFiles
from headrace.gateway.tls import TlsFiles
from headrace.platform.errors import OperatorError
from headrace.platform.settings import Settings, variable


class DoorError(OperatorError):
    """The door's settings do not go together; the message names them."""


class DoorSettings(Settings):
    """Settings of the door, as a part of the gateway's."""

    tls_certificate: Path | None = None
    """PEM file of the certificate to show, followed by those between it and the root; without it there is no TLS."""

    tls_key: Path | None = None
    """PEM file of the certificate's private key, not encrypted."""

    tls_client_ca: Path | None = None
    """PEM file of the authorities of client certificates; every client must then have one of theirs."""

    access_policy: Path | None = None
    """TOML file that says which callers may do what; without it everyone may do everything."""

    access_api_keys: Path | None = None
    """TOML file of the hashes of API keys; `headrace keys api-key` adds one."""

    access_jwt_keys: Path | None = None
    """Public key of JSON Web Tokens: one in PEM, or a JSON Web Key Set. RSA, P-256 or Ed25519."""

    access_jwt_issuer: str = ""
    """The only issuer of tokens that is accepted."""

    access_jwt_audience: str = ""
    """Audience that a token must name."""

    access_jwt_roles_claim: str = "roles"
    """Claim of a token that has its roles: a list, or words in one text."""

    access_jwt_leeway_s: float = Field(default=30.0, ge=0, le=600)
    """How far the clocks of issuer and gateway may be apart, in seconds."""

    allow_insecure: bool = False
    """Whether to listen beyond this machine without TLS or without a policy: for a network that keeps strangers out by
    itself (a service mesh, a container's private network)."""

    connection_idle_s: float = Field(default=300.0, gt=0, le=86_400)
    """How long a connection may be open without a call before it is closed, in seconds."""

    connection_age_s: float = Field(default=3600.0, gt=0, le=31_536_000)
    """How old a connection may grow before its client is asked to open a new one, in seconds; calls and streams under
    way are not cut off."""

    def tls_files(self) -> TlsFiles | None:
        """Files of TLS; None where it is off.

        Raises:
            DoorError: one is named without another that it needs.
        """
        if self.tls_certificate is None or self.tls_key is None:
            given = [name for name in ("tls_certificate", "tls_key", "tls_client_ca") if getattr(self, name)]
            if given:
                needed = self._variables(*({"tls_certificate", "tls_key"} - set(given)))
                raise DoorError(f"{self._variables(*given)} is set without {needed}")
            return None
        return TlsFiles(self.tls_certificate, self.tls_key, self.tls_client_ca)

    def access_files(self) -> AccessFiles:
        """Files of access.

        Raises:
            DoorError: one is named without another that it needs.
        """
        means = [name for name in ("access_jwt_keys", "access_api_keys", "tls_client_ca") if getattr(self, name)]
        credentials = [name for name in means if name != "tls_client_ca"]
        if credentials and self.access_policy is None:
            raise DoorError(f"{self._variables(*credentials)} is set without {self._variables('access_policy')}")
        if self.access_policy is not None and not means:
            any_of = self._variables("access_jwt_keys", "access_api_keys", "tls_client_ca")
            raise DoorError(f"{self._variables('access_policy')} is set, but nothing to know callers by: {any_of}")
        missing = [name for name in ("access_jwt_issuer", "access_jwt_audience") if not getattr(self, name)]
        if self.access_jwt_keys is not None and missing:
            raise DoorError(f"{self._variables('access_jwt_keys')} is set without {self._variables(*missing)}")
        return AccessFiles(
            self.access_policy,
            self.access_api_keys,
            self.access_jwt_keys,
            self.access_jwt_issuer,
            self.access_jwt_audience,
            self.access_jwt_roles_claim,
            self.access_jwt_leeway_s,
        )

    def check_exposure(self, host: str) -> None:
        """Check that an address may be listened on with these settings.

        Raises:
            DoorError: it is reachable from other machines, and TLS or the policy is off.
        """
        if self.allow_insecure or is_loopback(host):
            return
        missing = [name for name in ("tls_certificate", "tls_key", "access_policy") if getattr(self, name) is None]
        if missing:
            raise DoorError(
                f"{host} is reached from other machines: set {self._variables(*missing)}, or "
                f"{self._variables('allow_insecure')}=true where the network keeps strangers out"
            )

    def _variables(self, *fields: str) -> str:
        return " and ".join(variable(type(self), field) for field in sorted(fields))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; a name other than localhost may be anything."""
    if host == "localhost" or host.startswith("unix:"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
