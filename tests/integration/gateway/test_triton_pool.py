"""The pool against two real Triton servers of its own: balance, a kill, a suspension, models missing and wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from headrace.gateway.triton_errors import ModelMismatchError, ModelNotLoadedError, TritonAwayError
from headrace.gateway.triton_pool import TritonPool
from headrace.platform.triton_config import FeatureIdentity
from tests.integration.gateway.triton_models import IDENTITY, NAMES, WIDTH, push, score_of, unload
from tests.integration.private_triton import PrivateTriton

pytestmark = pytest.mark.timeout(120)
ROWS = np.zeros((4, WIDTH), np.float32)


async def eventually(condition: Callable[[], Awaitable[bool] | bool], what: str, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        held = condition()
        if held if isinstance(held, bool) else await held:
            return
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} s"
        await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[PrivateTriton]]:
    made = [PrivateTriton(tmp_path_factory.mktemp(f"triton-{number}")) for number in range(2)]
    yield made
    for one in made:
        one.kill()


@pytest.fixture
async def urls(servers: list[PrivateTriton]) -> list[str]:
    """Both servers, running."""
    for one in servers:
        if not one.is_ready():
            one.kill()
            one.start()
    for one in servers:
        await eventually(one.is_ready, "Triton is ready")
    return [one.url for one in servers]


@asynccontextmanager
async def pool_of(urls: list[str], **given: Any) -> AsyncIterator[TritonPool]:
    pool = TritonPool(urls, **({"timeout_s": 5.0, "probe_s": 0.1, "statistics_s": 0} | given))
    running = asyncio.create_task(pool.run())
    try:
        yield pool
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await pool.close()


class Load:
    """Callers that ask for scores one after the other and count what they get."""

    def __init__(self, pool: TritonPool, model: str, callers: int = 6) -> None:
        self.pool = pool
        self.model = model
        self.callers = callers
        self.scores: list[float] = []
        self.seconds: list[float] = []
        self.errors: list[Exception] = []
        self._stopped = False

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._call()) for _ in range(self.callers)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stopped = True
        await asyncio.gather(*self._tasks)

    async def _call(self) -> None:
        while not self._stopped:
            began = time.monotonic()
            try:
                scores = await self.pool.infer(self.model, ROWS, expected=IDENTITY)
                self.scores.append(float(scores[0]))
            except Exception as error:  # noqa: BLE001 (each one is a failed request)
                self.errors.append(error)
            self.seconds.append(time.monotonic() - began)
            await asyncio.sleep(0.002)

    async def more(self, count: int) -> None:
        target = len(self.scores) + len(self.errors) + count
        await eventually(lambda: len(self.scores) + len(self.errors) >= target, f"{count} more answers")


async def requests_at(url: str, model: str) -> int:
    """What a server itself has counted."""
    import tritonclient.grpc.aio as triton_grpc

    client = triton_grpc.InferenceServerClient(url)
    try:
        return int((await client.get_inference_statistics(model)).model_stats[0].inference_stats.success.count)
    finally:
        await client.close()


async def test_scores_are_those_of_the_model_at_any_batch_size(urls: list[str]) -> None:
    await push(urls[0], "sizes", 1.5)
    async with pool_of(urls[:1]) as pool:
        for rows in (0, 1, 2, 127, 128, 1024):
            scores = await pool.infer("sizes", np.ones((rows, WIDTH), np.float32), expected=IDENTITY)
            assert scores.shape == (rows,)
            np.testing.assert_allclose(scores, score_of(1.5), rtol=1e-6)


async def test_both_servers_take_the_load_and_nothing_is_outstanding_in_the_end(urls: list[str]) -> None:
    for url in urls:
        await push(url, "balanced")
    async with pool_of(urls) as pool:
        async with Load(pool, "balanced") as load:
            # A connection that is slow to come is not what is measured.
            await load.more(100)
            before = [await requests_at(url, "balanced") for url in urls]
            await load.more(400)
        assert not load.errors
        counts = [await requests_at(url, "balanced") - start for url, start in zip(urls, before, strict=True)]
        # Not half and half: the one that answers faster takes more.
        assert min(counts) > 0.1 * sum(counts)
        assert set(pool.outstanding_rows.values()) == {0}


async def test_a_server_with_outstanding_rows_is_passed_over(urls: list[str], servers: list[PrivateTriton]) -> None:
    for url in urls:
        await push(url, "outstanding")
    async with pool_of(urls, timeout_s=20, health_s=60) as pool:
        await asyncio.gather(*(pool.infer("outstanding", ROWS, expected=IDENTITY) for _ in range(8)))
        servers[0].suspend()
        try:
            calls: list[asyncio.Task[object]] = []

            def one_is_stuck() -> bool:
                calls.append(asyncio.create_task(pool.infer("outstanding", ROWS, expected=IDENTITY)))
                return pool.outstanding_rows[urls[0]] > 0

            await eventually(one_is_stuck, "the suspended server has been given a call")
            for _ in range(20):
                await pool.infer("outstanding", ROWS, expected=IDENTITY)
            await eventually(lambda: not pool.outstanding_rows[urls[1]], "the other server has answered")
        finally:
            servers[0].resume()
        await asyncio.gather(*calls)


async def test_a_killed_server_costs_no_request_and_takes_load_again(
    urls: list[str], servers: list[PrivateTriton]
) -> None:
    for url in urls:
        await push(url, "killed")
    async with pool_of(urls) as pool, Load(pool, "killed") as load:
        await load.more(50)
        servers[0].kill()
        await load.more(100)
        assert pool.away == [urls[0]]
        servers[0].start()
        await eventually(servers[0].is_ready, "Triton is ready")
        await eventually(lambda: not pool.away, "the server is back")
        # Without the model at first: the other server answers until it is pushed again.
        await load.more(50)
        await push(urls[0], "killed")
        before = await requests_at(urls[0], "killed")

        async def takes_load() -> bool:
            return await requests_at(urls[0], "killed") > before + 20

        await eventually(takes_load, "it takes load again")
        assert not load.errors


async def test_a_suspended_server_costs_one_timeout_and_takes_load_again(
    urls: list[str], servers: list[PrivateTriton]
) -> None:
    for url in urls:
        await push(url, "suspended")
    async with pool_of(urls, timeout_s=1.0) as pool, Load(pool, "suspended") as load:
        await load.more(50)
        servers[1].suspend()
        try:
            await eventually(lambda: pool.away == [urls[1]], "it is ejected")
            await load.more(100)
            load.seconds.clear()
            await load.more(300)
            # While it rests nobody waits for it.
            assert max(load.seconds) < 0.9
        finally:
            servers[1].resume()
        await eventually(lambda: not pool.away, "it is back")
        before = await requests_at(urls[1], "suspended")

        async def takes_load() -> bool:
            return await requests_at(urls[1], "suspended") > before + 20

        await eventually(takes_load, "it takes load again")
        assert not load.errors


async def test_a_server_that_goes_while_nobody_calls_is_known_to_be_away(
    urls: list[str], servers: list[PrivateTriton]
) -> None:
    async with pool_of(urls, health_s=0.1) as pool:
        assert pool.away == []
        servers[0].kill()
        await eventually(lambda: pool.away == [urls[0]], "it is found out without a call")
        servers[0].start()
        await eventually(lambda: not pool.away, "it is back")


async def test_calls_under_way_leave_a_suspended_server_together(urls: list[str], servers: list[PrivateTriton]) -> None:
    for url in urls:
        await push(url, "together")
    async with pool_of(urls, timeout_s=3.0, health_s=60) as pool:
        await asyncio.gather(*(pool.infer("together", ROWS, expected=IDENTITY) for _ in range(8)))
        servers[1].suspend()
        try:
            began = time.monotonic()
            first = [asyncio.create_task(pool.infer("together", ROWS, expected=IDENTITY)) for _ in range(4)]
            await asyncio.sleep(1.5)
            late = [asyncio.create_task(pool.infer("together", ROWS, expected=IDENTITY)) for _ in range(4)]
            await asyncio.gather(*first, *late)
            # Those that came half a timeout later do not wait for a timeout of their own.
            assert time.monotonic() - began < 4.2
        finally:
            servers[1].resume()


async def test_a_model_that_one_server_lacks_is_asked_for_at_the_other(urls: list[str]) -> None:
    await push(urls[1], "lacking", 2.0)
    async with pool_of(urls) as pool:
        async with Load(pool, "lacking") as load:
            await load.more(100)
            assert not load.errors
            await push(urls[0], "lacking", 2.0)

            async def takes_load() -> bool:
                return await requests_at(urls[0], "lacking") > 20

            await eventually(takes_load, "the server that has it now takes load")
        assert not load.errors
        assert pool.away == []
        for url in urls:
            await unload(url, "lacking")
        with pytest.raises(ModelNotLoadedError, match="unknown model"):
            await pool.infer("lacking", ROWS, expected=IDENTITY)
        # Known by now: no server is asked.
        with pytest.raises(ModelNotLoadedError, match="unknown model"):
            await pool.infer("lacking", ROWS, expected=IDENTITY)


@pytest.mark.parametrize(
    ("loaded", "reason"),
    [
        (FeatureIdentity.of(NAMES, 0xBAD), "takes features of the definition 0000000000000bad"),
        (FeatureIdentity.of(NAMES[::-1], 0x5EED), "other features, or in another order"),
        (FeatureIdentity.of((*NAMES, "more"), 0x5EED), r"the width \[4\]; expected is 3"),
    ],
)
async def test_another_model_of_the_same_name_is_never_asked_for_a_score(
    urls: list[str], loaded: FeatureIdentity, reason: str
) -> None:
    def mismatched() -> float | None:
        return REGISTRY.get_sample_value("headrace_gateway_triton_mismatched_versions", {"server": urls[0]})

    await push(urls[0], "wrong", -3.0, loaded)
    await push(urls[1], "wrong", 3.0)
    before = await requests_at(urls[0], "wrong")
    async with pool_of(urls) as pool:
        async with Load(pool, "wrong") as load:
            await load.more(50)
        assert not load.errors
        np.testing.assert_allclose(load.scores, score_of(3.0), rtol=1e-6)
        assert await requests_at(urls[0], "wrong") == before
        assert mismatched() == 1
    async with pool_of(urls[:1]) as pool:
        with pytest.raises(ModelMismatchError, match=reason):
            await pool.infer("wrong", ROWS, expected=IDENTITY)
        # Known by now, without a question to the server.
        with pytest.raises(ModelMismatchError, match=reason):
            await pool.infer("wrong", ROWS, expected=IDENTITY)
        # The right one in its place is found by itself.
        await push(urls[0], "wrong", 3.0)

        async def answers() -> bool:
            with suppress(ModelMismatchError, ModelNotLoadedError):
                return len(await pool.infer("wrong", ROWS, expected=IDENTITY)) == len(ROWS)
            return False

        await eventually(answers, "the right model is used")
        assert mismatched() == 0


async def test_a_version_without_parameters_is_checked_by_its_width(urls: list[str]) -> None:
    await push(urls[0], "older", 1.0, FeatureIdentity(WIDTH))
    async with pool_of(urls[:1]) as pool:
        assert len(await pool.infer("older", ROWS, expected=IDENTITY)) == len(ROWS)
    await push(urls[0], "older", 1.0, FeatureIdentity(WIDTH + 1))
    async with pool_of(urls[:1]) as pool:
        with pytest.raises(ModelMismatchError, match="the width"):
            await pool.infer("older", ROWS, expected=IDENTITY)


async def test_a_server_that_was_restarted_between_two_calls_is_checked_again(
    urls: list[str], servers: list[PrivateTriton]
) -> None:
    await push(urls[0], "restarted", 3.0)
    async with pool_of(urls[:1], health_s=60) as pool:
        await pool.infer("restarted", ROWS, expected=IDENTITY)
        # Nobody calls meanwhile, so nothing fails.
        servers[0].kill()
        servers[0].start()
        await eventually(servers[0].is_ready, "Triton is ready")
        await push(urls[0], "restarted", -3.0, FeatureIdentity.of(NAMES, 0xBAD))

        async def refused() -> bool:
            try:
                scores = await pool.infer("restarted", ROWS, expected=IDENTITY)
            except TritonAwayError:
                return False
            except ModelMismatchError:
                return True
            raise AssertionError(f"scored by another model: {scores}")

        await eventually(refused, "the other model is refused")


async def test_a_deadline_bounds_the_whole_call(urls: list[str], servers: list[PrivateTriton]) -> None:
    for url in urls:
        await push(url, "deadline")
    async with pool_of(urls, health_s=60) as pool:
        await asyncio.gather(*(pool.infer("deadline", ROWS, expected=IDENTITY) for _ in range(8)))
        for one in servers:
            one.suspend()
        try:
            began = asyncio.get_running_loop().time()
            with pytest.raises(TritonAwayError):
                await pool.infer("deadline", ROWS, began + 0.4, IDENTITY)
            assert asyncio.get_running_loop().time() - began < 2
        finally:
            for one in servers:
                one.resume()


async def test_a_hedge_answers_before_the_timeout_of_a_suspended_server(
    urls: list[str], servers: list[PrivateTriton]
) -> None:
    for url in urls:
        await push(url, "hedged")
    async with pool_of(urls, hedge_s=0.05, health_s=60) as pool:
        await asyncio.gather(*(pool.infer("hedged", ROWS, expected=IDENTITY) for _ in range(8)))
        servers[0].suspend()
        try:
            for _ in range(4):
                began = time.monotonic()
                await pool.infer("hedged", ROWS, expected=IDENTITY)
                assert time.monotonic() - began < 2
            assert pool.away == []
            assert set(pool.outstanding_rows.values()) == {0}
        finally:
            servers[0].resume()


async def test_tritons_own_times_are_exported_beside_ours(urls: list[str]) -> None:
    await push(urls[0], "timed")
    labels = {"server": urls[0], "model": "timed"}

    def exported(what: str, **more: str) -> float:
        return REGISTRY.get_sample_value(f"headrace_gateway_triton_{what}", labels | more) or 0.0

    async with pool_of(urls[:1], statistics_s=0.2) as pool:
        async with Load(pool, "timed") as load:
            await eventually(lambda: exported("recent_rows") >= len(ROWS), "rows are exported")
            assert exported("recent_rows") == len(ROWS) * exported("recent_requests", result="success")
            assert exported("execution_rows") >= len(ROWS)
            for stage in ("queue", "input", "infer", "output"):
                assert 0 < exported("stage_seconds", stage=stage) < 1
        assert not load.errors
    assert REGISTRY.get_sample_value("headrace_gateway_triton_recent_rows", labels) is None
