"""Certificates: what is not fit is refused, what changes is followed, by Python's TLS too."""

from __future__ import annotations

import datetime as dt
import ssl
from pathlib import Path

import pytest
import structlog
from cryptography import x509
from cryptography.x509.oid import NameOID

from headrace.gateway.tls import Certificates, TlsError, TlsFiles, read_tls
from tests.certificates import Authority, Issued

AUTHORITY, STRANGER = Authority.create("authority"), Authority.create("stranger")
SERVER = AUTHORITY.server()


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    certificate, key = SERVER.write(tmp_path, "server")
    (tmp_path / "ca.pem").write_bytes(AUTHORITY.pem)
    return TlsFiles(certificate, key, tmp_path / "ca.pem")


def test_what_is_not_fit_is_named(files: TlsFiles) -> None:
    now = dt.datetime.now(dt.UTC)
    assert files.client_ca is not None
    read_tls(files, now)
    with pytest.raises(TlsError, match=r"server\.pem expired"):
        read_tls(files, now + dt.timedelta(days=2))
    wrong = [
        (files.certificate, b"", "no certificate"),
        (files.certificate, SERVER.key_pem, "no certificate"),
        (files.certificate, AUTHORITY.server("other").pem, "not the one"),
        (files.key, b"", "no"),
        (files.key, SERVER.pem, "private key"),
        (files.key, STRANGER.key_pem, "not the one"),
        (files.client_ca, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificate"),
    ]
    for path, content, said in wrong:
        fit = path.read_bytes()
        path.write_bytes(content)
        with pytest.raises(TlsError, match=said) as refused:
            Certificates(files)
        assert path.name in str(refused.value)
        assert "\n" not in str(refused.value)
        path.unlink()
        with pytest.raises(TlsError, match=f"cannot read .*{path.name}"):
            Certificates(files)
        path.write_bytes(fit)


def test_a_renewed_certificate_is_taken_and_an_unfit_one_is_not(files: TlsFiles, tmp_path: Path) -> None:
    certificates = Certificates(files)
    first = certificates.latest()
    renewed = AUTHORITY.server("renewed")
    with structlog.testing.capture_logs() as lines:
        # As by most tools: one file after the other, with time for handshakes between.
        files.certificate.write_bytes(renewed.pem)
        assert certificates.latest() is first
        assert certificates.latest() is first
        files.key.write_bytes(renewed.key_pem)
        assert certificates.latest().certificate == renewed.pem
    assert [one["log_level"] for one in lines] == ["error", "info"]
    # As a mounted secret: another file in its place.
    AUTHORITY.server("third").write(tmp_path, "next")
    (tmp_path / "next.pem").rename(files.certificate)
    (tmp_path / "next.key.pem").rename(files.key)
    assert certificates.latest().certificate not in {first.certificate, renewed.pem}


def handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> ssl.SSLObject:
    """Shake hands in memory; returns the client's side."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving = server.wrap_bio(to_server, to_client, server_side=True)
    calling = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    left = [calling, serving]
    for _ in range(10):
        for side in list(left):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            left.remove(side)
    assert not left
    return calling


def client_of(authority: Authority, tmp_path: Path, own: Issued | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.pem.decode())
    if own is not None:
        context.load_cert_chain(*own.write(tmp_path, "client"))
    return context


def subject(calling: ssl.SSLObject) -> str:
    shown = calling.getpeercert(binary_form=True)
    assert shown is not None
    name = x509.load_der_x509_certificate(shown).subject
    return str(name.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def test_pythons_tls_follows_the_files(files: TlsFiles, tmp_path: Path) -> None:
    context = Certificates(files).context()
    client = client_of(AUTHORITY, tmp_path, AUTHORITY.issue("caller"))
    assert subject(handshake(context, client)) == "gateway"
    for unknown in (client_of(AUTHORITY, tmp_path), client_of(AUTHORITY, tmp_path, STRANGER.issue("caller"))):
        with pytest.raises(ssl.SSLError, match=r"(?i)certificate"):
            handshake(context, unknown)
    AUTHORITY.server("renewed").write(tmp_path, "server")
    assert subject(handshake(context, client)) == "renewed"
    # Another authority of clients takes the place of the first.
    (tmp_path / "ca.pem").write_bytes(STRANGER.pem)
    handshake(context, client_of(AUTHORITY, tmp_path, STRANGER.issue("caller")))
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate"):
        handshake(context, client)
    files.key.write_bytes(b"")
    assert subject(handshake(context, client_of(AUTHORITY, tmp_path, STRANGER.issue("caller")))) == "renewed"


def test_old_tls_is_refused(files: TlsFiles, tmp_path: Path) -> None:
    assert Certificates(files).context().minimum_version == ssl.TLSVersion.TLSv1_2
