"""River's data sets, in their order."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from river import datasets

from loadtests.learning.river_rows.declaration import DECLARED, Declared

Pair = tuple[dict[Any, float], bool]

FOLDER = Path("../shared/data/river")
ELEC2 = "elec2.csv.gz"


@dataclass(frozen=True)
class Dataset:
    """Rows in their order.

    Attributes:
        declared: names of the features, and their unit.
        rows: float64 (n, features), as River reads them.
        labels: bool (n,).
    """

    declared: Declared
    rows: NDArray[np.float64]
    labels: NDArray[np.bool_]

    @classmethod
    def of(cls, declared: Declared, pairs: Iterable[Pair]) -> Self:
        """Of River's pairs of features and label."""
        found = [(list(x.values()), bool(y)) for x, y in pairs]
        return cls(declared, np.array([row for row, _ in found], np.float64), np.array([label for _, label in found]))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def features(self) -> NDArray[np.float64]:
        """As the pipeline has them, in their unit, float64 (n, features)."""
        return self.declared.in_units(self.rows)


def elec2(folder: Path) -> Iterator[Pair]:
    """Electricity prices of New South Wales, which River would download."""
    with gzip.open(folder / ELEC2, "rt", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            label = line.pop("class")
            yield {name: float(value) for name, value in line.items()}, label.strip("'b") == "UP"


def load(name: str, folder: Path = FOLDER) -> Dataset:
    """A data set of River's page.

    Args:
        name: of `DECLARED`.
        folder: where elec2.csv.gz is.
    """
    readers: dict[str, Callable[[], Iterable[Pair]]] = {
        "Phishing": datasets.Phishing,
        "Bananas": datasets.Bananas,
        "Elec2": lambda: elec2(folder),
    }
    return Dataset.of(DECLARED[name], readers[name]())
