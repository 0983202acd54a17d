"""Callers: API keys, the policy, what is remembered of a token."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from headrace.gateway.access import ANYONE, Caller, Credentials, OpenAccess, PolicyAccess
from headrace.gateway.access_keys import ApiKeys, new_key, stored_keys
from headrace.gateway.access_policy import Permission, Policy, PolicyError
from headrace.gateway.access_tokens import VerifiedToken
from headrace.gateway.errors import PermissionDeniedError, UnauthenticatedError

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
POLICY = b"""
[[grants]]
callers = ["api-key:checkout", "jwt:checkout"]
pipelines = ["fraud"]
permissions = ["predict", "ingest"]
quota_rows_per_s = 100

[[grants]]
callers = ["role:analyst"]
pipelines = ["fraud*"]
permissions = ["features"]
quota_rows_per_s = 7.5

[[grants]]
callers = ["certificate:spiffe://mesh/ops"]
pipelines = ["*"]
permissions = ["admin"]

[[grants]]
callers = ["*"]
pipelines = ["public"]
permissions = ["predict"]
"""


class TokensOfATest:
    """Takes "SUBJECT", with a count of how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.roles: tuple[str, ...] = ()
        self.expires_s = 100.0

    def verify(self, token: str) -> VerifiedToken:
        self.asked += 1
        if token == "bad":
            raise UnauthenticatedError("bad_token", "no")
        return VerifiedToken(token, self.roles, self.expires_s)


def access(tokens: Any = None, keys: ApiKeys | None = None, deployed: str = "fraud", **more: Any) -> PolicyAccess:
    return PolicyAccess(Policy.parse(POLICY), deployed, tokens, keys, **more)


def why(made: PolicyAccess | ApiKeys, given: Any, *more: Any) -> str:
    with pytest.raises(UnauthenticatedError) as refused:
        made.caller(given) if isinstance(made, PolicyAccess) else made.verify(given, *more)
    return refused.value.reason


def test_open_access_lets_anyone_do_anything() -> None:
    assert OpenAccess().caller(Credentials()) is ANYONE
    for permission in Permission:
        ANYONE.check(permission)


def test_an_api_key_is_made_and_verified() -> None:
    made = new_key("checkout", (Permission.PREDICT,), NOW + dt.timedelta(days=1), now=NOW)
    keys = ApiKeys.parse(made.table.encode())
    now_s = NOW.timestamp()
    assert keys.verify(made.key, now_s) == ("checkout", frozenset({Permission.PREDICT}), now_s + 86_400)
    assert why(keys, made.key, now_s + 86_400) == "expired"
    _, _, secret = made.key.split("_", 2)
    assert secret not in made.table
    assert hashlib.sha256(secret.encode()).hexdigest() in made.table
    forever = new_key("checkout", now=NOW)
    found = ApiKeys.parse(forever.table.encode()).verify(forever.key, now_s)
    assert found == ("checkout", frozenset(Permission), math.inf)
    assert new_key("checkout", now=NOW).key != forever.key


@given(text=st.text(max_size=250))
@example("")
@example("hrk_")
@example("hrk__")
@example("hrk_checkout_")
@example("hrk_nobody_" + "x" * 43)
@example("hrk_nobody_" + "\ud800")
@example("hrk_checkout_" + "x" * 10_000)
def test_other_api_keys_are_refused(text: str) -> None:
    stored = new_key("checkout", now=NOW)
    keys = ApiKeys.parse(stored.table.encode())
    assert why(keys, text, 0.0) == "bad_api_key"
    assert not text or why(keys, stored.key + text, 0.0) == "bad_api_key"
    assert why(keys, stored.key[:-1], 0.0) == "bad_api_key"
    assert why(keys, stored.key.replace("checkout", "check"), 0.0) == "bad_api_key"


