"""What River's page prints of a model, and what is held to it."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

PRINTED = 6
"""Digits of the page."""
ROWS = "river_published_vs_0.26.1.csv"

Printed = tuple[str, str]
Page = Mapping[tuple[str, str], Printed]


@dataclass(frozen=True)
class Quality:
    """Accuracy and F1 of the label True."""

    accuracy: float
    f1: float

    @classmethod
    def of(cls, scores: NDArray[np.float64], labels: NDArray[np.bool_], first: int) -> Self:
        """Of prequential scores, from the row `first` on; a score of exactly one half is the label False."""
        said, true = scores[first:] > 0.5, labels[first:]
        hits = int((said & true).sum())
        return cls(float((said == true).mean()), 2 * hits / max(1, int(said.sum()) + int(true.sum())))

    @property
    def printed(self) -> Printed:
        """As on the page."""
        return printed(self.accuracy), printed(self.f1)


def printed(value: float) -> str:
    """A number with the digits of the page."""
    return f"{value:.{PRINTED}f}"


def expected(folder: Path) -> Page:
    """Accuracy and F1 by data set and model, as River 0.26.1 gives them."""
    with (folder / ROWS).open(encoding="utf-8", newline="") as file:
        return {
            (row["dataset"], row["model"]): (
                printed(float(row["river_0.26.1_accuracy"])),
                printed(float(row["river_0.26.1_f1"])),
            )
            for row in csv.DictReader(file)
        }
