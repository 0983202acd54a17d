"""Every kind of River model that has an ONNX form, under a name: what the properties of the suite are held to."""

from __future__ import annotations

from typing import Any

from river import (
    anomaly,
    bandit,
    cluster,
    compose,
    drift,
    dummy,
    ensemble,
    feature_extraction,
    imblearn,
    linear_model,
    metrics,
    model_selection,
    naive_bayes,
    optim,
    preprocessing,
    stats,
)

from headrace.estimators import ConstantScaler, PlattScaling, PriorCorrection
from tests.unit.onnx_export.case import NAMES, Case
from tests.unit.onnx_export.every_tree import TREES


def _regression(**settings: Any) -> Any:
    return linear_model.LogisticRegression(optim.SGD(0.05), **settings)


def _behind(step: Any) -> Any:
    """A model that shows in its answer what the step gives: a column that never varied has a weight too."""
    return step | _regression(initializer=optim.initializers.Normal(sigma=0.5, seed=1))


def _scaled() -> Any:
    return preprocessing.StandardScaler() | _regression()


def _scaled_value() -> Any:
    return preprocessing.StandardScaler() | linear_model.LinearRegression(optim.SGD(0.01), intercept_lr=0.1)


TRANSFORMERS = {
    "standard_scaler": Case(lambda: _behind(preprocessing.StandardScaler())),
    "standard_scaler_mean_only": Case(lambda: _behind(preprocessing.StandardScaler(with_std=False))),
    "adaptive_standard_scaler": Case(lambda: _behind(preprocessing.AdaptiveStandardScaler(0.1))),
    "min_max_scaler": Case(lambda: _behind(preprocessing.MinMaxScaler())),
    "min_max_scaler_window": Case(lambda: _behind(preprocessing.MinMaxScaler(window_size=20))),
    "max_abs_scaler": Case(lambda: _behind(preprocessing.MaxAbsScaler())),
    "max_abs_scaler_window": Case(lambda: _behind(preprocessing.MaxAbsScaler(window_size=20))),
    "robust_scaler": Case(lambda: _behind(preprocessing.RobustScaler())),
    "robust_scaler_centring": Case(lambda: _behind(preprocessing.RobustScaler(with_scaling=False))),
    "robust_scaler_scaling": Case(lambda: _behind(preprocessing.RobustScaler(with_centering=False, q_inf=0.1))),
    "constant_scaler": Case(lambda: _behind(ConstantScaler(1000.0))),
    "normalizer": Case(lambda: _behind(preprocessing.Normalizer())),
    "normalizer_1": Case(lambda: _behind(preprocessing.Normalizer(order=1))),
    "normalizer_inf": Case(lambda: _behind(preprocessing.Normalizer(order=float("inf")))),
    "binarizer": Case(lambda: _behind(preprocessing.Binarizer(0.5)), answers_nan=False),
    "one_hot_encoder": Case(lambda: _behind(preprocessing.OneHotEncoder()), answers_nan=False, codes=True),
    "one_hot_encoder_declared": Case(
        lambda: _behind(
            preprocessing.OneHotEncoder(categories={name: {0.0, 1.0, -1.0, 0.5} for name in NAMES}, drop_first=True)
        ),
        answers_nan=False,
        codes=True,
        only_names=True,
    ),
    "ordinal_encoder": Case(
        lambda: _behind(preprocessing.OrdinalEncoder(unknown_value=0)), answers_nan=False, codes=True
    ),
    "ordinal_encoder_declared": Case(
        lambda: _behind(
            preprocessing.OrdinalEncoder(
                categories={name: {0.0: 4, 1.0: 2, -1.0: 7} for name in NAMES}, unknown_value=-3
            )
        ),
        answers_nan=False,
        codes=True,
        only_names=True,
    ),
    "select": Case(lambda: _behind(compose.Select("f2")), only_names=True),
    "discard": Case(lambda: _behind(compose.Discard("f0", "f3", "f9"))),
    "prefixer_suffixer": Case(lambda: _behind(compose.Prefixer("a_") | compose.Suffixer("_b"))),
    "union": Case(
        lambda: _behind(
            (compose.Select("f1", "f3") | preprocessing.OneHotEncoder())
            + (compose.Discard("f1") | preprocessing.StandardScaler())
            + preprocessing.MinMaxScaler()
        ),
        extremes=False,
        codes=True,
        only_names=True,
    ),
    "rbf_sampler": Case(
        lambda: (
            preprocessing.StandardScaler()
            | feature_extraction.RBFSampler(gamma=0.2, n_components=5, seed=3)
            | _regression()
        ),
        extremes=False,
    ),
    "polynomial_extender": Case(
        lambda: (
            preprocessing.StandardScaler()
            | feature_extraction.PolynomialExtender(degree=3, include_bias=True)
            | _regression()
        )
    ),
    "anomaly_filter": Case(
        lambda: compose.Pipeline(
            preprocessing.StandardScaler(), anomaly.QuantileFilter(anomaly.OneClassSVM(nu=0.2), q=0.9), _regression()
        )
    ),
    "nested_pipeline": Case(
        lambda: compose.Pipeline(("scale", preprocessing.StandardScaler()), ("learn", compose.Pipeline(_regression())))
    ),
}

