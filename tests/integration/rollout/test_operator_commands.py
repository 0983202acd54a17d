"""Commands of an operator on the real Kafka, Redis and Triton: in effect, refused, and through a kill -9."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from headrace.platform.kafka import producer, send
from headrace.platform.topics import ROUTE_COMMAND_KEY
from headrace.rollout.operating import CommandFailedError, Effect, give, new_command
from headrace.rollout.triton import TritonServer
from headrace.v1 import alert_pb2, model_pb2, route_pb2
from tests.integration.rollout.deployment import Deployment, eventually, running
from tests.integration.rollout.test_restarts import process

pytestmark = pytest.mark.timeout(240)


@asynccontextmanager
async def gateway(deployment: Deployment, name: str = "one") -> AsyncIterator[None]:
    """A gateway as the rollout sees it: it takes each table into use and says so in its lease."""

    async def follow() -> None:
        while True:
            if deployment.routes:
                table = deployment.routes[-1]
                await deployment.leases.renew(name, table.epoch, [table.champion.model.version])
            await asyncio.sleep(0.02)

    following = asyncio.create_task(follow())
    try:
        yield
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def tell(deployment: Deployment, timeout_s: float = 20, **action: object) -> Effect:
    """Give a command and wait until it is in effect."""
    command = new_command("anna", "a test", timeout_s=timeout_s)
    for name, value in action.items():
        getattr(command, name).CopyFrom(value)
    bootstrap = deployment.settings["kafka_bootstrap"]
    return await give(command, bootstrap, deployment.topics, deployment.leases, timeout_s=timeout_s)


async def served(deployment: Deployment, *numbers: int) -> None:
    for number in numbers:
        await deployment.announce(deployment.version(number))
        await deployment.routed(f"{number:06d}", seconds=40)


async def test_commands_return_when_every_gateway_uses_what_they_led_to(
    deployment: Deployment, triton: TritonServer
) -> None:
    with pytest.raises(CommandFailedError, match="has no route table yet"):
        await tell(deployment, freeze=route_pb2.FreezeRefreshes())
    async with running(deployment), gateway(deployment):
        await served(deployment, 0, 1, 2)
        done = await tell(deployment, rollback=route_pb2.Rollback())
        assert (done.change.version, done.change.replaced, done.change.by) == ("000001", "000002", "anna")
        assert [one.epoch for one in done.gateways] == [done.change.epoch]
        assert deployment.routes[-1].frozen.by == "anna"
        await deployment.announce(deployment.version(3))
        with pytest.raises(CommandFailedError, match=r"no version '000077'; announced are 000000 to 000003"):
            await tell(deployment, rollback=route_pb2.Rollback(version="000077"))
        assert not (await tell(deployment, freeze=route_pb2.FreezeRefreshes())).changed
        await tell(deployment, unfreeze=route_pb2.UnfreezeRefreshes())
        table = await deployment.routed("000003", seconds=40)
        assert [one.model.version for one in table.previous] == ["000001", "000000"]
        forest = deployment.version(4)
        forest.recipe, forest.recipe_fingerprint = "forest", "cd" * 32
        forest.kind, forest.challenger = model_pb2.RELEASE_KIND_PROMOTION, True
        await deployment.announce(forest)
        for _ in range(3):
            done = await tell(deployment, promote=route_pb2.Promote(version="forest"))
        assert (done.table.champion.model.version, done.table.champion.release) == (
            "000004",
            model_pb2.RELEASE_KIND_PROMOTION,
        )
        await deployment.serves(triton, "000004", "000003", "000001", seconds=40)
    kinds = [route_pb2.RouteChangeKind.Name(one.kind) for one in deployment.routes[-1].changes if one.command_id]
    assert [one.removeprefix("ROUTE_CHANGE_KIND_").lower() for one in kinds] == [
        "rollback", "none", "none", "unfreeze", "promotion", "promotion", "promotion",
    ]  # fmt: skip


async def test_a_command_is_carried_out_once_by_a_rollout_that_is_killed(deployment: Deployment) -> None:
    bootstrap = deployment.settings["kafka_bootstrap"]
    async with process(deployment):
        await served(deployment, 0, 1, 2)
    command = new_command("anna", timeout_s=120)
    command.rollback.CopyFrom(route_pb2.Rollback())
    async with producer(bootstrap) as writer:
        for _ in range(2):
            await send(writer, deployment.topics.control, command.SerializeToString(), key=ROUTE_COMMAND_KEY)
    for pause_s in (0.3, 0.1):
        async with process(deployment) as rollout:

            async def handled() -> bool:
                return deployment.routes[-1].next_command > 0

            await eventually(handled, "the command is handled", 60)
            # Whatever it does then, it is killed in it.
            await asyncio.sleep(pause_s)
            rollout.kill()
            await rollout.wait()
    table = deployment.routes[-1]
    assert (table.champion.model.version, table.epoch) == ("000001", 4)
    assert [one.kind for one in table.changes].count(route_pb2.ROUTE_CHANGE_KIND_ROLLBACK) == 1


async def test_a_crossed_guard_rail_puts_the_parent_back_with_an_alert_that_is_cleared(deployment: Deployment) -> None:
    async with running(deployment) as health, gateway(deployment):
        await served(deployment, 0, 1)
        del health
        await deployment.answer("000001", [float("nan")])
        table = await deployment.routed("000000", seconds=40)
        assert (table.frozen.by, table.frozen.alert_subject) == ("rollout", "000001")
        alert = await deployment.alerted("000001")
        assert (alert.rule, alert.state) == ("guard_rail", alert_pb2.ALERT_STATE_RAISED)
        await tell(deployment, unfreeze=route_pb2.UnfreezeRefreshes())

        async def cleared() -> bool:
            return deployment.alerts[-1].state == alert_pb2.ALERT_STATE_CLEARED

        await eventually(cleared, "the alert is cleared")
        assert deployment.routes[-1].champion.model.version == "000000"
