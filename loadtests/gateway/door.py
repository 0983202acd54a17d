"""A guarded door: a certificate, an API key or a JSON Web Token, and the gateway's settings for each."""

from __future__ import annotations

import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from headrace.gateway.access_keys import new_key
from loadtests.gateway.calling import Access

CALLER = "bench"
ISSUER, AUDIENCE = "https://issuer.example", "headrace"
LASTS = dt.timedelta(days=1)
POLICY = f"""
[[grants]]
callers = ["api-key:{CALLER}", "jwt:{CALLER}"]
pipelines = ["*"]
permissions = ["predict"]
"""


@dataclass(frozen=True)
class Door:
    """A guarded gateway: its settings, and what a client brings."""

    settings: dict[str, str]
    access: Access


def with_tls(directory: Path) -> Door:
    """TLS with a certificate of its own for 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "headrace bench")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + LASTS)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    shown, secret = directory / "gateway.crt", directory / "gateway.key"
    shown.write_bytes(certificate.public_bytes(Encoding.PEM))
    secret.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    settings = {"HEADRACE_GATEWAY_TLS_CERTIFICATE": str(shown), "HEADRACE_GATEWAY_TLS_KEY": str(secret)}
    return Door(settings, Access(root=shown))


def with_api_key(directory: Path) -> Door:
    """Callers are known by an API key."""
    made, stored = new_key(CALLER, now=dt.datetime.now(dt.UTC)), directory / "api_keys.toml"
    stored.write_text(made.table, encoding="utf-8")
    settings = {**_policy(directory), "HEADRACE_GATEWAY_ACCESS_API_KEYS": str(stored)}
    return Door(settings, Access(headers=(f"x-api-key={made.key}",)))


def with_token(directory: Path) -> Door:
    """Callers are known by a JSON Web Token."""
    key, public = ec.generate_private_key(ec.SECP256R1()), directory / "tokens.pem"
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    claims = {"sub": CALLER, "iss": ISSUER, "aud": AUDIENCE, "exp": dt.datetime.now(dt.UTC) + LASTS}
    token = jwt.encode(claims, key, algorithm="ES256")
    settings = {
        **_policy(directory),
        "HEADRACE_GATEWAY_ACCESS_JWT_KEYS": str(public),
        "HEADRACE_GATEWAY_ACCESS_JWT_ISSUER": ISSUER,
        "HEADRACE_GATEWAY_ACCESS_JWT_AUDIENCE": AUDIENCE,
    }
    return Door(settings, Access(headers=(f"authorization=Bearer {token}",)))


def _policy(directory: Path) -> dict[str, str]:
    file = directory / "access_policy.toml"
    file.write_text(POLICY, encoding="utf-8")
    return {"HEADRACE_GATEWAY_ACCESS_POLICY": str(file)}