CLASSIFIERS = {
    "logistic_regression": Case(_regression),
    "logistic_regression_adam_l2": Case(
        lambda: linear_model.LogisticRegression(
            optim.Adam(0.01), l2=0.01, intercept_init=0.2, initializer=optim.initializers.Normal(sigma=0.5, seed=1)
        )
    ),
    "logistic_regression_l1": Case(lambda: linear_model.LogisticRegression(optim.SGD(0.05), l1=0.001)),
    "svm": Case(lambda: preprocessing.StandardScaler() | _regression(loss=optim.losses.Hinge(), l2=1e-4)),
    "focal_loss": Case(lambda: preprocessing.StandardScaler() | _regression(loss=optim.losses.BinaryFocalLoss())),
    "perceptron": Case(lambda: preprocessing.StandardScaler() | linear_model.Perceptron()),
    "pa_classifier": Case(lambda: linear_model.PAClassifier(C=0.01, mode=2)),
    "alma_classifier": Case(lambda: preprocessing.StandardScaler() | linear_model.ALMAClassifier()),
    "softmax_regression": Case(lambda: preprocessing.StandardScaler() | linear_model.SoftmaxRegression()),
    "gaussian_nb": Case(naive_bayes.GaussianNB),
    "no_change_classifier": Case(dummy.NoChangeClassifier, answers_nan=False),
    "prior_classifier": Case(dummy.PriorClassifier, answers_nan=False),
    "bagging_classifier": Case(lambda: ensemble.BaggingClassifier(_scaled(), n_models=3, seed=1)),
    "adwin_bagging_classifier": Case(
        lambda: ensemble.ADWINBaggingClassifier(naive_bayes.GaussianNB(), n_models=3, seed=2)
    ),
    "leveraging_bagging_classifier": Case(
        lambda: ensemble.LeveragingBaggingClassifier(naive_bayes.GaussianNB(), n_models=3, seed=3)
    ),
    "ada_boost_classifier": Case(lambda: ensemble.AdaBoostClassifier(naive_bayes.GaussianNB(), n_models=3, seed=4)),
    "adwin_boosting_classifier": Case(lambda: ensemble.ADWINBoostingClassifier(_scaled(), n_models=3, seed=5)),
    "bole_classifier": Case(lambda: ensemble.BOLEClassifier(naive_bayes.GaussianNB(), n_models=3, seed=6)),
    "voting_classifier": Case(
        lambda: ensemble.VotingClassifier([_scaled(), naive_bayes.GaussianNB(), linear_model.PAClassifier()]),
        answers_nan=False,
    ),
    "voting_classifier_votes": Case(
        lambda: ensemble.VotingClassifier([_scaled(), linear_model.PAClassifier()], use_probabilities=False),
        answers_nan=False,
    ),
    "random_under_sampler": Case(
        lambda: imblearn.RandomUnderSampler(_scaled(), desired_dist={False: 0.6, True: 0.4}, seed=1)
    ),
    "random_over_sampler": Case(
        lambda: (
            preprocessing.MinMaxScaler() | imblearn.RandomOverSampler(_regression(), {False: 0.5, True: 0.5}, seed=1)
        )
    ),
    "random_sampler": Case(lambda: imblearn.RandomSampler(_scaled(), {False: 0.5, True: 0.5}, seed=1)),
    "hard_sampling_classifier": Case(lambda: imblearn.HardSamplingClassifier(_scaled(), size=10, p=0.3, seed=1)),
    "drift_retraining_classifier": Case(
        lambda: drift.DriftRetrainingClassifier(naive_bayes.GaussianNB(), drift.binary.DDM(warm_start=5))
    ),
    "successive_halving_classifier": Case(
        lambda: model_selection.SuccessiveHalvingClassifier(
            [_scaled(), _regression(), linear_model.PAClassifier(), linear_model.ALMAClassifier()],
            metric=metrics.Accuracy(),
            budget=100,
            seed=1,
        )
    ),
    "bandit_classifier": Case(
        lambda: model_selection.BanditClassifier(
            [_scaled(), naive_bayes.GaussianNB(), linear_model.PAClassifier()],
            metric=metrics.Accuracy(),
            policy=bandit.EpsilonGreedy(0.2, seed=1),
        )
    ),
    "platt_scaling": Case(lambda: PlattScaling(_scaled(), lr=0.05)),
    "prior_correction": Case(lambda: PriorCorrection(_scaled(), negatives=0.3)),
}

