"""Tokens: the good ones are read, and no bad one of any kind is taken."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.gateway.access_policy import PolicyError
from headrace.gateway.access_tokens import MAX_TOKEN_CHARACTERS, Tokens, token_keys
from headrace.gateway.errors import UnauthenticatedError

ISSUER, AUDIENCE, LEEWAY_S = "https://issuer.example", "headrace", 30.0
PRIVATE: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
STRANGERS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def pem(algorithm: str) -> bytes:
    public: bytes = PRIVATE[algorithm].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return public


def jwk(algorithm: str, key_id: str) -> dict[str, Any]:
    kind = jwt.get_algorithm_by_name(algorithm)
    described: dict[str, Any] = json.loads(kind.to_jwk(PRIVATE[algorithm].public_key()))
    return described | {"kid": key_id}


def tokens(content: bytes) -> Tokens:
    return Tokens(token_keys(content), issuer=ISSUER, audience=AUDIENCE, roles_claim="roles", leeway_s=LEEWAY_S)


VERIFIER = tokens(pem("ES256"))


def claims(**changed: Any) -> dict[str, Any]:
    """Those of a good token; None leaves one out."""
    made = {"sub": "checkout", "iss": ISSUER, "aud": AUDIENCE, "exp": int(time.time()) + 60} | changed
    return {name: value for name, value in made.items() if value is not None}


def signed(payload: dict[str, Any], algorithm: str = "ES256", *, key: Any = None, kid: str | None = None) -> str:
    headers = {"kid": kid} if kid is not None else None
    return jwt.encode(payload, key or PRIVATE[algorithm], algorithm, headers=headers)


def part(content: Any) -> str:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def by_hand(header: Any, payload: Any, *, private: ec.EllipticCurvePrivateKey) -> str:
    """A token that no library would make, with a true ES256 signature."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    text = f"{part(header)}.{part(payload)}"
    r, s = decode_dss_signature(private.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{text}.{part(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def reason(verifier: Tokens, token: str) -> str:
    with pytest.raises(UnauthenticatedError) as refused:
        verifier.verify(token)
    assert token[20:60] not in str(refused.value) or len(token) < 60, "a token is never told again"
    return refused.value.reason


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_good_token_is_read(algorithm: str) -> None:
    verifier = tokens(pem(algorithm))
    found = verifier.verify(signed(claims(roles=["analyst", "lead"], exp=2_000_000_000), algorithm))
    assert (found.subject, found.roles) == ("checkout", ("analyst", "lead"))
    assert found.expires_s == 2_000_000_000 + LEEWAY_S
    assert verifier.verify(signed(claims(roles="analyst lead"), algorithm)).roles == ("analyst", "lead")
    assert verifier.verify(signed(claims(aud=["other", AUDIENCE]), algorithm)).roles == ()
    assert reason(verifier, signed(claims(), algorithm, key=STRANGERS[algorithm])) == "bad_signature"


def test_clocks_may_be_apart_by_the_leeway() -> None:
    now = int(time.time())
    assert VERIFIER.verify(signed(claims(exp=now - 20))).subject == "checkout"
    assert VERIFIER.verify(signed(claims(nbf=now + 20, iat=now + 20))).subject == "checkout"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"exp": int(time.time()) - 40}, "expired"),
        ({"exp": 0}, "expired"),
        ({"exp": None}, "missing_claim"),
        ({"exp": "soon"}, "bad_token"),
        ({"nbf": int(time.time()) + 400}, "not_yet_valid"),
        ({"iat": int(time.time()) + 400}, "not_yet_valid"),
        ({"aud": "other"}, "wrong_audience"),
        ({"aud": ["other", "another"]}, "wrong_audience"),
        ({"aud": []}, "missing_claim"),
        ({"aud": None}, "missing_claim"),
        ({"iss": "https://issuer.example.evil"}, "wrong_issuer"),
        ({"iss": None}, "missing_claim"),
        ({"sub": None}, "missing_claim"),
        ({"sub": ""}, "bad_subject"),
        ({"sub": "a\nb"}, "bad_subject"),
        ({"sub": "x" * 257}, "bad_subject"),
        ({"roles": 7}, "bad_roles"),
        ({"roles": [7]}, "bad_roles"),
        ({"roles": ["x"] * 101}, "bad_roles"),
    ],
)
def test_claims_that_are_not_accepted(changed: dict[str, Any], expected: str) -> None:
    assert reason(VERIFIER, signed(claims(**changed))) == expected


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_no_algorithm_but_that_of_the_key(algorithm: str) -> None:
    verifier = tokens(pem(algorithm))
    unsigned = f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims())}."
    assert reason(verifier, unsigned) == "wrong_algorithm"
    assert reason(verifier, unsigned.replace(part({"alg": "none", "typ": "JWT"}), part({"alg": "None"}))) == (
        "wrong_algorithm"
    )
    for secret in (pem(algorithm), pem(algorithm).strip(), b"", b"secret"):
        text = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims())}"
        confused = f"{text}.{part(hmac.digest(secret or b'-', text.encode(), hashlib.sha256))}"
        assert reason(verifier, confused) == "wrong_algorithm"
    for other in {"RS256", "ES256", "EdDSA"} - {algorithm}:
        assert reason(verifier, signed(claims(), other)) == "wrong_algorithm"
    for header in ({}, {"alg": None}, {"alg": 7}, {"alg": [algorithm]}):
        assert reason(verifier, f"{part(header)}.{part(claims())}.{part(b'x' * 64)}") in {
            "wrong_algorithm",
            "bad_token",
        }


