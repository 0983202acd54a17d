"""The door as a whole: each address is looked at, and what cannot be is said before anything listens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace.gateway.access_door import Door
from headrace.gateway.access_grpc import MAX_METADATA_BYTES, connection_options
from headrace.gateway.access_settings import DoorError
from headrace.gateway.settings import GatewaySettings
from headrace.gateway.tls import TlsError
from tests.certificates import Authority

POLICY = '[[grants]]\ncallers = ["certificate:a"]\npipelines = ["*"]\npermissions = ["predict"]\n'


def test_every_address_is_looked_at() -> None:
    Door(GatewaySettings(), "fraud", ["127.0.0.1", "::1"])
    for hosts in (["127.0.0.1", "0.0.0.0"], ["10.0.0.7"]):
        with pytest.raises(DoorError, match="reached from other machines"):
            Door(GatewaySettings(), "fraud", hosts)
        Door(GatewaySettings(allow_insecure=True), "fraud", hosts)


def test_the_address_of_http_counts_where_it_is_served() -> None:
    assert GatewaySettings(grpc_host="::1", http_host="0.0.0.0").hosts == ("::1",)
    assert GatewaySettings(grpc_host="::1", http_host="0.0.0.0", http_port=0).hosts == ("::1", "0.0.0.0")


def test_a_guarded_door_may_be_anywhere(tmp_path: Path) -> None:
    authority = Authority.create("authority")
    certificate, key = authority.server().write(tmp_path, "server")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    (tmp_path / "policy.toml").write_text(POLICY)
    named: dict[str, Any] = {
        "tls_certificate": certificate,
        "tls_key": key,
        "tls_client_ca": tmp_path / "ca.pem",
        "access_policy": tmp_path / "policy.toml",
    }
    door = Door(GatewaySettings(**named), "fraud", ["0.0.0.0"])
    assert door.certificates is not None
    assert door.certificates.client_certificate_required
    assert not door.control.open
    # Allowed to be insecure is not insecure: what is set holds.
    door = Door(GatewaySettings(**named, allow_insecure=True), "fraud", ["0.0.0.0"])
    assert not door.control.open
    key.unlink()
    with pytest.raises(TlsError, match="cannot read"):
        Door(GatewaySettings(**named), "fraud", ["0.0.0.0"])


def test_connections_are_bounded() -> None:
    options = dict(connection_options(GatewaySettings(connection_idle_s=7, connection_age_s=9)))
    assert options["grpc.max_connection_idle_ms"] == 7000
    assert options["grpc.max_connection_age_ms"] == 9000
    assert options["grpc.absolute_max_metadata_size"] == MAX_METADATA_BYTES
    assert "grpc.max_connection_age_grace_ms" not in options, "streams are not cut off"
