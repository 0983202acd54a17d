"""JSON Web Tokens: signature and claims.

The algorithm follows from the key, never from the token: RSA is RS256, P-256 is ES256, Ed25519 is EdDSA. A token that
names another one, or none, is refused, and so a public key can never be taken for a shared secret.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from headrace.gateway.access_policy import PolicyError
from headrace.gateway.errors import UnauthenticatedError

MAX_TOKEN_CHARACTERS = 8192
MAX_SUBJECT_CHARACTERS = 256
MAX_ROLES = 100
LEAST_RSA_BITS = 2048
ALGORITHMS = ("RS256", "ES256", "EdDSA")
REQUIRED = ("exp", "iss", "aud", "sub")

_REASONS: tuple[tuple[type[Exception], str, str], ...] = (
    (jwt.ExpiredSignatureError, "expired", "it has expired"),
    (jwt.ImmatureSignatureError, "not_yet_valid", "it is not valid yet"),
    (jwt.InvalidAudienceError, "wrong_audience", "it is for another audience"),
    (jwt.InvalidIssuerError, "wrong_issuer", "it is of another issuer"),
    (jwt.MissingRequiredClaimError, "missing_claim", f"it must have {', '.join(REQUIRED)}"),
    (jwt.InvalidSignatureError, "bad_signature", "its signature does not fit"),
)


class TokenKey(NamedTuple):
    """A public key, with the one algorithm that it is used by."""

    key: RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
    algorithm: str


class VerifiedToken(NamedTuple):
    """What a token says that was verified.

    Attributes:
        subject: whom it is about.
        roles: that he has.
        expires_s: when it ends, the leeway included, as Unix time in seconds.
    """

    subject: str
    roles: tuple[str, ...]
    expires_s: float


class Tokens:
    """Verifies tokens.

    Args:
        keys: by key id; the single key of a PEM file has the id "".
        issuer: the only one accepted.
        audience: that a token must be for.
        roles_claim: claim that has the roles: a list of texts, or one text with spaces between them.
        leeway_s: how far clocks may be apart, in seconds.
    """

    def __init__(
        self, keys: Mapping[str, TokenKey], *, issuer: str, audience: str, roles_claim: str, leeway_s: float
    ) -> None:
        self._keys = dict(keys)
        self._issuer = issuer
        self._audience = audience
        self._roles_claim = roles_claim
        self._leeway_s = leeway_s

    def verify(self, token: str) -> VerifiedToken:
        """Verify a token.

        Raises:
            UnauthenticatedError: it is not accepted; says why.
        """
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise _refused("too_large", f"it has more than {MAX_TOKEN_CHARACTERS} characters")
        try:
            header = jwt.get_unverified_header(token)
            key = self._key(header.get("kid"))
            if header.get("alg") != key.algorithm:
                raise _refused("wrong_algorithm", f"its algorithm must be {key.algorithm}")
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=self._leeway_s,
                options={"require": list(REQUIRED)},
            )
            return VerifiedToken(_subject(claims), self._roles(claims), int(claims["exp"]) + self._leeway_s)
        except jwt.PyJWTError as error:
            for kind, reason, words in _REASONS:
                if isinstance(error, kind):
                    raise _refused(reason, words) from error
            raise _refused("bad_token", "it is no token that can be read") from error
        except (ValueError, TypeError, OverflowError, RecursionError, AttributeError, KeyError) as error:
            # The library reads what strangers wrote before it checks the signature.
            raise _refused("bad_token", "it is no token that can be read") from error

    def _key(self, key_id: object) -> TokenKey:
        if "" in self._keys:
            return self._keys[""]
        if key_id is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        found = self._keys.get(key_id) if isinstance(key_id, str) else None
        if found is None:
            raise _refused("unknown_key", "its key id (`kid`) is not known here")
        return found

    def _roles(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        found = claims.get(self._roles_claim, ())
        if isinstance(found, str):
            found = found.split()
        if not isinstance(found, Sequence) or len(found) > MAX_ROLES or not all(isinstance(one, str) for one in found):
            raise _refused("bad_roles", f"its claim {self._roles_claim} must be a list of at most {MAX_ROLES} texts")
        return tuple(found)


def _subject(claims: Mapping[str, Any]) -> str:
    subject = claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_CHARACTERS or not subject.isprintable():
        raise _refused("bad_subject", f"its subject must be 1 to {MAX_SUBJECT_CHARACTERS} printable characters")
    return subject


def _refused(reason: str, words: str) -> UnauthenticatedError:
    return UnauthenticatedError(reason, f"the token is not accepted: {words}")


def token_keys(content: bytes) -> dict[str, TokenKey]:
    """The keys in the bytes of a file: one public key in PEM, or a JSON Web Key Set.

    Raises:
        PolicyError: it is neither, or has a key that is not to be used: secret, private, short, of another kind.
    """
    if content.lstrip().startswith(b"-----BEGIN"):
        try:
            return {"": _pinned(serialization.load_pem_public_key(content))}
        except (ValueError, UnsupportedAlgorithm) as error:
            raise PolicyError(f"no public key in PEM: {error}") from error
    try:
        found = json.loads(content)
        entries = found["keys"]
        if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
            raise TypeError("`keys` is no list of keys")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise PolicyError("neither a public key in PEM nor a JSON Web Key Set") from error
    keys: dict[str, TokenKey] = {}
    for number, entry in enumerate(entries):
        try:
            key_id, key = _of_set(entry)
        except PolicyError as error:
            raise PolicyError(f"keys.{number}: {error}") from error
        if key_id in keys:
            raise PolicyError(f"keys.{number}: kid {key_id!r} comes twice")
        keys[key_id] = key
    if not keys:
        raise PolicyError("keys: the set is empty")
    return keys


def _of_set(entry: Mapping[str, Any]) -> tuple[str, TokenKey]:
    key_id = entry.get("kid")
    if not isinstance(key_id, str) or not key_id:
        raise PolicyError("it has no kid")
    if entry.get("kty") == "oct" or "d" in entry:
        raise PolicyError("it is a secret or private key; only public keys belong here")
    if entry.get("use", "sig") != "sig":
        raise PolicyError("its use is not sig")
    try:
        key = _pinned(jwt.PyJWK.from_dict(dict(entry)).key)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError) as error:
        raise PolicyError(f"it cannot be read: {error}") from error
    if entry.get("alg", key.algorithm) != key.algorithm:
        raise PolicyError(f"its alg must be {key.algorithm}")
    return key_id, key


def _pinned(key: object) -> TokenKey:
    if isinstance(key, RSAPublicKey):
        if key.key_size < LEAST_RSA_BITS:
            raise PolicyError(f"an RSA key of {key.key_size} bits; at least {LEAST_RSA_BITS} are needed")
        return TokenKey(key, "RS256")
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return TokenKey(key, "ES256")
    if isinstance(key, Ed25519PublicKey):
        return TokenKey(key, "EdDSA")
    raise PolicyError("the key must be RSA, P-256 or Ed25519")
