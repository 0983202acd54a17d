"""The rows of River's own benchmark page, met by the learner: `python -m loadtests.learning.benchmarks [DATASET…]`.

Each model learns as in service: the rows come as packed outcomes, features as float32, in the order of label times, and
each is scored just before it is learned. Accuracy and F1 of these prequential scores are held to the printed digits of
River's page, as River 0.26.1 gives them (`river_published_vs_0.26.1.csv`, columns `river_0.26.1_…`).

Where a row differs, the control says why: River's own loop over the same rows, as double and as float32.

As River's page does: a score of exactly one half is the label False, and a row for which an untrained model has no
answer at all does not count.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import gzip
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river import datasets

from headrace.learner.examples import OutcomeRecord, decode
from headrace.learner.recipes import declared
from headrace.pipeline import Model
from headrace.v1.event_pb2 import Label
from headrace.v1.prediction_pb2 import OUTCOME_KIND_LABELLED, Outcome, Prediction
from loadtests import bench
from loadtests.figures import Figure
from loadtests.learning import whole_path
from loadtests.learning.river_models import MODELS
from loadtests.processes import ProcessFailed

FOLDER = Path("../shared/data/river")
FINGERPRINT = 7
GATHER = 500
PRINTED = 6
"""Digits of the page."""


@dataclass(frozen=True)
class Dataset:
    """Rows in their order.

    Attributes:
        names: of the features.
        rows: float64 (n, features).
        labels: bool (n,).
    """

    names: tuple[str, ...]
    rows: NDArray[np.float64]
    labels: NDArray[np.bool_]

    @classmethod
    def of(cls, pairs: Iterable[tuple[dict[Any, float], bool]]) -> Dataset:
        """Of River's pairs of features and label."""
        rows: list[list[float]] = []
        labels: list[bool] = []
        names: tuple[str, ...] = ()
        for x, y in pairs:
            names = tuple(map(str, x))
            rows.append(list(x.values()))
            labels.append(bool(y))
        return cls(names, np.array(rows, np.float64), np.array(labels))


