"""Every kind of River tree and forest, with settings that let it grow on few rows."""

from __future__ import annotations

from typing import Any

from river import drift, ensemble, forest, linear_model, optim, preprocessing, tree
from river.tree.splitter import DynamicQuantizer, HistogramSplitter, QOSplitter

from tests.unit.onnx_export.case import NAMES, Case

QUICK: dict[str, Any] = {"grace_period": 20, "delta": 0.1, "tau": 0.5, "max_share_to_split": 1.0}
QUICK_VALUE: dict[str, Any] = {"grace_period": 20, "delta": 0.1, "tau": 0.5}
# The third column of the suite's rows holds codes.
NOMINAL: dict[str, Any] = {"nominal_attributes": [NAMES[2]]}


def classifier(make: Any, **settings: Any) -> Case:
    return Case(lambda: make(**settings), knows_absence=True, answers_nan=False)


def regressor(make: Any, extremes: bool = True, **settings: Any) -> Case:
    return Case(lambda: make(**settings), "regressor", knows_absence=True, answers_nan=False, extremes=extremes)


def quick_tree(**settings: Any) -> tree.HoeffdingTreeClassifier:
    return tree.HoeffdingTreeClassifier(**QUICK, **settings)


TREES = {
    "hoeffding_tree": classifier(quick_tree),
    "hoeffding_tree_mc": classifier(quick_tree, leaf_prediction="mc", splitter=HistogramSplitter()),
    "hoeffding_tree_nb": classifier(quick_tree, leaf_prediction="nb", nb_threshold=30),
    "hoeffding_tree_nominal": classifier(quick_tree, **NOMINAL),
    "hoeffding_tree_nominal_binary": classifier(quick_tree, leaf_prediction="nb", binary_split=True, **NOMINAL),
    "scaled_hoeffding_tree": Case(
        lambda: preprocessing.StandardScaler() | quick_tree(), knows_absence=True, answers_nan=False
    ),
    "hoeffding_adaptive_tree": classifier(
        tree.HoeffdingAdaptiveTreeClassifier, **QUICK, **NOMINAL, drift_detector=drift.ADWIN(0.5, clock=4), seed=1
    ),
    "hoeffding_adaptive_tree_mc": classifier(
        tree.HoeffdingAdaptiveTreeClassifier, **QUICK, leaf_prediction="mc", bootstrap_sampling=False, seed=1
    ),
    "extremely_fast_decision_tree": classifier(
        tree.ExtremelyFastDecisionTreeClassifier, **QUICK, **NOMINAL, min_samples_reevaluate=20
    ),
    "stochastic_gradient_tree": classifier(
        tree.SGTClassifier, delta=0.5, grace_period=20, feature_quantizer=DynamicQuantizer()
    ),
    "adaptive_random_forest": classifier(forest.ARFClassifier, **QUICK, n_models=2, lambda_value=2, seed=1),
    "adaptive_random_forest_unweighted": classifier(
        forest.ARFClassifier, **QUICK, n_models=2, leaf_prediction="mc", disable_weighted_vote=True, seed=2
    ),
    "aggregated_mondrian_forest": classifier(forest.AMFClassifier, n_estimators=2, seed=1),
    "random_patches": classifier(
        lambda: ensemble.SRPClassifier(quick_tree(), n_models=2, subspace_size=0.6, lam=2, seed=5)
    ),
    "leveraging_bagging_of_trees": classifier(
        lambda: ensemble.LeveragingBaggingClassifier(quick_tree(), n_models=2, w=2, seed=3)
    ),
    "ada_boost_of_trees": classifier(lambda: ensemble.AdaBoostClassifier(quick_tree(), n_models=2, seed=4)),
    "hoeffding_tree_regressor": regressor(tree.HoeffdingTreeRegressor, **QUICK_VALUE, leaf_prediction="mean"),
    "hoeffding_tree_regressor_adaptive": regressor(
        tree.HoeffdingTreeRegressor,
        False,
        **QUICK_VALUE,
        leaf_model=linear_model.LinearRegression(optim.SGD(1e-6), intercept_lr=0.1),
    ),
    "hoeffding_tree_regressor_intervals": regressor(
        tree.HoeffdingTreeRegressor,
        **QUICK_VALUE,
        leaf_prediction="mean",
        splitter=QOSplitter(radius=0.5, allow_multiway_splits=True),
    ),
    "hoeffding_adaptive_tree_regressor": regressor(
        tree.HoeffdingAdaptiveTreeRegressor,
        **QUICK_VALUE,
        **NOMINAL,
        leaf_prediction="mean",
        drift_detector=drift.ADWIN(0.5, clock=4),
        seed=1,
    ),
    "stochastic_gradient_tree_regressor": regressor(
        tree.SGTRegressor, delta=0.5, grace_period=20, feature_quantizer=DynamicQuantizer()
    ),
    "aggregated_mondrian_forest_regressor": regressor(forest.AMFRegressor, n_estimators=3, seed=1),
    "random_patches_regressor": regressor(
        lambda: ensemble.SRPRegressor(
            tree.HoeffdingTreeRegressor(**QUICK_VALUE, leaf_prediction="mean"),
            n_models=4,
            disable_weighted_vote=False,
            seed=6,
        )
    ),
    "adaptive_random_forest_regressor": regressor(
        forest.ARFRegressor, **QUICK_VALUE, n_models=4, leaf_prediction="mean", seed=1
    ),
    "adaptive_random_forest_regressor_mean": regressor(
        forest.ARFRegressor,
        False,
        **QUICK_VALUE,
        n_models=3,
        leaf_prediction="adaptive",
        leaf_model=linear_model.LinearRegression(optim.SGD(1e-6), intercept_lr=0.1),
        aggregation_method="mean",
        disable_weighted_vote=False,
        seed=1,
    ),
}