def test_secrets_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    stored = new_key("checkout", now=NOW)
    keys = ApiKeys.parse(stored.table.encode())
    monkeypatch.setattr(hmac, "compare_digest", compare)
    keys.verify(stored.key, 0.0)
    for wrong in (stored.key + "x", "hrk_nobody_x"):
        assert why(keys, wrong, 0.0) == "bad_api_key"
    assert compared == [(32, 32)] * 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"checkout = 7", "checkout"),
        (b"[checkout]\n", "checkout.sha256"),
        (b'[checkout]\nsha256 = "00"', "checkout.sha256"),
        (b'[checkout]\nsha256 = "%s"\nmore = 1' % (b"0" * 64), "checkout.more"),
        (b'[checkout]\nsha256 = "%s"\npermissions = ["all"]' % (b"0" * 64), "checkout.permissions.0"),
        (b'[checkout]\nsha256 = "%s"\nexpires = 2030-01-01' % (b"0" * 64), "checkout.expires"),
        (b'["a b"]\nsha256 = "%s"' % (b"0" * 64), "a b"),
        (b"\xff", "no TOML"),
        (b"[", "no TOML"),
    ],
)
def test_key_files_that_are_not_fit(content: bytes, said: str) -> None:
    with pytest.raises(PolicyError, match=said) as wrong:
        stored_keys(content)
    assert "\n" not in str(wrong.value)


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "a" * 65, "a\n", "ä"])
def test_names_of_keys_that_are_not_allowed(name: str) -> None:
    with pytest.raises(PolicyError, match="allowed"):
        new_key(name, now=NOW)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "grants"),
        (b"grants = []", "grants"),
        (b"[[grants]]\n", "callers"),
        (POLICY.replace(b'"ingest"', b'"ingestion"'), r"grants.0.permissions.1: .*'predict'"),
        (POLICY.replace(b'"role:analyst"', b'"analyst"'), "grants.1.callers.0"),
        (POLICY.replace(b'"role:analyst"', b'"role:"'), "grants.1.callers.0"),
        (POLICY.replace(b"quota_rows", b"rows"), "grants.0.rows_per_s"),
        (POLICY.replace(b"= 100", b"= 0"), "grants.0.quota_rows_per_s"),
        (POLICY.replace(b'["public"]', b"[]"), "grants.3.pipelines"),
    ],
)
def test_policies_that_are_not_fit(content: bytes, said: str) -> None:
    with pytest.raises(PolicyError, match=said):
        Policy.parse(content)


def granted(deployed: str, *principals: str) -> tuple[set[Permission], float | None]:
    permissions, quota = Policy.parse(POLICY).on(deployed).of(principals)
    return set(permissions), quota


def test_what_nobody_granted_is_denied() -> None:
    assert granted("fraud", "api-key:checkout") == ({Permission.PREDICT, Permission.INGEST}, 100)
    assert granted("fraud", "api-key:checkout2") == (set(), None)
    # A name of one kind is not the same name of another.
    assert granted("fraud", "certificate:checkout") == (set(), None)
    assert granted("fraud", "role:checkout") == (set(), None)
    assert granted("fraud", "jwt:x", "role:analyst") == ({Permission.FEATURES}, 7.5)
    all_of_both = {Permission.PREDICT, Permission.INGEST, Permission.FEATURES}
    assert granted("fraud", "jwt:checkout", "role:analyst") == (all_of_both, 100)
    assert granted("fraud-eu", "api-key:checkout", "role:analyst") == ({Permission.FEATURES}, 7.5)
    assert granted("public", "jwt:anyone") == ({Permission.PREDICT}, None)
    assert granted("other", "certificate:spiffe://mesh/ops") == ({Permission.ADMIN}, None)


@given(
    callers=st.lists(st.sampled_from(["api-key:a", "jwt:a", "role:r", "certificate:c"]), min_size=1, max_size=3),
    asking=st.sampled_from(["api-key:a", "jwt:a", "certificate:c", "jwt:b"]),
    allowed=st.sets(st.sampled_from(Permission), min_size=1),
    pipeline=st.sampled_from(["fraud", "clicks"]),
)
def test_no_one_has_more_than_was_granted(
    callers: list[str], asking: str, allowed: set[Permission], pipeline: str
) -> None:
    policy = Policy.model_validate(
        {"grants": [{"callers": callers, "pipelines": [pipeline], "permissions": sorted(allowed)}]}
    )
    found, _ = policy.on("fraud").of([asking])
    assert found == (allowed if asking in callers and pipeline == "fraud" else frozenset())


