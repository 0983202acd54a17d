"""The stream processor as processes: exact, whatever is killed, stopped or taken back."""

from __future__ import annotations

import random
import signal

import pytest

from tests.integration.features.deployment import Deployment
from tests.integration.features.payments import Payments

# Waits have deadlines of their own, below this, after which the processes are ended.
pytestmark = pytest.mark.timeout(120)


async def test_vectors_equal_their_recomputation(deployment: Deployment) -> None:
    payments = Payments(deployment.plan.pipeline, 3000, seed=1)
    half = len(payments.records) // 2
    await deployment.publish(payments.records[:half])
    await deployment.start()
    await deployment.until(deployment.caught_up, "the first half is committed")
    await deployment.publish_outcomes(payments.outcomes())
    await deployment.until(deployment.caught_up, "the labels are merged")
    await deployment.publish(payments.records[half:])
    await deployment.until(deployment.caught_up, "the second half is committed")
    contents = await deployment.assert_exact()
    assert contents.all_vectors == len(contents.vectors)
    answered = [place for place, one in contents.accepted.items() if one.event.answered]
    assert answered
    assert not contents.vectors.keys() & set(answered)
    at = deployment.plan.pipeline.feature_names.index("terminal_label_rate_7d")
    assert any(vector.values[at] > 0 for vector in contents.vectors.values())
    assert contents.rejected
    assert {record.reason for record in contents.rejected} == {"undecodable"}


async def test_kill_9_during_the_stream(deployment: Deployment) -> None:
    chance = random.Random(7)
    payments = Payments(deployment.plan.pipeline, 20_000, seed=2)
    outcomes = payments.outcomes()
    await deployment.publish(payments.records)
    worker = await deployment.start()
    kills = 5
    for number in range(kills):
        await deployment.publish_outcomes(outcomes[number::kills])
        await deployment.until_emitted(await deployment.emitted() + chance.randrange(1, 3500))
        worker.send(signal.SIGKILL)
        assert await worker.wait() == -signal.SIGKILL
        await worker.start()
    await deployment.until(deployment.caught_up, "everything is committed")
    contents = await deployment.assert_exact()
    assert contents.all_vectors > len(contents.vectors)
