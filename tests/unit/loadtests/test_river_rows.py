"""Some rows of River's benchmark page, quick ones, by the learner alone; `make check-river` holds it to all of them."""

from __future__ import annotations

import numpy as np
import pytest

from headrace.learner.recipes import declared
from headrace.platform.pipelines import load_pipeline
from loadtests.learning.river_rows.data import load
from loadtests.learning.river_rows.declaration import DECLARED, recipe
from loadtests.learning.river_rows.page import Quality
from loadtests.learning.river_rows.prequential import learner_scores, unanswered

ROWS = {
    ("Phishing", "Logistic regression"): ("0.887200", "0.871233"),
    ("Phishing", "Hoeffding Adaptive Tree"): ("0.874299", "0.856095"),
    ("Phishing", "[baseline] Last Class"): ("0.515612", "0.447489"),
    ("Bananas", "ALMA"): ("0.506415", "0.482595"),
    ("Bananas", "Hoeffding Tree"): ("0.643140", "0.505621"),
}


@pytest.mark.parametrize(("dataset", "model"), ROWS)
def test_the_learner_gives_the_printed_digits_of_the_page(dataset: str, model: str) -> None:
    data = load(dataset)
    quality = Quality.of(learner_scores(model, data), data.labels, unanswered(model, data))
    assert quality.printed == ROWS[dataset, model]


@pytest.mark.parametrize("dataset", ["Phishing", "Bananas"])
def test_features_are_exact_in_float32_and_give_the_numbers_that_river_reads(dataset: str) -> None:
    data = load(dataset)
    single = data.features.astype(np.float32).astype(np.float64)
    assert np.array_equal(single / data.declared.parts, data.rows)


@pytest.mark.parametrize("dataset", DECLARED)
def test_every_model_of_the_page_can_be_served(dataset: str) -> None:
    pipeline = load_pipeline(f"loadtests/learning/river_rows/{dataset.lower()}.py")
    assert pipeline.feature_names == DECLARED[dataset].features
    assert [model.name for model in pipeline.models] == [
        recipe(model, DECLARED[dataset]).name for model in DECLARED[dataset].models
    ]
    for model in pipeline.models:
        declared(model, pipeline.feature_names)
