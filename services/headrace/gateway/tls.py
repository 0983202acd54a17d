"""The certificate that the gateway shows, and the authorities whose client certificates it takes.

Files are looked at again with every handshake, so that a renewed certificate needs no restart. What is wrong with new
files is logged once, and the former certificate stays in use.
"""

from __future__ import annotations

import datetime as dt
import ssl
import threading
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from headrace.gateway.access_files import fingerprint
from headrace.gateway.metrics import CERTIFICATE_EXPIRY
from headrace.platform.errors import OperatorError
from headrace.platform.logging import get_logger

ALPN_HTTP = ("http/1.1",)


class TlsError(OperatorError):
    """A certificate or key is not there, not readable, or not fit; the message names the file."""


class TlsFiles(NamedTuple):
    """Where they are, all in PEM.

    Attributes:
        certificate: the server's certificate, followed by those between it and the root.
        key: its private key, not encrypted.
        client_ca: authorities of client certificates; every client must then have one. None asks for none.
    """

    certificate: Path
    key: Path
    client_ca: Path | None = None


class TlsContent(NamedTuple):
    """What was in them, after all was checked."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None


def read_tls(files: TlsFiles, now: dt.datetime) -> TlsContent:
    """Read the files and check that they belong together.

    Raises:
        TlsError: they do not, or one is not there, not readable, or has expired.
    """
    content = TlsContent(
        _bytes(files.certificate), _bytes(files.key), _bytes(files.client_ca) if files.client_ca else None
    )
    leaf = _certificates(files.certificate, content.certificate)[0]
    if leaf.not_valid_after_utc <= now:
        raise TlsError(f"the certificate {files.certificate} expired on {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    try:
        key = serialization.load_pem_private_key(content.key, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise TlsError(f"{files.key} is not an unencrypted private key in PEM") from error
    if key.public_key() != leaf.public_key():
        raise TlsError(f"the key {files.key} is not the one of the certificate {files.certificate}")
    if files.client_ca is not None and content.client_ca is not None:
        _certificates(files.client_ca, content.client_ca)
    CERTIFICATE_EXPIRY.set(leaf.not_valid_after_utc.timestamp())
    return content


class Certificates:
    """The files as they are now. Safe to be asked from any thread.

    Args:
        files: to read.

    Raises:
        TlsError: they are not fit.
    """

    def __init__(self, files: TlsFiles) -> None:
        self.files = files
        self._lock = threading.Lock()
        self._seen = fingerprint(files)
        self._content = read_tls(files, dt.datetime.now(dt.UTC))

    @property
    def client_certificate_required(self) -> bool:
        """Whether every client must have a certificate."""
        return self.files.client_ca is not None

    def latest(self) -> TlsContent:
        """What the files have; what they had, while they are not fit."""
        with self._lock:
            found = fingerprint(self.files)
            if found != self._seen:
                self._seen = found
                try:
                    self._content = read_tls(self.files, dt.datetime.now(dt.UTC))
                except TlsError as error:
                    get_logger().error("new certificate not taken; the former one stays in use", reason=str(error))
                else:
                    get_logger().info("certificate read again", certificate=str(self.files.certificate))
            return self._content

    def context(self) -> ssl.SSLContext:
        """For a server by Python's `ssl` (HTTP). It follows the files like gRPC does.

        Raises:
            TlsError: the files changed just now and are not fit.
        """
        current = (self.latest(), self._build())

        def at_handshake(connection: ssl.SSLObject, _: str | None, __: ssl.SSLContext) -> None:
            nonlocal current
            content = self.latest()
            if content != current[0]:
                try:
                    current = (content, self._build())
                except TlsError as error:
                    get_logger().error("new certificate not taken; the former one stays in use", reason=str(error))
            connection.context = current[1]

        context = self._build()
        # Called with every handshake, also where the client names no server.
        context.sni_callback = at_handshake
        return context

    def _build(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(list(ALPN_HTTP))
        try:
            context.load_cert_chain(self.files.certificate, self.files.key)
            if self.files.client_ca is not None:
                context.load_verify_locations(self.files.client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
        except (OSError, ssl.SSLError) as error:
            raise TlsError(f"cannot use {self.files.certificate}: {error}") from error
        return context


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsError(f"cannot read {path}: {error.strerror}") from error


def _certificates(path: Path, content: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError as error:
        raise TlsError(f"{path} has no certificate in PEM") from error