REGRESSORS = {
    "linear_regression": Case(_scaled_value, "regressor"),
    "linear_regression_huber": Case(
        lambda: linear_model.LinearRegression(optim.AdaGrad(0.1), loss=optim.losses.Huber()), "regressor"
    ),
    "poisson_regression": Case(
        lambda: (
            preprocessing.StandardScaler()
            | linear_model.LinearRegression(optim.SGD(1e-4), loss=optim.losses.Poisson(), intercept_lr=1e-4)
        ),
        "regressor",
    ),
    "bayesian_linear_regression": Case(
        lambda: preprocessing.StandardScaler() | linear_model.BayesianLinearRegression(), "regressor", extremes=False
    ),
    "pa_regressor": Case(lambda: linear_model.PARegressor(C=0.01, mode=2), "regressor"),
    "statistic_regressor": Case(lambda: dummy.StatisticRegressor(stats.Mean()), "regressor", answers_nan=False),
    "statistic_regressor_median": Case(
        lambda: dummy.StatisticRegressor(stats.Quantile(0.5)), "regressor", answers_nan=False
    ),
    "bagging_regressor": Case(
        lambda: ensemble.BaggingRegressor(_scaled_value(), n_models=3, seed=1), "regressor", extremes=False
    ),
    "ewa_regressor": Case(
        lambda: ensemble.EWARegressor([_scaled_value(), linear_model.PARegressor(C=0.01)], learning_rate=0.0005),
        "regressor",
    ),
    "hard_sampling_regressor": Case(
        lambda: imblearn.HardSamplingRegressor(_scaled_value(), size=10, p=0.3, seed=1), "regressor"
    ),
    "chebyshev_under_sampler": Case(lambda: imblearn.ChebyshevUnderSampler(_scaled_value(), seed=1), "regressor"),
    "chebyshev_over_sampler": Case(lambda: imblearn.ChebyshevOverSampler(_scaled_value()), "regressor"),
    "greedy_regressor": Case(
        lambda: model_selection.GreedyRegressor([_scaled_value(), linear_model.PARegressor()]), "regressor"
    ),
    "successive_halving_regressor": Case(
        lambda: model_selection.SuccessiveHalvingRegressor(
            [_scaled_value(), linear_model.PARegressor(), linear_model.PARegressor(C=0.01)],
            metric=metrics.MAE(),
            budget=60,
            seed=1,
        ),
        "regressor",
    ),
    "bandit_regressor": Case(
        lambda: model_selection.BanditRegressor(
            [_scaled_value(), linear_model.PARegressor()],
            metric=metrics.MAE(),
            policy=bandit.EpsilonGreedy(0.2, seed=1),
        ),
        "regressor",
    ),
    "pred_clipper": Case(lambda: preprocessing.PredClipper(_scaled_value(), -1.0, 40.0), "regressor"),
    "target_standard_scaler": Case(
        lambda: (
            preprocessing.StandardScaler()
            | preprocessing.TargetStandardScaler(linear_model.LinearRegression(optim.SGD(0.01)))
        ),
        "regressor",
    ),
    "target_min_max_scaler": Case(
        lambda: (
            preprocessing.StandardScaler()
            | preprocessing.TargetMinMaxScaler(linear_model.LinearRegression(optim.SGD(0.01)))
        ),
        "regressor",
    ),
}

CLUSTERERS = {
    "k_means": Case(
        lambda: preprocessing.StandardScaler() | cluster.KMeans(n_clusters=3, halflife=0.1, seed=4),
        "clusterer",
        extremes=False,
    ),
    "k_means_manhattan": Case(
        lambda: cluster.KMeans(n_clusters=4, halflife=0.2, p=1, seed=5), "clusterer", extremes=False
    ),
}

CASES: dict[str, Case] = {**TRANSFORMERS, **CLASSIFIERS, **REGRESSORS, **CLUSTERERS, **TREES}
