"""States of versions, and what their models are described by."""

from __future__ import annotations

import random
from typing import Any

import pytest
from river import compose, ensemble, forest, linear_model, preprocessing, tree

from headrace.cli.lineage import lineage_lines
from headrace.cli.model_catalog import state_of, time_text
from headrace.cli.model_diff import describe, difference_lines
from headrace.cli.text_table import age, table_lines
from headrace.learner.river_recipe import RiverRecipe
from headrace.v1.alert_pb2 import ALERT_STATE_CLEARED, ALERT_STATE_RAISED, Alert
from headrace.v1.model_pb2 import ModelVersion, RoutedVersion, RouteTable

NAMES = ("a", "b", "c")


def version(number: int, recipe: str = "a", epoch: int = 1) -> ModelVersion:
    return ModelVersion(version=f"{number:06d}", recipe_fingerprint=recipe, learner_epoch=epoch)


def routed(number: int, recipe: str = "a") -> RoutedVersion:
    return RoutedVersion(model=version(number, recipe))


def test_states() -> None:
    announced = [version(number) for number in range(8)] + [version(8, "b"), version(9, "b"), version(10, "c")]
    table = RouteTable(champion=routed(5), canary=routed(8, "b"), previous=[routed(4), routed(3)], withdrawn=["000002"])
    alerts = {
        "000006": Alert(state=ALERT_STATE_RAISED),
        "000007": Alert(state=ALERT_STATE_CLEARED),
        # It takes traffic all the same: what serves is the table's to say.
        "000005": Alert(state=ALERT_STATE_RAISED),
    }
    found = {one.version: state_of(one, announced, table, alerts) for one in announced}
    assert found == {
        "000000": ("retired", ""),
        "000001": ("retired", ""),
        "000002": ("withdrawn", ""),
        "000003": ("previous", ""),
        "000004": ("previous", ""),
        "000005": ("live", "champion"),
        "000006": ("refused", ""),
        "000007": ("candidate", ""),
        "000008": ("live", "canary"),
        "000009": ("candidate", ""),
        # A recipe without a route: its newest may still come.
        "000010": ("candidate", ""),
    }
    assert state_of(version(99), announced, table, {}) == ("retired", "")
    assert [state_of(one, announced[:3], None, {})[0] for one in announced[:3]] == ["retired", "retired", "candidate"]


@pytest.mark.parametrize(
    ("model", "count"),
    [
        (tree.HoeffdingTreeClassifier(grace_period=20, delta=0.5), 1),
        (compose.Pipeline(preprocessing.StandardScaler(), tree.HoeffdingAdaptiveTreeClassifier(seed=1)), 1),
        (forest.ARFClassifier(n_models=3, seed=1), 3),
        (ensemble.BaggingClassifier(tree.HoeffdingTreeClassifier(), n_models=4, seed=1), 4),
    ],
)
def test_trees_are_counted(model: Any, count: int) -> None:
    recipe = RiverRecipe(model.clone, NAMES)
    learn(recipe)
    trees = describe(recipe.state())["trees"]
    assert trees["count"] == count
    assert trees["nodes"] >= trees["leaves"] >= count
    assert trees["height"] >= 0


def test_a_linear_model_has_weights() -> None:
    model = compose.Pipeline(preprocessing.StandardScaler(), linear_model.PAClassifier())
    recipe = RiverRecipe(model.clone, NAMES)
    learn(recipe)
    found = describe(recipe.state())
    assert set(found["weights"]) == {*NAMES, "(intercept)"}
    assert found["steps"] == {"Pipeline": 1, "StandardScaler": 1, "PAClassifier": 1}


def learn(recipe: RiverRecipe) -> None:
    chance = random.Random(3)
    rows = [[chance.gauss(0, 1) for _ in NAMES] for _ in range(300)]
    recipe.learn(rows, [row[0] > 0 for row in rows], NAMES)


def test_a_difference_for_a_person() -> None:
    found = {
        "first": "000001",
        "second": "000002",
        "recipe": ["forest", "line"],
        "same_recipe": False,
        "same_features": True,
        "learned_count": [100, 250],
        "learned": [
            {"partition": 0, "first_end": 100, "second_end": 250},
            {"partition": 1, "first_end": 5, "second_end": 5},
        ],
        "metrics": {"log_loss": [0.5, 0.25], "new": [None, 1.0]},
        "model": {
            "first": {"steps": {}, "trees": {"count": 3, "nodes": 31, "leaves": 17, "height": 4}},
            "second": {"steps": {"PAClassifier": 1}, "weights": {"a": 1.0}},
        },
        "scores": {
            "rows": 9,
            "mean": [0.5, 0.25],
            "mean_difference": 0.3,
            "largest_difference": 0.75,
            "p95_difference": 0.6,
        },
        "not_compared": ["nothing"],
    }
    assert difference_lines(found) == [
        "000001 -> 000002",
        "  recipe forest -> line, the same features",
        "  learned      100 -> 250 outcomes (+150)",
        "    outcomes/0  only 000002 learned 100 to 250 (exclusive)",
        "  log_loss                   0.5 -> 0.25 (-0.25)",
        "  new                        - -> 1",
        "  first        3 trees, 31 nodes, 17 leaves, at most 4 high",
        "  second       linear, 1 weights",
        "  scores       on 9 recent rows: mean 0.5 -> 0.25; apart by 0.3 on average, 0.75 at the most",
        "  not compared nothing",
    ]
    weights = {f"w{number}": [0.0, float(number)] for number in range(25)}
    lines = difference_lines({**found, "model": {"weights": weights}})
    assert "  weight w24                                      0 -> 24 (+24)" in lines
    assert "  5 weights that changed less are left out; --json has them" in lines


def test_a_lineage_names_what_is_missing() -> None:
    found = {
        "event_id": "e",
        "event": {"time": "t", "position": None, "channel": "unary", "entities": {"customer_id": "c1"}},
        "prediction": {
            "prediction_id": "p",
            "position": "fraud.predictions/0/1",
            "answered_time": "t",
            "decision": "accept",
            "score": 0.5,
            "degradations": ["model_in_process"],
            "model_version": "000001",
            "route": "champion",
            "route_epoch": 2,
        },
        "others": [],
        "features": {
            "fingerprint": "ab",
            "values": {"amount": 1.5},
            "overridden": ["amount"],
            "evaluated_at": {"events": [3, -1], "outcomes": []},
        },
        "model": None,
        "ancestors": None,
        "outcome": None,
        "missing": [{"what": "model", "why": "retention"}],
        "notes": ["a note"],
        "complete": False,
    }
    lines = list(lineage_lines(found))
    assert "  in           no topic, by unary" in lines
    assert "  answer       accept, score 0.5, degraded: model_in_process" in lines
    assert "  state up to  events 3/-; outcomes not known" in lines
    assert "  amount                                   1.5 (overridden by the caller)" in lines
    assert lines[-3:] == ["note: a note", "MISSING model: retention", "NOT complete: 1 missing"]


def test_columns_and_times() -> None:
    assert table_lines([("A", "BB"), ("long", "x"), ("s", "")]) == ["A     BB", "long  x", "s"]
    assert table_lines([]) == []
    assert [age(seconds * 1e6) for seconds in (-1, 59, 60, 3600, 200_000)] == ["0s", "59s", "1m", "1h", "2d"]
    assert time_text(0) is None
    assert time_text(1_600_000_000_123_456) == "2020-09-13T12:26:40.123Z"
