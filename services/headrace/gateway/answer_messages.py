"""Answers as they travel. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from headrace.gateway.answers import Answer
from headrace.gateway.requests import milliseconds_since
from headrace.pipeline import Pipeline
from headrace.v1.prediction_pb2 import ROLE_ANSWER, Prediction
from headrace.v1.prediction_service_pb2 import GetFeaturesResponse, PredictBatchResponse, PredictResponse


def predict_response(answer: Answer, feature_names: Sequence[str], *, explain: bool) -> PredictResponse:
    """The answer to one event."""
    rows, row = answer.rows, answer.first
    repeated = rows.repeats.get(row)
    if repeated is not None:
        return _repeat_response(repeated, feature_names, explain=explain)
    maker = rows.makers[row]
    assert maker is not None
    choice = maker.choice
    version = choice.version
    response = PredictResponse(
        event_id=rows.event_ids[row],
        prediction_id=rows.prediction_ids[row],
        score=rows.scores[row],
        decision=rows.decisions[row],
        model_version=version.version,
        route=choice.route,
        role=ROLE_ANSWER,
        untrained=version.untrained,
        degradations=rows.degradations_of(row),
        features_age_ms=milliseconds_since(rows.states[row].newest_us, rows.answered_us),
        model_time_us=version.model_time_us,
    )
    if explain:
        response.features.extend(rows.values[row].tolist())
        response.feature_names.extend(feature_names)
    return response


def _repeat_response(prediction: Prediction, feature_names: Sequence[str], *, explain: bool) -> PredictResponse:
    response = PredictResponse(
        event_id=prediction.event_id,
        prediction_id=prediction.prediction_id,
        score=prediction.score,
        decision=prediction.decision,
        model_version=prediction.model_version,
        route=prediction.route,
        role=prediction.role,
        untrained=prediction.untrained,
        degradations=prediction.degradations,
        features_age_ms=_age_ms(prediction),
        model_time_us=prediction.model_time_us,
    )
    if explain and prediction.features:
        response.features.extend(prediction.features)
        response.feature_names.extend(feature_names)
    return response


def predict_batch_response(answer: Answer, feature_names: Sequence[str], *, explain: bool) -> PredictBatchResponse:
    """The answers to a batch."""
    rows, first, end = answer.rows, answer.first, answer.first + answer.count
    makers = rows.makers[first:end]
    repeats = {row: repeat for row, repeat in rows.repeats.items() if first <= row < end}
    response = PredictBatchResponse(
        event_ids=rows.event_ids[first:end],
        prediction_ids=rows.prediction_ids[first:end],
        scores=rows.scores[first:end],
        decisions=rows.decisions[first:end],
    )
    versions: dict[str, int] = {}
    missing, ages, model_times = set(rows.degradations), set[int](), set[int]()
    own = {id(rows.states[row]): rows.states[row] for row in range(first, end) if row not in repeats}
    for state in own.values():
        ages.add(milliseconds_since(state.newest_us, rows.answered_us))
        missing.update(state.degradations)
    made: dict[int, tuple[int, int, bool]] = {}
    for maker in {id(one): one for one in makers if one is not None}.values():
        version = maker.choice.version
        made[id(maker)] = versions.setdefault(version.version, len(versions)), maker.choice.route, version.untrained
        missing.update(maker.degradations)
        model_times.add(version.model_time_us)
    of_rows = [made.get(id(one), (0, 0, False)) for one in makers]
    indices, routes, untrained = ([one[part] for one in of_rows] for part in range(3))
    roles: list[int] = [ROLE_ANSWER] * answer.count
    for row, repeat in repeats.items():
        at = row - first
        response.prediction_ids[at], response.scores[at] = repeat.prediction_id, repeat.score
        response.decisions[at] = repeat.decision
        indices[at] = versions.setdefault(repeat.model_version, len(versions))
        routes[at], untrained[at], roles[at] = repeat.route, repeat.untrained, repeat.role
        missing.update(repeat.degradations)
        model_times.add(repeat.model_time_us)
        ages.add(_age_ms(repeat))
    response.routes.extend(routes)  # type: ignore[arg-type]
    response.roles.extend(roles)  # type: ignore[arg-type]
    response.untrained.extend(map(bool, untrained))
    response.model_versions.extend(versions)
    response.model_version_index.extend(indices)
    response.degradations.extend(sorted(missing))
    # The oldest of the batch: no answer is staler than it says.
    response.features_age_ms = -1 if -1 in ages else max(ages)
    response.model_time_us = min(model_times)
    if explain:
        for row in range(first, end):
            known = repeats.get(row)
            # Repeats of answers that came from Kafka have none.
            values = rows.values[row].tolist() if known is None else known.features
            response.features.extend(values or [math.nan] * len(feature_names))
        response.feature_names.extend(feature_names)
    return response


def features_response(answer: Answer, pipeline: Pipeline, now_us: int) -> GetFeaturesResponse:
    """The vector of one event."""
    state = answer.rows.states[answer.first]
    return GetFeaturesResponse(
        features_fingerprint=pipeline.features_fingerprint,
        values=answer.rows.values[answer.first].tolist(),
        names=pipeline.feature_names,
        event_positions=state.event_positions,
        outcome_positions=state.outcome_positions,
        features_age_ms=milliseconds_since(state.newest_us, now_us),
        degradations=state.degradations,
    )


def _age_ms(prediction: Prediction) -> int:
    return milliseconds_since(prediction.features_time_us, prediction.answered_time_us)
