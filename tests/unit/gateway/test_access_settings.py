"""What of the door's settings goes together, and where it may be open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.gateway.access_settings import DoorError, is_loopback
from headrace.gateway.settings import GatewaySettings

FILE = Path("file.pem")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "localhost", "::1", "[::1]", "unix:/run/gateway"])
def test_this_machine_alone_needs_no_guard(host: str) -> None:
    assert is_loopback(host)
    GatewaySettings().check_exposure(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "::", "10.0.0.7", "gateway", "localhost.evil.example", "", "*"])
def test_beyond_this_machine_there_is_tls_and_a_policy(host: str) -> None:
    guarded: dict[str, Any] = {"tls_certificate": FILE, "tls_key": FILE, "access_policy": FILE}
    assert not is_loopback(host)
    GatewaySettings(**guarded).check_exposure(host)
    GatewaySettings(allow_insecure=True).check_exposure(host)
    with pytest.raises(DoorError) as refused:
        GatewaySettings().check_exposure(host)
    for name in (*guarded, "allow_insecure"):
        assert f"HEADRACE_GATEWAY_{name.upper()}" in str(refused.value)
    assert "\n" not in str(refused.value)
    for left_out in guarded:
        with pytest.raises(DoorError, match=left_out.upper()):
            GatewaySettings(**{name: file for name, file in guarded.items() if name != left_out}).check_exposure(host)


@given(host=st.ip_addresses(v=4))
def test_only_the_loopback_network_is_this_machine(host: object) -> None:
    assert is_loopback(str(host)) == str(host).startswith("127.")


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"tls_certificate": FILE}, "TLS_KEY"),
        ({"tls_key": FILE}, "TLS_CERTIFICATE"),
        ({"tls_client_ca": FILE}, "TLS_CERTIFICATE and HEADRACE_GATEWAY_TLS_KEY"),
        ({"access_api_keys": FILE}, "ACCESS_POLICY"),
        ({"access_jwt_keys": FILE}, "ACCESS_POLICY"),
        ({"access_policy": FILE}, "nothing to know callers by"),
        ({"access_policy": FILE, "access_jwt_keys": FILE}, "ACCESS_JWT_AUDIENCE and .*ACCESS_JWT_ISSUER"),
        ({"access_policy": FILE, "access_jwt_keys": FILE, "access_jwt_issuer": "i"}, "ACCESS_JWT_AUDIENCE$"),
    ],
)
def test_what_does_not_go_together_is_named(given: dict[str, Any], missing: str) -> None:
    settings = GatewaySettings(**given)
    with pytest.raises(DoorError, match=missing):
        (settings.tls_files(), settings.access_files())


def test_nothing_set_is_open_and_without_tls() -> None:
    assert GatewaySettings().tls_files() is None
    assert GatewaySettings().access_files().policy is None
