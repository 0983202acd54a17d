"""Ensembles of anything that has a form: the members' answers, weighed and added as River does."""

from __future__ import annotations

import math
from typing import Any

from river import ensemble

from headrace.onnx_export.conversion import convert, estimator, shares_of, shares_of_each
from headrace.onnx_export.graph import Columns, Graph


@shares_of(ensemble.BaggingClassifier, ensemble.ADWINBaggingClassifier, ensemble.LeveragingBaggingClassifier)
def bagging_classifier(model: Any, columns: Columns, graph: Graph) -> str:
    """The sum of the members' shares over its total."""
    added = graph.sum_in_order(shares_of_each(list(model), columns, graph))
    total = graph.row_sum(added, 2)
    some = graph.node("Greater", total, graph.double(0.0))
    return graph.node("Where", some, graph.node("Div", added, total), added)


@estimator(ensemble.BaggingRegressor)
def bagging_regressor(model: Any, columns: Columns, graph: Graph) -> str:
    """The mean of the members' values."""
    added = graph.sum_in_order([convert(member, columns, graph) for member in model])
    return graph.node("Div", added, graph.double(float(len(model))))


@estimator(ensemble.EWARegressor)
def ewa_regressor(model: Any, columns: Columns, graph: Graph) -> str:
    """The members' values by their weights."""
    return graph.sum_in_order(
        [
            graph.node("Mul", convert(member, columns, graph), graph.double(float(weight)))
            for member, weight in zip(model, model.weights, strict=True)
        ]
    )


@shares_of(ensemble.AdaBoostClassifier, ensemble.ADWINBoostingClassifier)
def ada_boost_classifier(model: Any, columns: Columns, graph: Graph) -> str:
    """The members' shares by the logarithm of their odds of being right, over the total."""
    weighted = []
    for i, answer in enumerate(shares_of_each(list(model), columns, graph)):
        wrong, correct = model.wrong_weight.get(i, 0), model.correct_weight.get(i, 0)
        error = (wrong + 1e-16) / ((correct + wrong) + 1e-16)
        weight = 1.0 if error == 0 or error > 0.5 else _log_odds(error)
        weighted.append(graph.node("Mul", answer, graph.double(weight)))
    return _normalized(graph, graph.sum_in_order(weighted))


@shares_of(ensemble.BOLEClassifier)
def bole_classifier(model: Any, columns: Columns, graph: Graph) -> str:
    """As AdaBoost, over the members that err seldom enough; over all of them, unweighted, if there is none."""
    weighted, unweighted = [], []
    for i, answer in enumerate(shares_of_each(list(model), columns, graph)):
        wrong, correct = model.wrong_weight.get(i, 0), model.correct_weight.get(i, 0)
        weight = 0.0
        if correct > 0 and wrong > 0:
            error = wrong / (correct + wrong) + 1e-16
            weight = _log_odds(error) if error <= model.error_bound else 0.0
        if weight:
            weighted.append(graph.node("Mul", answer, graph.double(weight)))
        else:
            unweighted.append(answer)
    return _normalized(graph, graph.sum_in_order(weighted or unweighted))


@estimator(ensemble.VotingClassifier)
def voting_classifier(model: Any, columns: Columns, graph: Graph) -> str:
    """1 where the members vote True, 0 else: River's voting knows labels only.

    Where the sums are equal River takes the class that was named first: False for shares, what the first member says
    for votes.
    """
    answers = shares_of_each(list(model), columns, graph)
    if model.use_probabilities:
        added = graph.sum_in_order(answers)
        return graph.as_double(graph.node("Greater", *reversed(graph.split(added, 2))))
    # One vote for each member that names a class, none for one that has learned nothing.
    votes = []
    for answer in answers:
        false, true = graph.split(answer, 2)
        label = graph.as_double(graph.node("Greater", true, false))
        named = graph.as_double(graph.node("Greater", graph.node("Add", false, true), graph.double(0.0)))
        votes.append(graph.node("Mul", named, graph.node("Sub", graph.node("Add", label, label), graph.double(1.0))))
    # Half a vote more for the first member that names a class decides a tie, and only that.
    lead, open_ = votes[0], graph.node("Equal", votes[0], graph.double(0.0))
    for vote in votes[1:]:
        lead = graph.node("Where", open_, vote, lead)
        open_ = graph.node("Equal", lead, graph.double(0.0))
    total = graph.node("Add", graph.sum_in_order(votes), graph.node("Mul", lead, graph.double(0.5)))
    return graph.as_double(graph.node("Greater", total, graph.double(0.0)))


def _log_odds(error: float) -> float:
    odds = (1 - error) / error
    return math.log(odds) if odds != 0 else 0.0


def _normalized(graph: Graph, added: str) -> str:
    """Times the inverse of the total, as River does; as they are where it is 0."""
    total = graph.row_sum(added, 2)
    none = graph.node("Equal", total, graph.double(0.0))
    # Not 1 / total by Div: ONNX Runtime would make shares / total of it, which rounds once where River rounds twice.
    inverse = graph.node("Reciprocal", graph.node("Where", none, graph.double(1.0), total))
    return graph.node("Mul", added, inverse)
