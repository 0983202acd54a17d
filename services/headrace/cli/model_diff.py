"""How two versions differ: metrics, outcomes learned, the model itself, and its scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headrace.cli.artifact_states import ArtifactStates
from headrace.learner import river_pickle, signed_artifacts, snapshot
from headrace.learner.errors import SnapshotError
from headrace.platform.signing import KeyFileError
from headrace.v1.model_pb2 import ModelVersion

SHOWN_WEIGHTS = 20


def compare(first: ModelVersion, second: ModelVersion, artifacts: ArtifactStates) -> dict[str, Any]:
    """What differs from the first version to the second, as JSON values.

    What cannot be compared, because a file has left by retention say, is named under "not_compared" with the reason.

    Args:
        first: a version.
        second: another one.
        artifacts: where the files are, and how they are verified.
    """
    missing: list[str] = []
    states = [_snapshot(one, artifacts, missing) for one in (first, second)]
    return {
        "first": first.version,
        "second": second.version,
        "recipe": [first.recipe, second.recipe],
        "same_recipe": first.recipe_fingerprint == second.recipe_fingerprint,
        "same_features": first.features_fingerprint == second.features_fingerprint,
        "learned_count": [first.learned_count, second.learned_count],
        "learned": _learned(first, second),
        "metrics": {
            name: [first.metrics.get(name), second.metrics.get(name)]
            for name in sorted({*first.metrics, *second.metrics})
        },
        "model": _models(states, missing),
        "scores": _scores(first, second, states, artifacts, missing),
        "not_compared": missing,
    }


def describe(model: Mapping[str, Any]) -> dict[str, Any]:
    """Weights of a linear model, sizes of trees; what else there is, by the names of its classes.

    Args:
        model: state of a recipe, out of a snapshot whose signature was verified.

    Raises:
        SnapshotError: the state names what no model is made of.
    """
    if "regression" in model:
        learned = model["regression"]
        return {"weights": {str(name): float(value) for name, value in learned["weights"]} | _intercept(learned)}
    learner = river_pickle.loads(model["pickle"])[0]
    found: dict[str, Any] = {"steps": []}
    trees = {"count": 0, "nodes": 0, "leaves": 0, "height": 0}
    for part in _parts(learner):
        found["steps"].append(type(part).__name__)
        weights = getattr(part, "weights", None)
        if isinstance(weights, Mapping):
            found["weights"] = {str(name): float(value) for name, value in weights.items()}
            found["weights"] |= {"(intercept)": float(getattr(part, "intercept", 0.0))}
        if isinstance(getattr(part, "n_nodes", None), int | None) and hasattr(part, "n_leaves"):
            trees["count"] += 1
            trees["nodes"] += part.n_nodes or 0
            trees["leaves"] += part.n_leaves or 0
            trees["height"] = max(trees["height"], int(part.height or 0))
    if trees["count"]:
        found["trees"] = trees
        found.pop("weights", None)
    found["steps"] = _counted(found["steps"])
    return found


def _intercept(learned: Mapping[str, Any]) -> dict[str, float]:
    return {"(intercept)": float(learned["intercept"])}


def _counted(names: list[str]) -> dict[str, int]:
    return {name: names.count(name) for name in dict.fromkeys(names)}


def _parts(model: Any) -> Iterator[Any]:
    """A model and the models that it consists of."""
    yield model
    members: list[Any] = []
    if isinstance(getattr(model, "steps", None), Mapping):
        members = list(model.steps.values())
    elif isinstance(getattr(model, "models", None), list):
        members = model.models
    elif isinstance(getattr(model, "data", None), list):
        members = model.data
    for name in ("model", "classifier", "regressor"):
        inner = getattr(model, name, None)
        if inner is not None and hasattr(inner, "learn_one"):
            members.append(inner) if not members else None
    for member in members:
        if hasattr(member, "learn_one"):
            yield from _parts(member)


def _learned(first: ModelVersion, second: ModelVersion) -> list[dict[str, int]]:
    ends = [{one.partition: one.end for one in version.learned} for version in (first, second)]
    return [
        {"partition": partition, "first_end": ends[0].get(partition, 0), "second_end": ends[1].get(partition, 0)}
        for partition in sorted({*ends[0], *ends[1]})
    ]


def _snapshot(version: ModelVersion, artifacts: ArtifactStates, missing: list[str]) -> snapshot.Snapshot | None:
    what = f"snapshot of version {version.version}"
    try:
        return snapshot.decode(signed_artifacts.get(artifacts.store, artifacts.verifier, version.snapshot, what))
    except (SnapshotError, KeyFileError) as error:
        missing.append(str(error))
        return None


def _models(states: list[snapshot.Snapshot | None], missing: list[str]) -> dict[str, Any] | None:
    first, second = states
    if first is None or second is None:
        return None
    try:
        found = [describe(first.model), describe(second.model)]
    except SnapshotError as error:
        missing.append(str(error))
        return None
    weights = [one.get("weights") for one in found]
    if weights[0] is not None and weights[1] is not None:
        names = dict.fromkeys([*weights[0], *weights[1]])
        return {"weights": {name: [weights[0].get(name, 0.0), weights[1].get(name, 0.0)] for name in names}}
    return {"first": found[0], "second": found[1]}


def _scores(
    first: ModelVersion,
    second: ModelVersion,
    states: list[snapshot.Snapshot | None],
    artifacts: ArtifactStates,
    missing: list[str],
) -> dict[str, Any] | None:
    state = states[1] or states[0]
    if state is None or not len(state.recent):
        missing.append("scores: no snapshot with recent rows is there")
        return None
    if first.features_fingerprint != second.features_fingerprint:
        missing.append("scores: the versions take different features")
        return None
    try:
        scores = [_scored(one, state.recent, artifacts) for one in (first, second)]
    except (SnapshotError, KeyFileError) as error:
        missing.append(f"scores: {error}")
        return None
    apart = np.abs(scores[1] - scores[0])
    return {
        "rows": len(state.recent),
        "mean": [float(one.mean()) for one in scores],
        "mean_difference": float(apart.mean()),
        "largest_difference": float(apart.max()),
        "p95_difference": float(np.quantile(apart, 0.95)),
    }


def _scored(version: ModelVersion, rows: NDArray[np.float32], artifacts: ArtifactStates) -> NDArray[np.float64]:
    import onnxruntime

    what = f"model of version {version.version}"
    content = signed_artifacts.get(artifacts.store, artifacts.verifier, version.onnx, what)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (scores,) = session.run(["score"], {"features": rows})
    return np.asarray(scores, np.float64).reshape(-1)


def difference_lines(found: Mapping[str, Any]) -> list[str]:
    """The same for a person."""
    recipes = found["recipe"]
    lines = [f"{found['first']} -> {found['second']}"]
    same = "the same recipe" if found["same_recipe"] else f"recipe {recipes[0] or '-'} -> {recipes[1] or '-'}"
    lines.append(f"  {same}, {'the same features' if found['same_features'] else 'OTHER FEATURES'}")
    counts = found["learned_count"]
    lines.append(f"  learned      {counts[0]:,} -> {counts[1]:,} outcomes ({counts[1] - counts[0]:+,})")
    for one in found["learned"]:
        if one["first_end"] != one["second_end"]:
            low, high = sorted((one["first_end"], one["second_end"]))
            which = found["second"] if one["second_end"] > one["first_end"] else found["first"]
            lines.append(f"    outcomes/{one['partition']}  only {which} learned {low} to {high} (exclusive)")
    for name, (before, after) in found["metrics"].items():
        change = f" ({after - before:+.6g})" if before is not None and after is not None else ""
        lines.append(f"  {name:26} {_number(before)} -> {_number(after)}{change}")
    lines += _model_lines(found["model"])
    scores = found["scores"]
    if scores is not None:
        lines.append(
            f"  scores       on {scores['rows']} recent rows: mean {scores['mean'][0]:.6g} -> {scores['mean'][1]:.6g}; "
            f"apart by {scores['mean_difference']:.3g} on average, {scores['largest_difference']:.3g} at the most"
        )
    return lines + [f"  not compared {reason}" for reason in found["not_compared"]]


def _model_lines(model: Mapping[str, Any] | None) -> list[str]:
    if model is None:
        return []
    if "weights" not in model:
        return [f"  {which:12} {_described(model[which])}" for which in ("first", "second")]
    changed = sorted(model["weights"].items(), key=lambda one: -abs(one[1][1] - one[1][0]))
    lines = [
        f"  weight {name:40} {before:.6g} -> {after:.6g} ({after - before:+.3g})"
        for name, (before, after) in changed[:SHOWN_WEIGHTS]
    ]
    left = len(changed) - SHOWN_WEIGHTS
    return lines + ([f"  {left} weights that changed less are left out; --json has them"] if left > 0 else [])


def _described(model: Mapping[str, Any]) -> str:
    trees = model.get("trees")
    if trees:
        return (
            f"{trees['count']} trees, {trees['nodes']:,} nodes, {trees['leaves']:,} leaves, "
            f"at most {trees['height']} high"
        )
    if "weights" in model:
        return f"linear, {len(model['weights'])} weights"
    return ", ".join(f"{count} {name}" if count > 1 else name for name, count in model["steps"].items())


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
