"""Quality of the recipes on the handbook's payments, learned day by day with the labels of a week ago.

`make bench-quality`; `python -m loadtests.learning.quality PIPELINE…` for some. What a lockstep replay would serve,
in one process: before the payments of a day are scored, the labels that are known by its end are learned, in the order
of (label time, event id), and the day is scored by the exported ONNX file. So the scores are those of the whole stack
where its features are the published ones; `--report .run/demo/report.json` shows what that served.

The measures are those of the handbook's split of 2018-07-25 (see `headrace.demo.quality`), or of another day with
`--split`. Needs `handbook_raw.parquet` and `handbook_features_published.parquet` in one folder.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import onnxruntime
import polars as pl
from numpy.typing import NDArray

from headrace.demo.history import History
from headrace.demo.payments import load_source
from headrace.demo.quality import DAY_US, Quality, handbook_split, quality_overall
from headrace.learner.recipes import Recipe, declared
from headrace.onnx_export import INPUT_NAME, OUTPUT_NAME, export
from headrace.pipeline import Derived, Pipeline
from headrace.platform.pipelines import load_pipeline
from loadtests import bench
from loadtests.figures import Figure, figure

FOLDER = Path("../shared/data/handbook")
RAW, PUBLISHED = "handbook_raw.parquet", "handbook_features_published.parquet"
PIPELINES = ("fraud", "fraud_ratios")
SPLIT = dt.date(2018, 7, 25)
GOALS = {"auc": 0.865, "average_precision": 0.595, "card_precision_at_100": 0.283}
CHUNK = 20_000

# In the order of the fraud pipeline's features.
COLUMNS = (
    "TX_AMOUNT",
    "TX_DURING_WEEKEND",
    "TX_DURING_NIGHT",
    *(f"CUSTOMER_ID_{what}_{days}DAY_WINDOW" for days in (1, 7, 30) for what in ("NB_TX", "AVG_AMOUNT")),
    *(f"TERMINAL_ID_{what}_{days}DAY_WINDOW" for days in (1, 7, 30) for what in ("NB_TX", "RISK")),
)


@dataclass(frozen=True)
class Handbook:
    """The handbook's payments.

    Attributes:
        history: the n payments.
        features: the published ones, float64 (n, 15), and what is derived of them.
        split: which payments the measures are over, bool (n,).
    """

    history: History
    features: NDArray[np.float64]
    split: NDArray[np.bool_]

    @classmethod
    def load(cls, folder: Path, start: dt.date = SPLIT) -> Handbook:
        """Read the two files, up to the last day of the split that starts at `start`."""
        history = load_source(folder / RAW, None).history()
        table = pl.read_parquet(folder / PUBLISHED, columns=["TRANSACTION_ID", *COLUMNS])
        if table["TRANSACTION_ID"].cast(pl.String).to_list() != list(history.ids):
            raise SystemExit(f"{folder}: {RAW} and {PUBLISHED} do not hold the same payments in the same order")
        features = table.select(COLUMNS).to_numpy().astype(np.float64)
        return cls(history, features, handbook_split(history, start))


def with_derived(published: NDArray[np.float64], pipeline: Pipeline) -> NDArray[np.float64]:
    """The published features, and what the pipeline derives of them; float64 (n, features)."""
    known = dict(zip(pipeline.feature_names, published.T, strict=False))
    for part in pipeline.features:
        if isinstance(part, Derived):
            known[part.name] = part.compute(known)
    return np.stack([known[name] for name in pipeline.feature_names], axis=1)


def served_scores(handbook: Handbook, recipe: Recipe, names: Sequence[str]) -> NDArray[np.float64]:
    """Learn and serve day by day, to the last day of the split.

    Args:
        handbook: the payments.
        recipe: untrained; learned in place.
        names: of the features, in order.

    Returns:
        float64 (n,): the served score of each payment of the split, NaN for the others.
    """
    history, score = handbook.history, np.full(len(handbook.history), np.nan)
    # As the model gets them.
    features = handbook.features.astype(np.float32)
    ids = np.array(history.ids)
    order = np.lexsort((ids, history.label_time_us))
    known = (history.label_time_us // DAY_US)[order]
    day = history.times // DAY_US
    learned = 0
    for today in np.unique(day[handbook.split]):
        until = int(np.searchsorted(known, today, "right"))
        for first in range(learned, until, CHUNK):
            part = order[first : min(first + CHUNK, until)]
            recipe.learn(features[part].tolist(), history.positive[part].tolist(), names, ids[part].tolist())
        learned = until
        rows = np.flatnonzero(handbook.split & (day == today))
        session = onnxruntime.InferenceSession(export(recipe.copy().model, names), providers=["CPUExecutionProvider"])
        (scores,) = session.run([OUTPUT_NAME], {INPUT_NAME: features[rows]})
        score[rows] = np.asarray(scores)[:, 0]
    return score


def measure(handbook: Handbook, pipeline: Pipeline) -> tuple[Quality, float]:
    """The quality of a pipeline's model, and the seconds of CPU time that it took."""
    began = time.process_time()
    names = pipeline.feature_names
    handbook = replace(handbook, features=with_derived(handbook.features, pipeline))
    score = served_scores(handbook, declared(pipeline.model, names), names)
    return quality_overall(handbook.history, score, handbook.split), time.process_time() - began