def test_a_caller_is_known_by_one_thing() -> None:
    key = new_key("checkout", now=NOW)
    made = access(TokensOfATest(), ApiKeys.parse(key.table.encode()))
    assert made.caller(Credentials(api_key=key.key)).name == "api-key:checkout"
    assert made.caller(Credentials(f"Bearer {key.key}")).name == "api-key:checkout"
    assert made.caller(Credentials("bearer checkout")).name == "jwt:checkout"
    assert made.caller(Credentials(certificate=("spiffe://mesh/ops", "ops"))).permissions == {Permission.ADMIN}
    # Whoever brings a token is who the token says, through whatever proxy he comes.
    through = made.caller(Credentials("Bearer checkout", certificate=("spiffe://mesh/ops",)))
    assert through.name == "jwt:checkout"
    assert through.permissions == {Permission.PREDICT, Permission.INGEST}
    assert through.quota_rows_per_s == 100
    assert why(made, Credentials()) == "no_credentials"
    assert why(made, Credentials("Bearer checkout", key.key)) == "several_credentials"
    assert why(made, Credentials("Basic Y2hlY2tvdXQ6")) == "no_bearer"
    assert why(made, Credentials("checkout")) == "no_bearer"
    assert why(made, Credentials(api_key="checkout")) == "bad_api_key"
    assert why(access(), Credentials("Bearer checkout")) == "tokens_off"
    assert why(access(), Credentials(api_key=key.key)) == "api_keys_off"


def test_a_key_does_no_more_than_it_was_made_for() -> None:
    key = new_key("checkout", (Permission.INGEST, Permission.ADMIN), now=NOW)
    caller = access(None, ApiKeys.parse(key.table.encode())).caller(Credentials(api_key=key.key))
    assert caller.permissions == {Permission.INGEST}


def test_each_option_needs_its_permission() -> None:
    needed = {
        "ingest": Permission.INGEST,
        "explain": Permission.FEATURES,
        "overrides": Permission.OVERRIDES,
        "pinned": Permission.PINNED,
    }
    for option, permission in needed.items():
        asked = dict.fromkeys(needed, False) | {option: True}
        Caller("x", frozenset({permission})).check_options(**asked)
        with pytest.raises(PermissionDeniedError, match=permission.value) as denied:
            Caller("x", frozenset(Permission) - {permission}).check_options(**asked)
        assert (denied.value.caller, denied.value.permission) == ("x", permission.value)
    Caller("x", frozenset()).check_options(**dict.fromkeys(needed, False))


def test_a_verified_token_is_remembered_until_it_expires() -> None:
    tokens, now = TokensOfATest(), [0.0]
    made = access(tokens, clock=lambda: now[0])
    first = made.caller(Credentials("Bearer checkout"))
    assert made.caller(Credentials("Bearer checkout")) is first
    assert tokens.asked == 1
    now[0] = 99.9
    assert made.caller(Credentials("Bearer checkout")) is first
    now[0], tokens.expires_s = 100.0, 200.0
    assert made.caller(Credentials("Bearer checkout")).expires_s == 200.0
    assert tokens.asked == 2
    for _ in range(2):
        assert why(made, Credentials("Bearer bad")) == "bad_token"
    assert tokens.asked == 4, "what was refused is not remembered"


def test_what_is_remembered_is_bounded() -> None:
    tokens, now = TokensOfATest(), [0.0]
    made = access(tokens, clock=lambda: now[0], remembered=10)
    for number in range(100):
        made.caller(Credentials(f"Bearer {number}"))
        made.caller(Credentials(certificate=(f"name-{number}",)))
        assert len(made._remembered) <= 10
        assert len(made._certificates) <= 10
    asked = tokens.asked
    made.caller(Credentials("Bearer 99"))
    assert tokens.asked == asked, "the latest are kept"
    now[0], tokens.expires_s = 150.0, 200.0
    for number in range(100, 105):
        made.caller(Credentials(f"Bearer {number}"))
    made._forget()
    assert set(made._remembered) == {f"Bearer {number}" for number in range(100, 105)}
