"""What is particular to trees: thresholds, absent features, alternate trees, categories, drift."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from river import drift, forest, linear_model, preprocessing, stats, tree
from river.tree.nodes.branch import DTBranch, NumericBinaryBranch
from river.tree.nodes.hatc_nodes import AdaBranchClassifier, AdaLeafClassifier, AdaNumBinaryBranchClass
from river.tree.nodes.hatr_nodes import AdaBranchRegressor, AdaLeafRegMean, AdaNumBinaryBranchReg
from river.tree.nodes.htc_nodes import LeafMajorityClass
from river.tree.splitter import GaussianSplitter, HistogramSplitter, QOSplitter

from headrace.onnx_export import UnsupportedModelError, check, export
from tests.unit.onnx_export.case import NAMES
from tests.unit.onnx_export.comparing import assert_same, learn, onnx_scores, river_scores
from tests.unit.onnx_export.drifting import drifting_rows
from tests.unit.onnx_export.every_tree import NOMINAL, QUICK, QUICK_VALUE
from tests.unit.onnx_export.test_every_model import random_rows

measured = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
thresholds = st.floats(-1e30, 1e30, allow_nan=False)


def leaf(false: float, true: float) -> LeafMajorityClass:
    return LeafMajorityClass({False: false, True: true}, 1, GaussianSplitter())


def stump(threshold: float) -> tree.HoeffdingTreeClassifier:
    """True above the threshold."""
    model = tree.HoeffdingTreeClassifier(leaf_prediction="mc")
    model.classes = {False, True}
    model._root = NumericBinaryBranch({}, "a", threshold, 0, leaf(3.0, 1.0), leaf(1.0, 3.0))
    return model


def around(threshold: float) -> list[float]:
    """The float32 numbers next to a double, on both sides."""
    nearest = np.float32(threshold)
    below, above = np.nextafter(nearest, np.float32(-np.inf)), np.nextafter(nearest, np.float32(np.inf))
    return [float(below), float(nearest), float(above)]


@settings(max_examples=30, deadline=None)
@given(threshold=thresholds)
@example(threshold=0.1)  # the nearest float32 lies above
@example(threshold=0.7)  # below
@example(threshold=1.0)
@example(threshold=0.0)
@example(threshold=-1e-40)
def test_values_at_a_threshold(threshold: float) -> None:
    rows = np.array([[value] for value in around(threshold)], np.float32)
    assert_same(stump(threshold), rows, ("a",))


@settings(max_examples=20, deadline=None)
@given(row=measured, others=st.lists(measured, min_size=2, max_size=4))
def test_thresholds_behind_a_scaler(row: float, others: list[float]) -> None:
    """There the columns are doubles: a threshold between two of them that are one float32 still parts them."""
    scaler = preprocessing.StandardScaler()
    for other in others:
        scaler.learn_one({"a": other})
    scaled = scaler.transform_one({"a": row})["a"]
    for threshold in (scaled, float(np.nextafter(scaled, -np.inf)), float(np.nextafter(scaled, np.inf))):
        assert_same(scaler | stump(threshold), np.array([[row]], np.float32), ("a",))


class TestDrift:
    """Files made again and again while a drifting stream is learned; longer streams are in tests/chaos."""

    def test_adaptive_tree(self) -> None:
        model = tree.HoeffdingAdaptiveTreeClassifier(
            grace_period=50, delta=1e-3, drift_window_threshold=50, bootstrap_sampling=False, seed=1
        )
        alternates = followed(model, "sea", 5000)
        assert alternates
        assert model.n_switch_alternate_trees or model.n_pruned_alternate_trees

    def test_forest(self) -> None:
        model = forest.ARFClassifier(
            n_models=3, leaf_prediction="nba", drift_detector=drift.ADWIN(0.9, clock=8), seed=1
        )
        followed(model, "sea", 2000)
        assert model.n_drifts_detected()

    def test_reconsidered_splits(self) -> None:
        model = tree.ExtremelyFastDecisionTreeClassifier(
            grace_period=50, delta=0.05, tau=0.2, min_samples_reevaluate=100
        )
        followed(model, "sea", 2000)
        assert model.n_branches > 1


def followed(model: Any, stream: str, count: int) -> int:
    """Learn a drifting stream; compare with a new file every 500 rows. Returns how many files had alternate trees."""
    names, rows, labels = drifting_rows(stream, count)
    alternates = 0
    for end in range(500, count + 1, 500):
        learn(model, rows[end - 500 : end], labels[end - 500 : end], names)
        assert_same(model, rows[max(0, end - 600) : end], names)
        alternates += bool(list(alternate_trees(getattr(model, "_root", None))))
    return alternates


def alternate_trees(node: Any) -> Any:
    if isinstance(node, AdaBranchClassifier | AdaBranchRegressor) and node._alternate_tree is not None:
        yield node._alternate_tree
    if isinstance(node, DTBranch):
        for child in node.children:
            yield from alternate_trees(child)


def ada_leaf(false: float, true: float, right: int, asked: int = 4) -> AdaLeafClassifier:
    made = AdaLeafClassifier({False: false, True: true}, 1, GaussianSplitter(), drift.ADWIN(), None)
    for question in range(asked):
        made._mean_error.update(int(question >= right))
    return made


def ada_leaf_mean(mean: float, weight: int) -> AdaLeafRegMean:
    var = stats.Var()
    for _ in range(weight):
        var.update(mean)
    return AdaLeafRegMean(var, 1, GaussianSplitter(), drift.ADWIN(), None)


ABSENCES = np.array(list(itertools.product((-1.0, 1.0, np.nan), repeat=3)), np.float32)


@pytest.mark.parametrize("weights", [(1.0, 2.0), (2.0, 1.0), (1.0, 1.0)])
def test_an_absent_feature_goes_to_the_heavier_child(weights: tuple[float, float]) -> None:
    """To the left one if they weigh the same; and so on further down."""
    model = stump(0.0)
    light, heavy = weights
    inner = NumericBinaryBranch({}, "b", 0.0, 1, leaf(light, 0.0), leaf(heavy / 2, heavy / 2))
    model._root = NumericBinaryBranch({}, "a", 0.0, 0, leaf(light, 2 * light), inner)
    assert_same(model, ABSENCES[:, :2], ("a", "b"), drop_nan=True)


def test_alternate_trees_where_features_are_absent() -> None:
    """Where a feature is absent, River asks the alternate tree of the heavier child twice."""

    def branch(feature: str, left: Any, right: Any, alternate: Any) -> Any:
        made = AdaNumBinaryBranchClass({}, feature, 0.0, 0, left, right, drift_detector=drift.ADWIN())
        made._alternate_tree = alternate
        return made

    model = tree.HoeffdingAdaptiveTreeClassifier(leaf_prediction="mc", seed=1)
    model.classes = {False, True}
    inner = branch("c", ada_leaf(3.0, 4.0, 1), ada_leaf(90.0, 5.0, 2), ada_leaf(1.0, 7.0, 3))
    middle = branch("b", ada_leaf(5.0, 1.0, 2), inner, ada_leaf(2.0, 3.0, 1))
    model._root = branch("a", ada_leaf(1.0, 2.0, 3), middle, ada_leaf(8.0, 1.0, 1))
    assert_same(model, ABSENCES, ("a", "b", "c"), drop_nan=True)
    # A feature that no row has at all.
    assert_same(model, ABSENCES[:, :2], ("a", "c"), drop_nan=True)


def test_alternate_trees_of_a_regressor() -> None:
    def branch(feature: str, left: Any, right: Any, alternate: Any) -> Any:
        made = AdaNumBinaryBranchReg(None, feature, 0.0, 0, left, right, drift_detector=drift.ADWIN())
        made._alternate_tree = alternate
        return made

    model = tree.HoeffdingAdaptiveTreeRegressor(leaf_prediction="mean", seed=1)
    middle = branch("b", ada_leaf_mean(1.0, 9), ada_leaf_mean(2.0, 3), ada_leaf_mean(4.0, 1))
    model._root = branch("a", middle, ada_leaf_mean(8.0, 2), ada_leaf_mean(16.0, 1))
    assert_same(model, ABSENCES[:, :2], ("a", "b"), drop_nan=True)


@pytest.mark.parametrize("binary_split", [False, True])
@pytest.mark.parametrize("adaptive", [False, True])
def test_categories_that_no_split_has_seen(adaptive: bool, binary_split: bool) -> None:
    wanted = {**QUICK, **NOMINAL, "binary_split": binary_split}
    model: Any = tree.HoeffdingTreeClassifier(**wanted)
    if adaptive:
        model = tree.HoeffdingAdaptiveTreeClassifier(**wanted, seed=1)
    rows = random_rows(400)
    learn(model, rows, [bool(row[2] in (0.0, 0.5)) ^ bool(row[0] > 1.5) for row in rows], NAMES)
    assert model.n_branches
    rows = random_rows(60, 5)
    rows[:20, 2], rows[10:30, 2] = 7.0, np.nan
    rows[40:, 0] = np.nan
    assert_same(model, rows, NAMES, drop_nan=True)


def test_intervals_that_no_split_has_seen() -> None:
    model = tree.HoeffdingTreeRegressor(
        **QUICK_VALUE, leaf_prediction="mean", splitter=QOSplitter(radius=0.3, allow_multiway_splits=True)
    )
    rows = random_rows(400)
    learn(model, rows, [float(np.floor(row[0] / 0.3)) for row in rows], NAMES)
    assert model.n_branches
    rows = random_rows(200, 5)
    rows[:20, 0] = np.linspace(-30.0, 30.0, 20)
    rows[20:40, 0] = np.arange(20) * 0.3
    rows[40:60, 0] = np.nan
    assert_same(model, rows, NAMES, drop_nan=True)


def test_leaves_choose_for_themselves() -> None:
    """In one tree one leaf answers by naive Bayes, the other, where the features mislead, by majority."""
    model = tree.HoeffdingTreeClassifier(grace_period=10**9)
    model._root = NumericBinaryBranch({}, NAMES[0], 0.0, 0, model._new_leaf(), model._new_leaf())
    rows = random_rows(300)
    noise = np.random.default_rng(6).random(300) < 0.35
    learn(model, rows, [bool(row[1] > 0.4 if row[0] > 0 else n) for row, n in zip(rows, noise, strict=True)], NAMES)
    left, right = model._root.children
    assert left._nb_correct_weight < left._mc_correct_weight
    assert right._nb_correct_weight > right._mc_correct_weight
    assert_same(model, rows, NAMES)


@pytest.mark.parametrize(
    "model",
    [
        tree.HoeffdingTreeClassifier(**QUICK, leaf_prediction="mc"),
        tree.HoeffdingAdaptiveTreeClassifier(**QUICK, leaf_prediction="mc", seed=1),
        forest.ARFClassifier(**QUICK, n_models=4, leaf_prediction="mc", seed=1),
        forest.AMFClassifier(n_estimators=3, seed=1),
    ],
    ids=lambda model: type(model).__name__,
)
def test_frequencies_are_rivers_to_the_last_bit(model: Any) -> None:
    """Halves and other simple fractions are common, and so are thresholds at them."""
    names, rows, labels = drifting_rows("sea", 600)
    for start in range(12):
        learn(model, rows[start : start + 1], labels[start : start + 1], names)
        assert_same_bits(model, rows, names)
    learn(model, rows[12:], labels[12:], names)
    assert_same_bits(model, rows, names)


@pytest.mark.parametrize("right", [0, 1, 2, 3, 4, 5])
def test_halves_of_an_adaptive_tree(right: int) -> None:
    """River multiplies by 1 / total: a half may end just below one half, and then the label is False."""
    model = tree.HoeffdingAdaptiveTreeClassifier(leaf_prediction="mc", seed=1)
    model.classes = {False, True}
    model._root = ada_leaf(4.0, 4.0, right, 6)
    assert_same_bits(model, np.zeros((2, 1), np.float32), ("a",))


def assert_same_bits(model: Any, rows: Any, names: Any) -> None:
    expected = river_scores(model, rows, names)
    nearest = expected.astype(np.float32)
    down = np.where(nearest > expected, np.nextafter(nearest, np.float32(0.0)), nearest)
    assert np.array_equal(onnx_scores(export(model, names), rows), down)


def test_a_far_value_in_a_naive_bayes_leaf() -> None:
    """Log densities far below zero that differ little: in float32 nothing of the difference is left."""
    model = tree.HoeffdingTreeClassifier(leaf_prediction="nb")
    for value, label in ((0.0, False), (2.0, False), (0.0003, True), (2.0003, True)):
        model.learn_one({"a": value}, label)
    rows = np.array([[value] for value in (1.0, 3e3, -3e3, 1e4, -1e4)], np.float32)
    assert_same(model, rows, ("a",))
    scores = river_scores(model, rows, ("a",))
    assert scores.min() > 0.1
    assert scores.max() < 0.9


def test_background_trees_answer_nothing() -> None:
    names, rows, labels = drifting_rows("rbf", 600)
    model = forest.ARFClassifier(n_models=2, warning_detector=drift.ADWIN(0.9, clock=1), seed=1)
    learn(model, rows, labels, names)
    assert any(tree is not None for tree in model._background)
    content = export(model, names)
    model._background = [None, None]
    assert export(model, names) == content


def test_features_that_the_tree_never_saw() -> None:
    names, rows, labels = drifting_rows("sea", 600)
    model: Any = learn(tree.HoeffdingTreeClassifier(**QUICK), rows, labels, names)
    wider = np.concatenate([rows[:50, ::-1], rows[:50, :1] * 9], axis=1)
    assert_same(model, wider, (*names[::-1], "new"))


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (tree.HoeffdingTreeClassifier(splitter=HistogramSplitter()), "HoeffdingTreeClassifier.splitter=Histogram"),
        (forest.ARFClassifier(splitter=HistogramSplitter()), "ARFClassifier.splitter=HistogramSplitter"),
        (tree.HoeffdingTreeRegressor(leaf_model=tree.SGTRegressor()), r"HoeffdingTreeRegressor.leaf_model=SGTReg"),
        (forest.ARFRegressor(leaf_model=linear_model.PARegressor()), r"ARFRegressor.leaf_model=PARegressor"),
        (tree.LASTClassifier(), "LASTClassifier has no ONNX form"),
    ],
)
def test_refused_by_name(model: Any, named: str) -> None:
    with pytest.raises(UnsupportedModelError, match=named):
        check(model, NAMES)


def test_a_third_class_is_refused() -> None:
    model = tree.HoeffdingTreeClassifier()
    for label in (False, True, "maybe"):
        model.learn_one({"a": 1.0}, label)
    with pytest.raises(UnsupportedModelError, match="HoeffdingTreeClassifier: the class 'maybe' is neither"):
        export(model, ("a",))


def test_mondrian_regressor() -> None:
    rows = random_rows(150)
    model: Any = forest.AMFRegressor(n_estimators=3, seed=1)
    learn(model, rows[:100], [float(row[0]) for row in rows[:100]], NAMES)
    assert_same(model, rows, NAMES)
    rows[:, 1] = np.nan
    assert_same(model, rows, NAMES, drop_nan=True)
    assert onnx_scores(export(forest.AMFRegressor(), NAMES), rows[:2]).tolist() == [0.0, 0.0]
