"""The gateway's door: access and TLS together, checked before anything listens."""

from __future__ import annotations

from collections.abc import Iterable

from headrace.gateway.access_control import AccessControl
from headrace.gateway.access_settings import DoorSettings
from headrace.gateway.audit import Audit
from headrace.gateway.tls import Certificates


class Door:
    """What every transport of the gateway asks.

    Args:
        settings: of the door.
        deployed: name of the pipeline that this gateway serves.
        hosts: addresses that will be listened on.

    Raises:
        DoorError: the settings do not go together, or would let strangers in.
        AccessFileError: a file of access is not fit.
        TlsError: a certificate or key is not fit.
    """

    def __init__(self, settings: DoorSettings, deployed: str, hosts: Iterable[str]) -> None:
        self.settings = settings
        tls_files, access_files = settings.tls_files(), settings.access_files()
        for host in hosts:
            settings.check_exposure(host)
        self.certificates = Certificates(tls_files) if tls_files is not None else None
        self.control = AccessControl(access_files, deployed, Audit(deployed))