def figures_of(
    name: str, quality: dict[str, float | None], first: dict[str, float | None] | None, goals: Mapping[str, float]
) -> list[Figure]:
    """The measures as figures: the first recipe against the goals, others against the first."""
    figures = []
    for measured in GOALS:
        value = quality[measured]
        if value is None:
            raise SystemExit(f"{name}: {measured} is undefined; the source does not reach the days of the split")
        title = f"{name}: {measured.replace('_', ' ')}"
        if first is None:
            figures.append(figure(title, value, "", least=goals.get(measured)))
            continue
        control = ("the first recipe", float(first[measured] or 0.0))
        beats = 1.0 if measured == "average_precision" else None
        figures.append(figure(title, value, "", control=control, least_ratio=beats))
    return figures


def main() -> int:
    """Measure, print, and write `.run/bench/quality.json`."""
    parser = argparse.ArgumentParser(description="Quality of the recipes in the handbook's split of 2018-07-25.")
    parser.add_argument("pipelines", nargs="*", default=PIPELINES, help="the first is held to the goals")
    parser.add_argument(
        "--split",
        type=dt.date.fromisoformat,
        default=SPLIT,
        help="first day of the split; on another one than that of the goals the first recipe is only the control",
    )
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the handbook's files are")
    parser.add_argument("--report", type=Path, action="append", default=[], help="of a replay of the whole stack")
    arguments = parser.parse_args()
    loaded: list[Handbook] = []
    first: list[dict[str, float | None]] = []

    def compared(name: str, quality: dict[str, float | None]) -> list[Figure]:
        figures = figures_of(name, quality, first[0] if first else None, GOALS if arguments.split == SPLIT else {})
        first.append(quality)
        return figures

    def part(name: str) -> bench.Part:
        async def run() -> list[Figure]:
            if not loaded:
                loaded.append(Handbook.load(arguments.folder, arguments.split))
            quality, seconds = measure(loaded[0], load_pipeline(name))
            took = figure(f"{name}: learned and scored", seconds, "s of CPU", better="lower")
            return [*compared(name, asdict(quality)), took]

        return run

    def served(path: Path) -> bench.Part:
        report = json.loads(path.read_text(encoding="utf-8"))

        async def read() -> list[Figure]:
            return compared(f"{path}, the whole stack", report["quality"])

        return read

    parts = {name: part(name) for name in arguments.pipelines} if not arguments.report else {}
    parts |= {str(path): served(path) for path in arguments.report}
    return bench.run("quality", parts, packages=("river", "numpy", "onnxruntime"), controls=False)


if __name__ == "__main__":
    raise SystemExit(main())
