"""The stream processor as processes: exact, whatever is killed, stopped or taken back."""

from __future__ import annotations

import random
import signal
from collections import Counter
from typing import Any

import pytest

from tests.integration.features.deployment import Deployment
from tests.integration.features.payments import Payments, outcome

# Waits have deadlines of their own, below this, after which the processes are ended.
pytestmark = pytest.mark.timeout(300)


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


async def test_a_stopped_worker_leaves_nothing_uncommitted(deployment: Deployment) -> None:
    chance = random.Random(8)
    payments = Payments(deployment.plan.pipeline, 20_000, seed=3)
    outcomes = payments.outcomes()
    await deployment.publish(payments.records)
    worker = await deployment.start()
    stops = 5
    for number in range(stops):
        await deployment.publish_outcomes(outcomes[number::stops])
        await deployment.until_emitted(await deployment.emitted() + chance.randrange(1, 3500))
        worker.send(signal.SIGTERM)
        assert await worker.wait() == 0
        await worker.start()
    await deployment.until(deployment.caught_up, "everything is committed")
    contents = await deployment.assert_exact()
    assert contents.all_vectors == len(contents.vectors)


async def test_a_worker_that_was_suspended_while_another_took_over(deployment: Deployment) -> None:
    """The first is stopped in full flight; when it goes on, in the middle of a batch, its partitions are another's."""
    payments = Payments(deployment.plan.pipeline, 12_000, seed=4)
    third = len(payments.records) // 3
    first, second = await deployment.start(batch_events=50), await deployment.start()
    await deployment.until(lambda: shares(deployment, 2), "both have partitions")
    await deployment.until(lambda: first.answers("/readyz"), "the first is ready")
    await deployment.until(lambda: second.answers("/readyz"), "the second is ready")
    await deployment.publish(payments.records[:third])
    await deployment.until_emitted(500)
    first.send(signal.SIGSTOP)
    try:
        await deployment.publish_outcomes(payments.outcomes())
        await deployment.publish(payments.records[third : 2 * third])
        await deployment.until(deployment.caught_up, "the second has taken over")
    finally:
        first.send(signal.SIGCONT)
    await deployment.publish(payments.records[2 * third :])
    await deployment.until(lambda: shares(deployment, 2), "the first has partitions again")
    await deployment.until(deployment.caught_up, "everything is committed")
    await deployment.assert_exact()
    assert not first.ended
    assert not second.ended


async def test_a_worker_that_joins_and_leaves_during_the_stream(deployment: Deployment) -> None:
    payments = Payments(deployment.plan.pipeline, 5000, seed=15)
    half = len(payments.records) // 2
    first = await deployment.start(batch_events=50)
    await deployment.until(lambda: first.answers("/readyz"), "the first is ready")
    await deployment.publish_outcomes(payments.outcomes())
    await deployment.publish(payments.records[:half])
    second = await deployment.start(batch_events=50)
    await deployment.until(lambda: shares(deployment, 2), "both have partitions")
    await deployment.publish(payments.records[half:])
    second.send(signal.SIGTERM)
    assert await second.wait() == 0
    deployment.workers.remove(second)
    await deployment.until(deployment.caught_up, "everything is committed")
    contents = await deployment.assert_exact()
    assert contents.all_vectors == len(contents.vectors), "both have committed what they have published"
    assert len(first.partitions("events")) == 4


async def test_outcomes_of_an_aborted_transaction_are_never_merged(deployment: Deployment) -> None:
    payments = Payments(deployment.plan.pipeline, 60, seed=16)
    aborted, committed = ([outcome(event, fraud=True) for event in payments.events[number:60:2]] for number in range(2))
    await deployment.publish(payments.records)
    worker = await deployment.start()
    await deployment.abort_outcomes(aborted)
    await deployment.until(deployment.caught_up, "the markers of the aborted transaction are passed")
    label_logs = deployment.keys.label_log("terminal") + "*"
    assert not [name async for name in deployment.client.scan_iter(label_logs, 1000)]
    await deployment.publish_outcomes(committed)
    await deployment.until(deployment.caught_up, "everything is committed")
    contents = await deployment.assert_exact()
    assert len(contents.labels) == len(committed)
    assert f"headrace_features_merged_outcomes_total {len(committed)}.0" in await worker.get("/metrics")


async def shares(deployment: Deployment, most: int) -> bool:
    """Whether no worker's newest assignment of `events` has more partitions than that, and none is without."""
    return all(0 < len(worker.partitions("events")) <= most for worker in deployment.workers)


async def test_a_state_that_was_taken_back_is_built_again(deployment: Deployment) -> None:
    """Redis loses its last writes twice: while the worker runs, and while it has nothing to do."""
    payments = Payments(deployment.plan.pipeline, 12_000, seed=5)
    outcomes = payments.outcomes()
    await deployment.publish_outcomes(outcomes[::2])
    await deployment.publish(payments.records[:6000])
    worker = await deployment.start(chunk_events=50)
    await deployment.until_emitted(1000)
    early = await deployment.dump_state()
    await deployment.publish_outcomes(outcomes[1::2])
    await deployment.until_emitted(4000)
    await deployment.restore_state(early)
    await deployment.publish(payments.records[6000:9000])
    await deployment.until(deployment.caught_up, "the first part is committed")
    late = await deployment.dump_state()
    await deployment.publish(payments.records[9000:])
    await deployment.until(deployment.caught_up, "everything is committed")
    contents = await deployment.contents()
    await deployment.restore_state(late)
    assert await contents.wrong_keys(deployment.client, deployment.keys)

    async def merged() -> bool:
        return not await contents.wrong_keys(deployment.client, deployment.keys)

    await deployment.until(merged, "the idle worker has noticed and merged again")
    again = await deployment.assert_exact()
    assert again.all_vectors == contents.all_vectors, "what was published is not published again"
    assert "fence moved, seeking again" in worker.text()