def test_the_library_is_held_to_the_algorithm_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What we read of a header and what the library reads must not differ to any use."""
    monkeypatch.setattr(jwt, "get_unverified_header", lambda _: {"alg": "ES256"})
    text = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims())}"
    confused = f"{text}.{part(hmac.digest(pem('ES256'), text.encode(), hashlib.sha256))}"
    with pytest.raises(UnauthenticatedError) as refused:
        VERIFIER.verify(confused)
    assert isinstance(refused.value.__cause__, jwt.InvalidAlgorithmError)


def test_a_key_set_goes_by_key_id() -> None:
    content = json.dumps({"keys": [jwk("RS256", "old"), jwk("ES256", "new"), jwk("EdDSA", "newest")]}).encode()
    verifier = tokens(content)
    for algorithm, kid in (("RS256", "old"), ("ES256", "new"), ("EdDSA", "newest")):
        assert verifier.verify(signed(claims(), algorithm, kid=kid)).subject == "checkout"
        assert reason(verifier, signed(claims(), algorithm, kid="other")) == "unknown_key"
        assert reason(verifier, signed(claims(), algorithm)) == "unknown_key"
    assert reason(verifier, signed(claims(), "RS256", kid="new")) == "wrong_algorithm"
    single = tokens(json.dumps({"keys": [jwk("ES256", "new")]}).encode())
    assert single.verify(signed(claims())).subject == "checkout"
    # Where a token says its key is, or what it is, nobody looks.
    for header in ({"jku": "http://127.0.0.1/keys"}, {"jwk": jwk("ES256", "new")}, {"x5u": "http://127.0.0.1/"}):
        token = jwt.encode(claims(), STRANGERS["ES256"], "ES256", headers=header)
        assert reason(single, token) == "bad_signature"


def test_huge_and_deep_tokens_are_refused_quickly() -> None:
    began = time.process_time()
    assert reason(VERIFIER, signed(claims(more="x" * MAX_TOKEN_CHARACTERS))) == "too_large"
    assert reason(VERIFIER, "a" * 10_000_000) == "too_large"
    deep = b"[" * 4000 + b"]" * 1000
    assert reason(VERIFIER, f"{part(deep)}.{part(claims())}.x") == "bad_token"
    assert reason(VERIFIER, by_hand({"alg": "ES256"}, deep, private=PRIVATE["ES256"])) in {"bad_token", "too_large"}
    assert time.process_time() - began < 1.0


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150)
@given(token=st.text(max_size=300) | st.lists(st.text("abAB01-_=", max_size=40), max_size=5).map(".".join))
@example("")
@example("..")
@example("\ud800.\ud800.\ud800")
@example("a.b.c\x00")
def test_garbage_is_refused_and_nothing_worse(token: str) -> None:
    reason(VERIFIER, token)


@settings(max_examples=100)
@given(
    header=ANYTHING, name=st.sampled_from(["exp", "nbf", "iat", "aud", "iss", "sub", "jti", "roles"]), value=ANYTHING
)
@example({"alg": "ES256"}, "exp", float("inf"))
@example({"alg": "ES256"}, "exp", float("nan"))
@example({"alg": "ES256"}, "exp", 10**400)
@example({"alg": "ES256", "crit": ["b64"], "b64": False}, "jti", "x")
@example({"alg": "ES256", "crit": ["unknown"], "unknown": 1}, "jti", "x")
def test_odd_but_signed_tokens_are_taken_or_refused(header: Any, name: str, value: Any) -> None:
    """The issuer itself may be odd: an answer comes all the same, and what it must have it has."""
    for of in (header, {"alg": "ES256", "kid": value}, {"alg": "ES256"}):
        payload = claims()
        payload[name] = value
        token = by_hand(of, payload, private=PRIVATE["ES256"])
        try:
            found = VERIFIER.verify(token)
        except UnauthenticatedError:
            continue
        assert found.subject
        assert found.expires_s > time.time()
        assert all(isinstance(role, str) for role in found.roles)
        assert not isinstance(of, dict) or "crit" not in of


def test_critical_headers_are_refused() -> None:
    for header in ({"alg": "ES256", "crit": ["b64"], "b64": False}, {"alg": "ES256", "crit": ["new"], "new": 1}):
        assert reason(VERIFIER, by_hand(header, claims(), private=PRIVATE["ES256"])) == "bad_token"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "neither"),
        (b"[]", "neither"),
        (b'{"keys": 7}', "neither"),
        (b'{"keys": []}', "empty"),
        (b'{"keys": [7]}', "neither"),
        (b"[" * 100_000, "neither"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "no public key"),
        (json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "a"}]}).encode(), "secret or private"),
        (json.dumps({"keys": [jwk("ES256", "a") | {"d": "AAAA"}]}).encode(), "secret or private"),
        (json.dumps({"keys": [jwk("ES256", "a") | {"use": "enc"}]}).encode(), "use"),
        (json.dumps({"keys": [jwk("ES256", "a") | {"alg": "HS256"}]}).encode(), "keys.0"),
        (json.dumps({"keys": [jwk("RS256", "a") | {"alg": "PS256"}]}).encode(), "RS256"),
        (json.dumps({"keys": [jwk("ES256", "a"), jwk("RS256", "a")]}).encode(), "twice"),
        (json.dumps({"keys": [{"kty": "EC", "kid": "a"}]}).encode(), "cannot be read"),
        (json.dumps({"keys": [{"kty": "RSA"}]}).encode(), "no kid"),
    ],
)
def test_key_files_that_are_not_fit(content: bytes, said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        token_keys(content)


def test_weak_and_other_keys_are_refused() -> None:
    short = rsa.generate_private_key(65537, 1024).public_key()
    other = ec.generate_private_key(ec.SECP384R1()).public_key()
    for key, said in ((short, "1024 bits"), (other, "P-256")):
        with pytest.raises(PolicyError, match=said):
            token_keys(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
