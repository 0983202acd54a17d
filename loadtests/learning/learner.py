"""The learner beside a bare River loop over the same rows: `make bench-learner`.

The control is River's own test-then-train loop, `predict_proba_one` then `learn_one`, over rows that lie ready as
dicts. The learner is given what it is given in service: packed outcomes, gathers of 500, from which it reads the rows,
casts and checks them, puts them in order, scores and learns each, keeps the prequential metrics and records the order.
Both take turns, a gather each, in one process, and are measured in CPU time.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from river import forest, linear_model, optim, preprocessing

from headrace.learner import snapshot
from headrace.learner.examples import OutcomeRecord, decode
from headrace.learner.learning import Learning
from headrace.learner.recipes import declared
from headrace.pipeline import Model
from headrace.v1.event_pb2 import Label
from headrace.v1.prediction_pb2 import OUTCOME_KIND_LABELLED, Outcome, Prediction
from loadtests import bench
from loadtests.figures import Figure, figure

FINGERPRINT = 7
GATHER = 500
SCALES = (53.0, 1.0, 1.0, 2.0, 53.0, 14.0, 53.0, 60.0, 53.0, 1.0, 0.01, 7.0, 0.01, 30.0, 0.01)
NAMES = tuple(f"feature_{number}" for number in range(len(SCALES)))
GOAL = 0.8


def logistic_regression() -> Any:
    """The default recipe."""
    return preprocessing.StandardScaler() | linear_model.LogisticRegression(optim.SGD(0.005))


def random_forest() -> Any:
    """Ten trees."""
    return forest.ARFClassifier(n_models=10, seed=7)


RECIPES: dict[str, tuple[Callable[[], Any], int]] = {
    "logistic regression": (logistic_regression, 100_000),
    "ARF(10)": (random_forest, 20_000),
}


def outcomes(count: int) -> list[OutcomeRecord]:
    """Outcomes with features like those of card payments, one in a hundred a fraud, as they lie in Kafka."""
    chance = np.random.default_rng(7)
    rows = np.abs(chance.normal(SCALES, np.array(SCALES) / 2, (count, len(SCALES))))
    frauds = chance.random(count) < np.where(rows[:, 0] > 2 * SCALES[0], 0.4, 0.005)
    return [
        OutcomeRecord(
            index % 4,
            index // 4,
            index,
            Outcome(
                kind=OUTCOME_KIND_LABELLED,
                prediction=Prediction(event_id=f"{index:08d}", features=row, features_fingerprint=FINGERPRINT),
                label=Label(event_id=f"{index:08d}", value=float(fraud), label_time_us=index // 3),
            ).SerializeToString(),
        )
        for index, (row, fraud) in enumerate(zip(rows.tolist(), frauds.tolist(), strict=True))
    ]


def compare(name: str, build: Callable[[], Any], count: int) -> list[Figure]:
    """Learn the same rows in both ways, in turns."""
    records = outcomes(count)
    ready = [
        (dict(zip(NAMES, one.row, strict=True)), one.label)
        for one in sorted(decode(records, FINGERPRINT, len(NAMES)), key=lambda one: one[:4])
    ]
    recipe = declared(Model(name, build), NAMES)
    learning = Learning(recipe, NAMES, FINGERPRINT, (0, 0, 0, 0))
    river, alone = build(), build()
    seconds = {"learner": 0.0, "river": 0.0, "alone": 0.0}
    gc.collect()
    for start in range(0, count, GATHER):
        with_labels = ready[start : start + GATHER]

        started = time.process_time()
        learning.learn(decode(records[start : start + GATHER], FINGERPRINT, len(NAMES)))
        seconds["learner"] += time.process_time() - started

        started = time.process_time()
        for x, label in with_labels:
            river.predict_proba_one(x)
            river.learn_one(x, label)
        seconds["river"] += time.process_time() - started

        started = time.process_time()
        for x, label in with_labels:
            alone.learn_one(x, label)
        seconds["alone"] += time.process_time() - started
    sample = [list(x.values()) for x, _ in ready[-1000:]]
    expected = [river.predict_proba_one(x).get(True, 0.0) for x, _ in ready[-1000:]]
    if recipe.score(sample, NAMES).tolist() != expected:
        raise SystemExit(f"{name}: the learner and River's loop have learned different models")
    rate = {one: count / took for one, took in seconds.items()}
    started = time.process_time()
    content = snapshot.encode(learning.snapshot("000001", "000000"))
    took = time.process_time() - started
    return [
        figure(
            f"learner, {name}",
            rate["learner"],
            "outcomes/s/core",
            control=("River, predict and learn", rate["river"]),
            least_ratio=GOAL,
        ),
        figure(
            f"learner, {name}, beside learning alone",
            rate["learner"],
            "outcomes/s/core",
            control=("River, learn alone", rate["alone"]),
        ),
        figure(f"snapshot, {name}: taken", took * 1000, "ms", better="lower"),
        figure(f"snapshot, {name}: size", len(content) / 1024, "KiB", better="lower"),
    ]


def main() -> int:
    """Measure, print, and write `.run/bench/learner.json`."""
    parser = argparse.ArgumentParser(description="The learner, beside River's own loop.")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows: a check that it works, not figures")
    quick = parser.parse_args().quick

    def part(name: str) -> bench.Part:
        build, count = RECIPES[name]

        async def measure() -> list[Figure]:
            return compare(name, build, count // 10 if quick else count)

        return measure

    return bench.run("learner", {name: part(name) for name in RECIPES}, packages=("river", "numpy"), controls=False)


if __name__ == "__main__":
    raise SystemExit(main())