async def test_a_topic_that_was_created_anew_stops_the_worker(deployment: Deployment) -> None:
    payments = Payments(deployment.plan.pipeline, 500, seed=6)
    await deployment.publish(payments.records)
    worker = await deployment.start()
    await deployment.until(deployment.caught_up, "everything is committed")
    await deployment.recreate(deployment.topics.events)
    await deployment.publish(payments.records[:20])
    assert await worker.wait(40) == 2
    assert f"topic {deployment.topics.events} is not " in worker.text()
    await worker.start()
    assert await worker.wait() == 2
    assert f"error: topic {deployment.topics.events} is not the one that the state was made from" in worker.text()
    assert "`headrace features reset` clears the state" in worker.text()


async def test_reset_builds_the_state_again(deployment: Deployment) -> None:
    payments = Payments(deployment.plan.pipeline, 4000, seed=7)
    await deployment.publish(payments.records)
    await deployment.publish_outcomes(payments.outcomes())
    worker = await deployment.start()
    await deployment.until(deployment.caught_up, "everything is committed")
    status, said = await deployment.command("features", "reset", "--yes")
    assert status == 2
    assert said.startswith(f"error: consumer group {deployment.topics.group('features')} has members")
    assert said.endswith("stop the features service first (a killed one is a member for seconds more)\n")
    worker.send(signal.SIGTERM)
    assert await worker.wait() == 0
    before = await deployment.contents()
    status, said = await deployment.command("features", "reset")
    assert status == 130, "nobody confirmed it"
    assert said.startswith(f"Delete the feature state of {deployment.topics.deployed} and build it again? [y/N]:")
    assert await deployment.caught_up()
    status, said = await deployment.command("features", "reset", "--yes")
    assert status == 0
    assert said.endswith("keys deleted; `headrace run features` builds the state again\n")
    assert not [name async for name in deployment.client.scan_iter(f"{deployment.keys.prefix}*", 1000)]
    assert not await deployment.caught_up()
    await worker.start()
    await deployment.until(deployment.caught_up, "everything is committed again")
    after = await deployment.assert_exact()
    assert after.all_vectors == 2 * before.all_vectors
    assert after.vectors == before.vectors


async def test_an_outcome_that_cannot_be_used_is_set_aside(deployment: Deployment) -> None:
    payments = Payments(deployment.plan.pipeline, 50, seed=8)
    await deployment.publish(payments.records)
    strange = outcome(payments.events[0], fraud=True)
    strange.prediction.entities.append("one too many")
    usable = outcome(payments.events[1], fraud=True)
    await deployment.publish_raw(deployment.topics.outcomes, [b"\xff\xff", strange.SerializeToString()])
    await deployment.publish_outcomes([usable])
    await deployment.start()
    await deployment.until(deployment.caught_up, "everything is committed")
    rejected = (await deployment.contents()).rejected
    reasons = {record.reason: record for record in rejected if record.source.topic == deployment.topics.outcomes}
    assert set(reasons) == {"undecodable", "wrong_shape"}
    assert reasons["wrong_shape"].detail == "prediction.entities has 3 ids; this pipeline has 2 entities"
    assert await deployment.client.exists(deployment.keys.label_log("terminal") + usable.prediction.entities[1])


async def test_a_partition_that_nothing_comes_from_is_idle_until_something_does(deployment: Deployment) -> None:
    payments = Payments(deployment.plan.pipeline, 400, seed=17)
    first = [record for record in payments.records[:100] if record.partition == 1]
    others = [record for record in payments.records if record.partition != 1]
    last = [record for record in payments.records[-100:] if record.partition == 1]
    await deployment.publish(first)
    await deployment.start(idle_after_s=0.5)
    await deployment.until(deployment.caught_up, "the first are committed")

    async def idle() -> list[int]:
        stored: Any = await deployment.client.hgetall(deployment.keys.sources)
        return [
            partition for partition in range(4) if stored.get(f"events/{partition}".encode(), b"").endswith(b"idle")
        ]

    assert await idle() == []
    await deployment.publish(others)

    async def one_is_idle() -> bool:
        return 1 in await idle()

    await deployment.until(one_is_idle, "the partition that is behind is idle")
    await deployment.publish(last)
    await deployment.until(deployment.caught_up, "everything is committed")
    assert 1 not in await idle()
    await deployment.assert_exact()


async def test_readiness_and_metrics(deployment: Deployment) -> None:
    payments = Payments(deployment.plan.pipeline, 300, seed=9)
    worker = await deployment.start()
    await deployment.until(lambda: worker.answers("/readyz"), "the worker is ready")
    await deployment.publish(payments.records)
    await deployment.until(deployment.caught_up, "everything is committed")
    contents = await deployment.assert_exact()

    async def counted() -> bool:
        metrics = await worker.get("/metrics")
        return f"headrace_features_emitted_vectors_total {len(contents.vectors)}.0" in metrics and all(
            f'headrace_rejected_records_total{{reason="{reason}",service="features"}} {count}.0' in metrics
            for reason, count in Counter(record.reason for record in contents.rejected).items()
        )

    await deployment.until(counted, "the counters say the same")
    assert '"ready": true' in await worker.get("/readyz")
    assert '"alive": true' in await worker.get("/livez")
