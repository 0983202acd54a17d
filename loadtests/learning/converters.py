"""Every River model that has an ONNX form beside its file: `make bench-converters`.

The models are those of the exporter's suite, and some of the size that one would serve. Each learns the same rows; then
the file of each is made, and River and ONNX Runtime score the same rows, in CPU time on one thread: River a row at a
time, as it can, ONNX Runtime in batches. The scores are compared on the way.
"""

from __future__ import annotations

import argparse
import gc
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from river import ensemble, forest, linear_model, preprocessing

from headrace.onnx_export import INPUT_NAME, OUTPUT_NAME, export
from loadtests import bench
from loadtests.figures import Figure, figure
from tests.unit.onnx_export.case import NAMES, Case
from tests.unit.onnx_export.comparing import learn, river_scores
from tests.unit.onnx_export.every_model import CASES

BATCH = 512
WIDTH = 15
LEARNED, SCORED = 3_000, 20_000
QUICK_LEARNED, QUICK_SCORED = 300, 1_000
TOLERANCE = 1e-6
THRESHOLD = 0.5


def _logistic_regression() -> Any:
    return preprocessing.StandardScaler() | linear_model.LogisticRegression()


SERVED: dict[str, Case] = {
    "served: scaler | logistic regression": Case(_logistic_regression),
    "served: 10 bagged logistic regressions": Case(
        lambda: ensemble.BaggingClassifier(_logistic_regression(), n_models=10, seed=1)
    ),
    "served: ARF(10)": Case(lambda: forest.ARFClassifier(n_models=10, seed=7), knows_absence=True),
}


@dataclass(frozen=True)
class Rows:
    """What a model learns and scores.

    Attributes:
        names: of the features.
        learned, scored: float32 [rows, features].
        targets: of the learned rows.
    """

    names: tuple[str, ...]
    learned: NDArray[np.float32]
    scored: NDArray[np.float32]
    targets: list[Any]


def rows_for(case: Case, learned: int, scored: int) -> Rows:
    """Features like those of card payments: amounts, counts and rates; the third is a code, or all are."""
    width = len(NAMES) if case.only_names else WIDTH
    chance = np.random.default_rng(7)
    rows = np.abs(chance.normal(50.0, 25.0, (learned + scored, width))) * np.geomspace(0.01, 10, width)
    codes = chance.choice([0.0, 1.0, -1.0, 0.5, 2.0], rows.shape)
    rows[:, 2] = codes[:, 2]
    given: NDArray[np.float32] = (codes if case.codes else rows).astype(np.float32)
    centred = (given - given.mean(0)) / given.std(0)
    signal = centred[:, 0] - centred[:, 1] * centred[:, 3] + chance.normal(0.0, 0.5, len(given))
    targets = np.abs(signal) if case.kind == "regressor" else signal > 0.8
    return Rows(tuple(f"f{i}" for i in range(width)), given[:learned], given[learned:], targets[:learned].tolist())


def compare(name: str, case: Case, learned: int, scored: int) -> list[Figure]:
    """Make one model and its file, and score the same rows by both."""
    rows = rows_for(case, learned, scored)
    model = learn(case.make(), rows.learned, rows.targets, rows.names)
    gc.collect()
    started = time.process_time()
    content = export(model, rows.names)
    made = time.process_time() - started

    started = time.process_time()
    expected = river_scores(model, rows.scored, rows.names)
    river = scored / (time.process_time() - started)

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    session.run([OUTPUT_NAME], {INPUT_NAME: rows.scored[:BATCH]})
    got = []
    started = time.process_time()
    for start in range(0, scored, BATCH):
        got.append(session.run([OUTPUT_NAME], {INPUT_NAME: rows.scored[start : start + BATCH]})[0])
    runtime = scored / (time.process_time() - started)

    scores = np.concatenate(got)[:, 0]
    difference = float(np.max(np.abs(scores - expected) / np.maximum(1.0, np.abs(expected))))
    figures = [
        figure(f"{name}: scoring", runtime, "rows/s/core", control=("River", river)),
        figure(f"{name}: export", made * 1000, "ms", better="lower"),
        figure(f"{name}: file", len(content) / 1024, "KiB", better="lower"),
        figure(f"{name}: largest difference", difference, "", better="lower", most=TOLERANCE),
    ]
    if case.kind == "classifier":
        flipped = int(np.sum((scores >= THRESHOLD) != (expected >= THRESHOLD)))
        figures.append(figure(f"{name}: labels flipped", flipped, "", better="lower", most=0))
    return figures


def main() -> int:
    """Measure, print, and write `.run/bench/converters.json`."""
    parser = argparse.ArgumentParser(description="River models beside their ONNX files.")
    parser.add_argument("--quick", action="store_true", help="a few rows: a check that it works, not figures")
    parser.add_argument("--only", default="", metavar="TEXT", help="models with this in their names")
    given = parser.parse_args()
    learned, scored = (QUICK_LEARNED, QUICK_SCORED) if given.quick else (LEARNED, SCORED)

    def part(name: str, case: Case) -> bench.Part:
        async def measure() -> list[Figure]:
            return compare(name, case, learned, scored)

        return measure

    parts = {name: part(name, case) for name, case in {**SERVED, **CASES}.items() if given.only in name}
    return bench.run("converters", parts, packages=("river", "onnx", "onnxruntime", "numpy"), controls=False)


if __name__ == "__main__":
    raise SystemExit(main())
