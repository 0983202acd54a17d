"""What a trial shows: a table of features, a few vectors, and quality."""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.table import Table

from headrace.demo.figures import NONE, count, decimal, in_words, moment, season_name
from headrace.demo.history import History
from headrace.demo.trial import Trial
from headrace.pipeline import SECOND, Pipeline

SHOWN_SEASONS = 14


def print_trial(pipeline: Pipeline, history: History, trial: Trial, console: Console, samples: int) -> None:
    """Print the features and the quality of a trial.

    Args:
        pipeline: the declaration.
        history: what it was run over.
        trial: what came of it.
        console: where.
        samples: how many of the last vectors to show.
    """
    words = history.words
    labelled = int(history.labelled.sum())
    console.print(
        f"{pipeline.name}: {len(history):,} {words.events}, {labelled:,} labels, "
        f"{int(history.positive.sum()):,} {words.positives}; {trial.learned:,} outcomes learned",
        highlight=False,
    )
    console.print(_features(pipeline, trial))
    if samples:
        console.print(_vectors(pipeline, history, trial, samples))
    quality = trial.quality
    console.print(_seasons(pipeline, history, trial))
    scored = int((~np.isnan(trial.score)).sum())
    console.print(
        f"AUC {decimal(quality.auc)} · average precision {decimal(quality.average_precision)} · log loss "
        f"{decimal(quality.log_loss)}, over the {scored:,} {words.events} that were scored after something was learned",
        highlight=False,
    )
    if not trial.learned:
        console.print(
            f"nothing was learned: no outcome is known within the file (the horizon of a label is "
            f"{in_words(pipeline.label.horizon)})",
            style="yellow",
            highlight=False,
        )


def _features(pipeline: Pipeline, trial: Trial) -> Table:
    table = Table(title="features", title_justify="left")
    table.add_column("feature", overflow="fold")
    for head in ("min", "mean", "max", "nulls"):
        table.add_column(head, justify="right", no_wrap=True)
    for at, name in enumerate(pipeline.feature_names):
        values = trial.features[:, at]
        there = values[~np.isnan(values)]
        measures = (there.min(), there.mean(), there.max()) if len(there) else (np.nan,) * 3
        table.add_row(name, *(_number(one) for one in measures), count(len(values) - len(there)))
    return table


def _vectors(pipeline: Pipeline, history: History, trial: Trial, samples: int) -> Table:
    table = Table(title="the last vectors", title_justify="left")
    table.add_column("feature", overflow="fold")
    last = range(max(0, len(history) - samples), len(history))
    for row in last:
        table.add_column(history.ids[row], justify="right", no_wrap=True)
    for at, name in enumerate(pipeline.feature_names):
        table.add_row(name, *(_number(trial.features[row, at]) for row in last))
    table.add_section()
    table.add_row("score", *(_number(trial.score[row]) for row in last))
    table.add_row("label", *(_label(history, row) for row in last))
    return table


def _label(history: History, row: int) -> str:
    return f"{int(history.positive[row])}" if history.labelled[row] else NONE


def _seasons(pipeline: Pipeline, history: History, trial: Trial) -> Table:
    length = pipeline.monitoring.season / SECOND
    name = season_name(length)
    title = f"quality by {name}"
    if len(trial.seasons) > SHOWN_SEASONS:
        title += f", the last {SHOWN_SEASONS} of {len(trial.seasons)}"
    table = Table(title=title, title_justify="left")
    table.add_column(name)
    for head in (history.words.events, history.words.positives, "AUC", "average precision", "log loss"):
        table.add_column(head, justify="right")
    for one in trial.seasons[-SHOWN_SEASONS:]:
        quality = one.quality
        table.add_row(
            moment(one.begin.isoformat(), length),
            count(one.events),
            count(one.positives),
            decimal(quality.auc),
            decimal(quality.average_precision),
            decimal(quality.log_loss),
        )
    return table


def _number(value: float) -> str:
    return NONE if np.isnan(value) else f"{value:.4g}"
