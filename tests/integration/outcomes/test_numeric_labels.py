"""Labels that are numbers, from their topic to what the learner makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headrace.learner.cohort import Cohort, Member
from headrace.learner.examples import OutcomeRecord
from headrace.learner.learning import Learning
from headrace.learner.recipes import declared
from headrace.platform.pipelines import load_pipeline
from tests.integration.outcomes.deployment import Deployment, label, on_day, prediction, summary

PIPELINE = str(Path(__file__).with_name("numeric_pipeline.py"))


async def test_numbers_are_joined_corrected_set_aside_and_learned(deployment: Deployment) -> None:
    deployment.pipeline = PIPELINE
    pipeline = load_pipeline(PIPELINE)
    await deployment.start()
    minutes = {f"e{number}": 5 + number / 4 for number in range(100)}
    of_pipeline: dict[str, Any] = {"features_fingerprint": pipeline.features_fingerprint}
    await deployment.send_predictions([prediction(one, on_day(0), **of_pipeline) for one in [*minutes, "long"]])
    await deployment.send_labels([label(one, value, on_day(1)) for one, value in minutes.items()])
    await deployment.send_labels([label("long", 600.5, on_day(1)), label("e3", 12.125, on_day(2))])
    await deployment.joined()
    outcomes = await deployment.outcomes()
    labelled = [(one, "labelled", value, None) for one, value in minutes.items()]
    assert summary(outcomes) == sorted([*labelled, ("e3", "corrected", 12.125, minutes["e3"])])
    (rejected,) = await deployment.rejected()
    assert (rejected.reason, rejected.field) == ("out_of_range", "value")
    assert rejected.detail == "value is 600.5; allowed is 0 to 600 minutes"

    recipe = declared(pipeline.model, pipeline.feature_names, numeric=pipeline.label.numeric)
    learning = Learning(recipe, pipeline.feature_names, pipeline.features_fingerprint, (0,))
    records = [OutcomeRecord(0, at, at, one.SerializeToString()) for at, one in enumerate(outcomes)]
    Cohort([Member(pipeline.model.name, learning, challenger=False)]).learn(records)
    assert learning.learned_count == len(minutes)
    assert learning.ignored == {"correction": 1}
    # All rows are the same, so that it has learned about the mean, which no class would have taught it.
    (score,) = recipe.score([[1.5]], pipeline.feature_names).tolist()
    assert 10 < score < 30
