"""A history is loaded into feature state and model before a pipeline goes live, and the learner goes on from there."""

from __future__ import annotations

import random
from pathlib import Path

import polars as pl
import pytest

from headrace.platform import kafka
from headrace.platform.redis import connect
from tests.integration.learner.deployment import Deployment

pytestmark = pytest.mark.timeout(300)

DAY_US = 86_400_000_000
FIRST_US = 1_500_000_000_000_000


def payments(count: int) -> pl.DataFrame:
    chance = random.Random(5)
    times = [FIRST_US + number * 600_000_000 for number in range(count)]
    amounts = [chance.randrange(100, 20_000) for _ in range(count)]
    return pl.DataFrame(
        {
            "event_id": [f"h{number:05d}" for number in range(count)],
            "event_time": times,
            "customer_id": [f"{chance.randrange(20):03d}" for _ in range(count)],
            "terminal_id": [f"t{chance.randrange(10)}" for _ in range(count)],
            "amount_cents": amounts,
            "label": [int(amount > 15_000) for amount in amounts],
            "label_time": [time + chance.randrange(1, 9) * DAY_US for time in times],
        }
    )


async def test_the_learner_goes_on_from_a_history(deployment: Deployment, redis_url: str, tmp_path: Path) -> None:
    count, file = 2000, tmp_path / "history.csv"
    payments(count).write_csv(file)
    status, said = await deployment.command_line("bootstrap", str(file), HEADRACE_REDIS_URL=redis_url)
    assert status == 0, said
    assert f"{count:,} events, {count:,} of them with a label" in said
    untrained, learned = await deployment.announced()
    assert (untrained.untrained, untrained.origin) == (True, "")
    assert (learned.version, learned.parent, learned.origin) == ("000001", "000000", "bootstrap")
    assert learned.learned_count == count
    assert learned.metrics["rolling_auc"] > 0.9
    client = connect(redis_url)
    try:
        keys = [key async for key in client.scan_iter(f"headrace:{{{deployment.topics.deployed}}}:*")]
        assert len(keys) > 30  # 20 customers, 10 terminals
        outcomes = deployment.outcomes(200)
        await deployment.start()
        await deployment.until_logged("service started", 100)
        await deployment.feed(outcomes)
        total = count + deployment.learnable(outcomes)
        versions = await deployment.until(lambda found: found[-1].learned_count == total, 100)
        assert {one.origin for one in versions[1:]} == {"bootstrap"}
        again = await deployment.replay(versions[-1].version)
        assert again.same, again
        assert (again.from_history, again.learned_count) == (count, total)

        status, said = await deployment.command_line("bootstrap", str(file), HEADRACE_REDIS_URL=redis_url)
        assert status == 2
        assert said.splitlines()[-1].startswith(
            f"error: {deployment.topics.deployed} is live: its newest version is {versions[-1].version}."
        )
        ends = await kafka.end_offsets(deployment.bootstrap, deployment.topics.events)
        assert set(ends.values()) == {0}
    finally:
        await client.delete(*keys)
        await client.aclose()