def elec2() -> Iterator[tuple[dict[Any, float], bool]]:
    """Electricity prices of New South Wales, which River would download."""
    with gzip.open(FOLDER / "elec2.csv.gz", "rt", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            label = line.pop("class")
            yield {name: float(value) for name, value in line.items()}, label.strip("'b") == "UP"


DATASETS: dict[str, Callable[[], Iterable[tuple[dict[Any, float], bool]]]] = {
    "Phishing": datasets.Phishing,
    "Bananas": datasets.Bananas,
    "Elec2": elec2,
}


@dataclass(frozen=True)
class Quality:
    """Accuracy and F1 of the label True."""

    accuracy: float
    f1: float

    @classmethod
    def of(cls, scores: NDArray[np.float64], labels: NDArray[np.bool_], first: int) -> Quality:
        """Of prequential scores, from the row `first` on."""
        said, true = scores[first:] > 0.5, labels[first:]
        hits = int((said & true).sum())
        return cls(float((said == true).mean()), 2 * hits / max(1, int(said.sum()) + int(true.sum())))

    @property
    def printed(self) -> tuple[str, str]:
        """As on the page."""
        return f"{self.accuracy:.{PRINTED}f}", f"{self.f1:.{PRINTED}f}"


def unanswered(build: Callable[[], Any], dataset: Dataset) -> int:
    """How many first rows the model has no answer for: it answers as soon as it has learned one."""
    x = dict(zip(dataset.names, dataset.rows[0].tolist(), strict=True))
    return int(build().predict_one(x) is None)


def learner_scores(build: Callable[[], Any], dataset: Dataset) -> NDArray[np.float64]:
    """Prequential scores of the learner, float64 (n,): from packed outcomes, with features as float32."""
    recipe = declared(Model("benchmark", build), dataset.names)
    records = [
        OutcomeRecord(
            0,
            number,
            number,
            Outcome(
                kind=OUTCOME_KIND_LABELLED,
                prediction=Prediction(event_id=f"{number:08d}", features=row, features_fingerprint=FINGERPRINT),
                label=Label(event_id=f"{number:08d}", value=float(label), label_time_us=number),
            ).SerializeToString(),
        )
        for number, (row, label) in enumerate(zip(dataset.rows.tolist(), dataset.labels.tolist(), strict=True))
    ]
    scores = []
    for start in range(0, len(records), GATHER):
        examples = decode(
            records[start : start + GATHER], FINGERPRINT, len(dataset.names), absence=recipe.knows_absence
        )
        ids = [one.event_id for one in examples]
        rows = [one.row for one in examples]
        scores.append(recipe.learn(rows, [bool(one.label) for one in examples], dataset.names, ids))
    return np.concatenate(scores)


def river_scores(build: Callable[[], Any], dataset: Dataset, *, single: bool) -> NDArray[np.float64]:
    """The same of River's own loop.

    Args:
        build: makes the model.
        dataset: the rows.
        single: whether the features are float32 numbers.
    """
    model = build()
    rows = dataset.rows.astype(np.float32).astype(np.float64) if single else dataset.rows
    scores = np.empty(len(rows))
    for number, (row, label) in enumerate(zip(rows.tolist(), dataset.labels.tolist(), strict=True)):
        x = dict(zip(dataset.names, row, strict=True))
        scores[number] = model.predict_proba_one(x).get(True, 0.0)
        model.learn_one(x, label)
    return scores


Page = dict[tuple[str, str], tuple[str, str]]


def expected(folder: Path) -> Page:
    """Accuracy and F1 by data set and model, as printed."""
    with (folder / "river_published_vs_0.26.1.csv").open(encoding="utf-8", newline="") as file:
        return {
            (row["dataset"], row["model"]): (
                f"{float(row['river_0.26.1_accuracy']):.{PRINTED}f}",
                f"{float(row['river_0.26.1_f1']):.{PRINTED}f}",
            )
            for row in csv.DictReader(file)
        }


def judged(title: str, quality: Quality, wanted: tuple[str, str]) -> Iterator[Figure]:
    """A row of the page."""
    met = quality.printed == wanted
    verdict = "" if met else "  DIFFERS"
    print(f"  {title}: {' / '.join(quality.printed)}, the page {' / '.join(wanted)}{verdict}", flush=True)
    for what, value, page in zip(("accuracy", "F1"), (quality.accuracy, quality.f1), wanted, strict=True):
        same = f"{value:.{PRINTED}f}" == page
        name = f"{title}: {what}"
        yield Figure(name, value, "", "River's page", float(page), None, f"{page}, to its digits", same)


def compare(name: str, dataset: Dataset, models: Sequence[str], page: Page) -> Iterator[Figure]:
    """Each model on one data set."""
    for model in models:
        if (name, model) not in page:
            continue
        build, wanted = MODELS[model], page[name, model]
        first = unanswered(build, dataset)
        quality = Quality.of(learner_scores(build, dataset), dataset.labels, first)
        yield from judged(f"{name}, {model}", quality, wanted)
        if quality.printed != wanted:
            for single in (False, True):
                own = Quality.of(river_scores(build, dataset, single=single), dataset.labels, first)
                print(f"    River itself, {'float32' if single else 'double'}: {' / '.join(own.printed)}", flush=True)


def compare_whole(page: Page) -> Iterator[Figure]:
    """Phishing, through the whole path."""
    dataset = Dataset.of(datasets.Phishing())
    for model, (scores, labels) in whole_path.replayed(len(dataset.labels)).items():
        name = next(one for one in MODELS if whole_path.recipe_name(one) == model)
        if len(scores) != len(dataset.labels) or (labels != dataset.labels).any():
            raise ProcessFailed(f"{name} has not learned the rows in their order")
        quality = Quality.of(scores, labels, unanswered(MODELS[name], dataset))
        yield from judged(f"Phishing, {name}, whole path", quality, page["Phishing", name])


def main() -> int:
    """Measure, print, and write `.run/bench/benchmarks.json`."""
    parser = argparse.ArgumentParser(description="River's own benchmark rows, met by the learner.")
    parser.add_argument("datasets", nargs="*", help=f"some of {', '.join(DATASETS)}")
    parser.add_argument("--models", nargs="*", choices=list(MODELS), default=list(MODELS), metavar="MODEL")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where River's rows and elec2.csv.gz are")
    parser.add_argument("--whole", action="store_true", help="Phishing through the whole path, on a stack of its own")
    arguments = parser.parse_args()
    page = expected(arguments.folder)

    def part(name: str) -> bench.Part:
        async def measure() -> list[Figure]:
            return list(compare(name, Dataset.of(DATASETS[name]()), arguments.models, page))

        return measure

    async def whole() -> list[Figure]:
        return await asyncio.to_thread(lambda: list(compare_whole(page)))

    parts = {name: part(name) for name in arguments.datasets or ([] if arguments.whole else DATASETS)}
    if arguments.whole:
        parts["the whole path"] = whole
    return bench.run("benchmarks", parts, packages=("river", "numpy"), controls=False)


if __name__ == "__main__":
    raise SystemExit(main())
