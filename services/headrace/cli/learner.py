"""`headrace learner`: versions held to the order that they were learned in."""

from __future__ import annotations

import asyncio
import time

import click

from headrace.learner.hash_seed import pin_hash_seed
from headrace.learner.replay import Replay
from headrace.learner.replay import replay as learn_again
from headrace.platform.artifacts import ArtifactStore
from headrace.platform.pipelines import load_pipeline
from headrace.platform.settings import Settings
from headrace.platform.signing import Verifier
from headrace.platform.topics import Topics, deployed_name


@click.group()
def learner() -> None:
    """What the learner has learned. Which pipeline, namespace and Kafka: HEADRACE_PIPELINE, _NAMESPACE,
    _KAFKA_BOOTSTRAP; where the artifacts are, and the key to verify them: HEADRACE_ARTIFACTS, _SIGNING_PUBLIC_KEY.
    """


@learner.command()
@click.argument("version")
@click.pass_context
def replay(context: click.Context, version: str) -> None:
    """Learn the outcomes of VERSION again, from nothing, in the order that was recorded, and compare.

    The status is 0 when model and ONNX file are the same to the bit and each outcome was learned once, 1 when not, 2
    when it cannot be told: the outcomes are no longer in the topic, say.
    """
    pin_hash_seed()
    settings = Settings.load()
    pipeline = load_pipeline(settings.pipeline)
    topics = Topics(deployed_name(pipeline.name, settings.namespace))
    started = time.monotonic()
    found = asyncio.run(
        learn_again(
            version,
            bootstrap=settings.kafka_bootstrap,
            topics=topics,
            pipeline=pipeline,
            store=ArtifactStore(settings.artifacts),
            verifier=Verifier.read(settings.signing_public_key),
        )
    )
    click.echo(line(found, time.monotonic() - started))
    if not found.same:
        context.exit(1)


def line(found: Replay, took_s: float) -> str:
    """What a replay showed, in one line.

    Args:
        found: the replay.
        took_s: seconds that it took.
    """
    again = found.learned_count - found.from_history
    learned = f"{again:,} outcomes of {found.logs:,} order logs learned again in {took_s:.1f} s"
    if found.from_history:
        learned += f", on top of the {found.from_history:,} events of the bootstrap"
    if found.same:
        return f"version {found.version} ({found.recipe}): the same to the bit; {learned}"
    problems = [
        (not found.equal, "the model differs from its snapshot"),
        (not found.onnx_equal, "the ONNX file differs from the announced one"),
        (bool(found.duplicates), f"{found.duplicates:,} outcomes are recorded twice"),
        (found.learned_count != found.recorded_count, f"{found.recorded_count:,} outcomes were announced"),
    ]
    said = ", ".join(text for holds, text in problems if holds)
    return f"version {found.version} ({found.recipe}): NOT the same: {said}; {learned}"
