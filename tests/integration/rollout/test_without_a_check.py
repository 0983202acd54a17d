"""Each check by itself is what keeps a version out, or a version loaded: without it the wrong thing happens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from headrace.platform.artifacts import ArtifactStore
from headrace.platform.leases import GatewayLease, Leases
from headrace.platform.signing import Verifier
from headrace.rollout import delivery
from headrace.rollout.triton import TritonServer
from tests.integration.rollout.deployment import Deployment, running
from tests.integration.rollout.test_versions_into_traffic import changed_file, other_key, other_scores

pytestmark = pytest.mark.timeout(180)


def without_signature(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Verifier, "verify", lambda *_: None)


def without_hash(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ArtifactStore, "get", lambda store, uri, _: store.path(uri).read_bytes())
    # The file that was changed gives other scores, which another check would find.
    without_golden_rows(patch)


def without_golden_rows(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(delivery, "check_scores", lambda *_, **__: None)


@pytest.mark.parametrize(
    ("spoil", "without"),
    [(other_key, without_signature), (changed_file, without_hash), (other_scores, without_golden_rows)],
)
async def test_without_the_check_a_version_that_it_refuses_is_routed(
    deployment: Deployment,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Any, Deployment], None],
    without: Callable[[pytest.MonkeyPatch], None],
) -> None:
    bad = deployment.version(1)
    spoil(bad, deployment)
    async with running(deployment):
        await deployment.announce(deployment.version(0))
        await deployment.announce(bad)
        assert (await deployment.alerted("000001")).rule == "rollout"
    without(monkeypatch)
    async with running(deployment):
        await deployment.routed("000001", seconds=40)


async def test_without_the_leases_a_version_in_use_is_unloaded(
    deployment: Deployment, triton: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody_uses_it(_: Leases) -> list[GatewayLease]:
        return [GatewayLease("one", 1_000_000, frozenset())]

    monkeypatch.setattr(Leases, "read", nobody_uses_it)
    async with running(deployment, keep_previous=0):
        await deployment.announce(deployment.version(0))
        await deployment.routed("000000", seconds=40)
        await deployment.leases.renew("slow", 1, ["000000"])
        await deployment.announce(deployment.version(1))
        await deployment.serves(triton, "000001", seconds=40)
    monkeypatch.undo()
