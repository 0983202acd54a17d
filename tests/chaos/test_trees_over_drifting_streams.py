"""Trees and forests beside their files over long streams that drift: 20,000 rows each, a new file every 2,500."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from river import ensemble, forest, preprocessing, tree

from tests.unit.onnx_export.comparing import assert_same, learn
from tests.unit.onnx_export.drifting import KINDS, drifting_rows

ROWS, STEP = 20_000, 2_500

MODELS: dict[str, Callable[[], Any]] = {
    "hoeffding_tree_mc": lambda: tree.HoeffdingTreeClassifier(leaf_prediction="mc", delta=1e-4),
    "hoeffding_tree_nb": lambda: tree.HoeffdingTreeClassifier(leaf_prediction="nb", delta=1e-4),
    "scaled_hoeffding_tree": lambda: preprocessing.StandardScaler() | tree.HoeffdingTreeClassifier(delta=1e-4),
    "hoeffding_adaptive_tree": lambda: tree.HoeffdingAdaptiveTreeClassifier(delta=1e-4, seed=1),
    "extremely_fast_decision_tree": lambda: tree.ExtremelyFastDecisionTreeClassifier(delta=1e-4),
    "adaptive_random_forest": lambda: forest.ARFClassifier(n_models=3, seed=1),
    "adwin_bagging": lambda: ensemble.ADWINBaggingClassifier(tree.HoeffdingTreeClassifier(), n_models=3, seed=1),
    "random_patches": lambda: ensemble.SRPClassifier(tree.HoeffdingTreeClassifier(), n_models=3, seed=1),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("stream", KINDS)
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_answers_as_river_while_it_learns(make: Callable[[], Any], stream: str) -> None:
    names, rows, labels = drifting_rows(stream, ROWS)
    model = make()
    for end in range(STEP, ROWS + 1, STEP):
        learn(model, rows[end - STEP : end], labels[end - STEP : end], names)
        assert_same(model, rows[end - STEP : end], names)
