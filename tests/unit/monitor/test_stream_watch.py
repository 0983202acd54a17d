from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from headrace.monitor.decoding import OutcomeColumns, PredictionColumns
from headrace.monitor.reference_store import Kept
from headrace.monitor.stream_watch import SeasonReport, StreamWatch
from headrace.pipeline import DAY, Label, Monitoring, Pipeline
from headrace.platform.pipelines import load_pipeline

ROWS = 400
DAYS = 14


@pytest.fixture
def pipeline() -> Pipeline:
    pipeline = load_pipeline("tests/integration/monitor/watched_pipeline.py")
    pipeline.monitoring = Monitoring(reference_seasons=3, min_season_rows=1, min_auc=0.6)
    return pipeline


def predictions(day: int, *, shift: float = 0.0) -> PredictionColumns:
    random = np.random.default_rng(day)
    return PredictionColumns(
        np.arange(day * ROWS, (day + 1) * ROWS, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15),
        day * DAY + np.arange(ROWS) * (DAY // ROWS),
        np.column_stack([random.normal(shift, 1, ROWS), random.poisson(4, ROWS)]),
        random.beta(2, 4, ROWS),
        np.ones(ROWS, dtype=np.bool_),
        Counter(),
        Counter(),
        0,
    )


def outcomes(of: PredictionColumns, *, blind: bool = False) -> OutcomeColumns:
    random = np.random.default_rng(int(of.times[0] // DAY) + 1000)
    positive = random.random(len(of.ids)) < (1 - of.score if blind else of.score)
    return OutcomeColumns(of.ids, of.times, of.score, of.trained, positive, Counter(), Counter())


def watch(pipeline: Pipeline, **options: object) -> StreamWatch:
    return StreamWatch(pipeline, capacity=10_000, **options)  # type: ignore[arg-type]


def violations(reports: list[SeasonReport]) -> set[tuple[int, str, str]]:
    return {
        (report.begin_us // DAY, finding.rule, finding.subject)
        for report in reports
        for finding in report.findings
        if finding.violated
    }


def test_a_season_is_judged_when_the_watermark_has_passed_it(pipeline: Pipeline) -> None:
    stream = watch(pipeline)
    stream.add_predictions(0, predictions(0))
    stream.add_predictions(0, predictions(1))
    [report] = stream.close([0], [])
    assert (report.begin_us, report.rows, report.findings) == (0, ROWS, ())
    assert report.null_ratio == {"amount": 0, "customer_count_2d": 0}
    assert stream.add_predictions(0, predictions(0))["late"] == ROWS


def test_a_partition_that_lags_holds_the_watermark_back(pipeline: Pipeline) -> None:
    stream = watch(pipeline)
    for day in range(4):
        stream.add_predictions(0, predictions(day))
    assert stream.close([0, 1], []) == []
    assert len(stream.close([0], [])) == 3


def test_outcomes_are_judged_after_their_predictions(pipeline: Pipeline) -> None:
    stream = watch(pipeline)
    answers = [predictions(day) for day in range(4)]
    for rows in answers:
        stream.add_outcomes(0, outcomes(rows))
    assert stream.close([0], [0]) == []
    for rows in answers[:2]:
        stream.add_predictions(0, rows)
    reports = stream.close([0], [0])
    assert [report.quality is None for report in reports] == [True, False]
    assert reports[1].labelled_ratio == 1
    assert reports[1].quality is not None
    assert reports[1].quality.rows == ROWS


def test_seasons_of_labels_that_are_numbers_are_counted_and_not_judged(pipeline: Pipeline) -> None:
    pipeline.label = Label(kind="number")
    pipeline.monitoring = replace(pipeline.monitoring, min_auc=0.0)
    stream = watch(pipeline)
    reports = []
    for day in range(DAYS):
        rows = predictions(day)
        rows = replace(rows, score=1000 * rows.score)
        stream.add_predictions(0, rows)
        stream.add_outcomes(0, outcomes(rows, blind=day == 10))
        reports += stream.close([0], [0])
    assert violations(reports) == set()
    measured = [report.quality for report in reports if report.quality is not None]
    assert len(measured) == DAYS - 1
    assert {(one.rows, one.auc, one.log_loss) for one in measured} == {(ROWS, None, None)}
    assert {finding.rule for report in reports for finding in report.findings} == {"feature_drift", "score_drift"}


def test_every_rule_finds_its_fault_and_nothing_else(pipeline: Pipeline) -> None:
    stream = watch(pipeline)
    reports = []
    for day in range(DAYS):
        rows = predictions(day, shift=1.0 if day == 8 else 0.0)
        stream.add_predictions(0, rows)
        stream.add_outcomes(0, outcomes(rows, blind=day == 10))
        reports += stream.close([0], [0])
    found = violations(reports)
    assert found == {
        (8, "feature_drift", "amount"),
        (10, "quality", "score"),
        (10, "concept_drift", "error"),
        (10, "concept_drift", "log_loss"),
    }
    assert all(finding.detail for report in reports for finding in report.findings)


def test_the_order_in_which_partitions_are_read_changes_nothing(pipeline: Pipeline) -> None:
    def judge(together: bool) -> list[tuple[object, ...]]:
        stream = watch(pipeline)
        reports = []
        halves = [
            [
                replace(
                    rows,
                    ids=rows.ids[half::2],
                    times=rows.times[half::2],
                    features=rows.features[half::2],
                    score=rows.score[half::2],
                    trained=rows.trained[half::2],
                )
                for rows in (predictions(day, shift=1.0 if day == 8 else 0.0) for day in range(DAYS))
            ]
            for half in (0, 1)
        ]
        steps = (
            [(half, day) for day in range(DAYS) for half in (0, 1)]
            if together
            else [(half, day) for half in (0, 1) for day in range(DAYS)]
        )
        for half, day in steps:
            stream.add_predictions(half, halves[half][day])
            reports += stream.close([0, 1], [])
        return [(report.begin_us, report.rows, report.findings) for report in reports]

    assert judge(together=True) == judge(together=False)


def test_a_restart_with_kept_references_finds_the_same_without_the_first_seasons(pipeline: Pipeline) -> None:
    def run(days: range, kept: Kept) -> tuple[StreamWatch, list[SeasonReport]]:
        stream = watch(pipeline, stored=kept.references, began_us=kept.began_us)
        reports = []
        for day in days:
            stream.add_predictions(0, predictions(day, shift=1.0 if day == 9 else 0.0))
            reports += stream.close([0], [])
        return stream, reports

    before, _ = run(range(8), Kept())
    _, after = run(range(6, DAYS), Kept(before.drift.began_us, before.drift.stored()))
    assert violations(after) == {(9, "feature_drift", "amount")}
    assert {finding.subject for finding in after[0].findings} == {"amount", "customer_count_2d"}


def test_without_labels_of_both_kinds_quality_is_not_judged(pipeline: Pipeline) -> None:
    stream = watch(pipeline)
    reports = []
    for day in range(8):
        rows = predictions(day)
        stream.add_predictions(0, rows)
        stream.add_outcomes(0, replace(outcomes(rows), positive=np.zeros(ROWS, dtype=np.bool_)))
        reports += stream.close([0], [0])
    assert "quality" not in {finding.rule for report in reports for finding in report.findings}


def test_no_rule_is_decided_on_seasons_whose_records_are_partly_gone(pipeline: Pipeline) -> None:
    whole = watch(pipeline)
    for day in range(8):
        whole.add_predictions(0, predictions(day))
        whole.close([0], [])
    stream = watch(
        pipeline,
        stored=whole.drift.stored(),
        began_us=whole.drift.began_us,
        trimmed_predictions=[0],
        trimmed_outcomes=[0],
    )
    reports = []
    for day in range(8, 13):
        rows = predictions(day, shift=3.0 if day == 8 else 0.0)
        left = slice(ROWS // 2 if day == 8 else 0, None)
        rows = replace(
            rows,
            ids=rows.ids[left],
            times=rows.times[left],
            features=rows.features[left],
            score=rows.score[left],
            trained=rows.trained[left],
        )
        stream.add_predictions(0, rows)
        stream.add_outcomes(0, outcomes(predictions(day), blind=day == 8))
        reports += stream.close([0], [0])
    decided = {(report.begin_us // DAY, report.quality is None) for report in reports if report.findings}
    assert decided == {(day, predicted) for day in (9, 10, 11) for predicted in (True, False)}
    assert violations(reports) == set()
