"""A champion and its challengers in one learner process, against a real broker."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from headrace.platform.pipelines import load_pipeline
from headrace.v1.model_pb2 import RELEASE_KIND_PROMOTION, ModelVersion
from tests.integration.learner.deployment import Deployment

pytestmark = pytest.mark.timeout(300)

CHALLENGERS = """
def random_forest() -> Any:
    from river import forest

    return forest.ARFClassifier(n_models=3, seed=7, grace_period=50)


def tree() -> Any:
    from river import tree

    return tree.HoeffdingTreeClassifier(grace_period=50, max_share_to_split=1.0)


pipeline = Pipeline("""

MODEL = 'model=Model("scaled_logistic_regression", scaled_logistic_regression, Decision(threshold=0.5)),'
THREE = (
    MODEL
    + ' challengers=[Model("forest", random_forest), Model("tree", tree, negative_sampling=0.5, reset_on_drift=0.01)],'
)


@pytest.fixture
def three_models(deployment: Deployment, tmp_path: Path) -> Deployment:
    """The deployment with two challengers."""
    file = tmp_path / "three.py"
    deployment.declare(file, "\npipeline = Pipeline(", CHALLENGERS)
    file.write_text(file.read_text().replace(MODEL, THREE))
    deployment.pipeline = load_pipeline(str(file))
    return deployment


def newest_by_recipe(versions: list[ModelVersion]) -> dict[str, ModelVersion]:
    return {one.recipe: one for one in versions}


def all_learned(versions: list[ModelVersion], count: int) -> bool:
    return {one.learned_count for one in newest_by_recipe(versions).values()} == {count}


async def test_each_goes_on_through_kills_and_is_what_its_order_gives(three_models: Deployment) -> None:
    deployment, chance = three_models, random.Random(3)
    outcomes = deployment.outcomes(1500, seed=3)
    count = deployment.learnable(outcomes)
    async with asyncio.TaskGroup() as tasks:
        feeding = tasks.create_task(deployment.feed(outcomes, per_transaction=25, pause_s=0.12))
        while not feeding.done() or len(deployment.processes) < 3:
            process = await deployment.start()
            await deployment.until_logged("service started", 100)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(process.wait(), chance.uniform(0.2, 2.0))
            await deployment.kill()
    await deployment.start()
    versions = await deployment.until(lambda found: bool(found) and all_learned(found, count), 100)
    newest = newest_by_recipe(versions)
    assert list(newest) == ["scaled_logistic_regression", "forest", "tree"]
    assert [one.challenger for one in newest.values()] == [False, True, True]
    assert newest["forest"].kind == newest["tree"].kind == RELEASE_KIND_PROMOTION
    # Announced together, so they never come apart.
    for first in range(0, len(versions), 3):
        assert len({one.learned_count for one in versions[first : first + 3]}) == 1
    for recipe, version in newest.items():
        again = await deployment.replay(version.version)
        assert (again.recipe, again.same) == (recipe, True), again
    status, said = await deployment.command_line("learner", "replay", newest["forest"].version)
    assert status == 0, said
    assert f"version {newest['forest'].version} (forest): the same to the bit; {count:,} outcomes of" in said
    deployment.store.path(newest["forest"].order.uri).write_bytes(b"something else")
    status, said = await deployment.command_line("learner", "replay", newest["forest"].version)
    assert status == 2
    assert "order log of version" in said


async def test_one_that_is_new_begins_where_the_champion_is(three_models: Deployment) -> None:
    deployment, with_challengers = three_models, three_models.declaration
    deployment.declaration = "pipelines/fraud.py"
    first, second = deployment.outcomes(300, seed=1), deployment.outcomes(300, seed=2)
    await deployment.start()
    await deployment.feed(first)
    count = deployment.learnable(first)
    await deployment.until(lambda found: bool(found) and found[-1].learned_count == count, 100)
    assert await deployment.terminate() == 0
    deployment.declaration = with_challengers
    await deployment.start()
    await deployment.until_logged("service started", 100)
    await deployment.feed(second)
    later = deployment.learnable(second)
    versions = await deployment.until(
        lambda found: newest_by_recipe(found)["scaled_logistic_regression"].learned_count == count + later
    )
    newest = newest_by_recipe(versions)
    assert newest["forest"].learned_count == newest["tree"].learned_count == later
    for version in newest.values():
        assert (await deployment.replay(version.version)).same
