"""From an announcement to the route table, against the real Kafka, Redis and Triton."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from headrace.platform.signing import create_key_pair
from headrace.rollout.triton import TritonServer
from headrace.v1 import alert_pb2, model_pb2
from tests.integration.rollout.deployment import FEATURES, Deployment, eventually, logistic_model, running

pytestmark = pytest.mark.timeout(180)


async def test_a_version_is_loaded_checked_routed_and_adopted(deployment: Deployment, triton: TritonServer) -> None:
    async with running(deployment) as health:

        async def ready() -> bool:
            return health.ready

        await eventually(ready, "ready")
        await deployment.announce(deployment.version(0))
        table = await deployment.routed("000000")
        assert (table.pipeline, table.epoch, table.adopted) == (deployment.topics.deployed, 1, False)
        assert table.champion.triton_model == f"{deployment.topics.deployed}-000000"
        assert table.updated_time_us / 1e6 == pytest.approx(time.time(), abs=30)
        scores = await triton.score(table.champion.triton_model, np.zeros((3000, FEATURES), np.float32))
        assert scores.tolist() == [0.5] * 3000

        # The one that lags first: between the two, the other alone would be every live gateway.
        await deployment.leases.renew("two", 0, [])
        await deployment.leases.renew("one", 1, ["000000"])
        await deployment.announce(deployment.version(1))
        await deployment.routed("000001")
        await deployment.leases.renew("one", 2, ["000001"])
        await deployment.announce(deployment.version(2))
        await deployment.routed("000002")
        assert not any(table.adopted for table in deployment.routes)
        for gateway in ("one", "two"):
            await deployment.leases.renew(gateway, 3, ["000002"])
        adopted = await deployment.routed("000002", adopted=True)
        assert adopted.epoch == 3
        assert [one.model.version for one in adopted.previous] == ["000001", "000000"]
    assert [table.epoch for table in deployment.routes] == [1, 2, 3, 3]
    assert not deployment.alerts


def other_key(model: model_pb2.ModelVersion, deployment: Deployment) -> None:
    keys = create_key_pair(deployment.store.directory / "other")
    model.onnx.signature = type(deployment.signer).read(keys.private).sign(model.onnx.sha256)


def changed_file(model: model_pb2.ModelVersion, deployment: Deployment) -> None:
    deployment.store.path(model.onnx.uri).write_bytes(logistic_model(0.7))


def other_features(model: model_pb2.ModelVersion, _: Deployment) -> None:
    model.features_fingerprint ^= 1


def other_scores(model: model_pb2.ModelVersion, _: Deployment) -> None:
    model.golden.scores[3] += 0.001


def no_file(model: model_pb2.ModelVersion, deployment: Deployment) -> None:
    deployment.store.delete(model.onnx.uri)


def no_model(model: model_pb2.ModelVersion, deployment: Deployment) -> None:
    replace(model, deployment, b"no model")


def not_a_number(model: model_pb2.ModelVersion, deployment: Deployment) -> None:
    replace(model, deployment, logistic_model(float("nan")))


def replace(model: model_pb2.ModelVersion, deployment: Deployment, onnx: bytes) -> None:
    stored = deployment.store.put(f"{deployment.topics.deployed}/replaced.onnx", onnx)
    model.onnx.uri, model.onnx.sha256 = stored.uri, bytes.fromhex(stored.sha256)
    model.onnx.signature = deployment.signer.sign(model.onnx.sha256)


@pytest.mark.parametrize(
    ("spoil", "check"),
    [
        (other_key, "signature"),
        (changed_file, "sha256"),
        (other_features, "features_fingerprint"),
        (other_scores, "golden_rows"),
        (not_a_number, "finite_scores"),
        (no_file, "artifact"),
        (no_model, "load"),
    ],
)
async def test_a_version_that_fails_is_never_routed_and_alerted_once(
    deployment: Deployment,
    triton: TritonServer,
    spoil: Callable[[model_pb2.ModelVersion, Deployment], None],
    check: str,
) -> None:
    async with running(deployment, artifact_patience_s=0.5):
        await deployment.announce(deployment.version(0))
        await deployment.routed("000000")
        bad = deployment.version(1)
        spoil(bad, deployment)
        await deployment.announce(bad)
        alert = await deployment.alerted("000001")
        assert (alert.rule, alert.state) == ("rollout", alert_pb2.ALERT_STATE_RAISED)
        assert alert.detail.startswith(f"{check}: ")
        await deployment.announce(bad)
        # What comes after it takes traffic as ever, and the models of the failed one are gone.
        await deployment.announce(deployment.version(2))
        table = await deployment.routed("000002")
        assert [one.model.version for one in table.previous] == ["000000"]
        await deployment.serves(triton, "000000", "000002")
    # A restart meets the same announcements again.
    async with running(deployment):
        await deployment.announce(deployment.version(3))
        await deployment.routed("000003")
    assert [one.subject for one in deployment.alerts] == ["000001"]
    assert {table.champion.model.version for table in deployment.routes} == {"000000", "000002", "000003"}


async def test_versions_of_a_replaced_learner_are_ignored(deployment: Deployment) -> None:
    async with running(deployment):
        await deployment.announce(deployment.version(0, learner_epoch=2))
        await deployment.announce(deployment.version(5, learner_epoch=1))
        await deployment.announce(deployment.version(1, learner_epoch=2))
        await deployment.routed("000001")
    assert "000005" not in {table.champion.model.version for table in deployment.routes}


async def test_a_lease_keeps_a_version_loaded(deployment: Deployment, triton: TritonServer) -> None:
    async with running(deployment, keep_previous=0):
        await deployment.announce(deployment.version(0))
        await deployment.routed("000000")
        await deployment.leases.renew("slow", 1, ["000000"])
        for number in (1, 2):
            await deployment.announce(deployment.version(number))
            await deployment.routed(f"{number:06d}")
        await deployment.leases.renew("quick", 3, ["000002"])
        await deployment.leases.renew("slow", 3, ["000000", "000002"])
        await deployment.serves(triton, "000000", "000002")
        await deployment.leases.renew("slow", 3, ["000002"])
        await deployment.serves(triton, "000002")


async def test_the_newest_of_many_versions_is_routed(deployment: Deployment) -> None:
    for number in range(12):
        await deployment.announce(deployment.version(number))
    async with running(deployment):
        await deployment.routed("000011")
    assert len(deployment.routes) == 1


async def test_versions_announced_one_after_the_other_are_each_routed(deployment: Deployment) -> None:
    """How long that takes is measured by `make bench-swaps`."""
    async with running(deployment):
        for number in range(8):
            model = deployment.version(number)
            await deployment.announce(model)
            await deployment.routed(model.version)
