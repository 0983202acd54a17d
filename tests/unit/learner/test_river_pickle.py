"""A model state is read back whole, and nothing that it names is run unless models are made of it."""

from __future__ import annotations

import functools
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from river import datasets, linear_model, proba

from headrace.learner import river_pickle
from headrace.learner.errors import SnapshotError
from tests.unit.learner.river_models import MODELS, NAMES, recipe, rows


class Runs:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("harmful", "named"),
    [
        (lambda mark: Runs(os.system, f"touch {mark}"), "posix.system"),
        (lambda mark: Runs(eval, f"open({str(mark)!r}, 'w')"), "builtins.eval"),
        (lambda mark: Runs(open, str(mark), "w"), "io.open"),
        (lambda mark: Runs(functools.partial(os.system, f"touch {mark}")), "posix.system"),
        (lambda mark: Runs(getattr, linear_model.PAClassifier(), "learn_one"), "'learn_one' of river.linear_model"),
        (lambda mark: Runs(getattr, linear_model.PAClassifier, "__init__"), "'__init__' of river.linear_model"),
        (lambda mark: Runs(datasets.Phishing), "river.datasets.phishing.Phishing"),
        (lambda mark: Runs(Path.touch, mark), "pathlib"),
        (lambda mark: pickle.loads, "_pickle.loads"),
    ],
)
def test_what_no_model_is_made_of_is_refused_by_name(tmp_path: Path, harmful: Any, named: str) -> None:
    mark = tmp_path / "it-ran"
    with pytest.raises(SnapshotError, match=named):
        river_pickle.loads(pickle.dumps(harmful(mark)))
    assert not mark.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cos\nsystem\n.",
        b"criver.compose.pipeline\nos.system\n.",
        # Names with dots, which pickle follows from protocol 4 on: what a module of River imported.
        b"\x80\x04\x8c\x13river.linear_model.base\x8c\x07np.load\x93.",
        # What a module of River imported, without a dot.
        b"criver.linear_model.base\ncontextlib\n.",
        b"criver.compose.pipeline\n__builtins__\n.",
        b"criver.tree.viz\ngraphviz\n.",
    ],
)
def test_a_way_round_the_list_is_refused(content: bytes) -> None:
    with pytest.raises(SnapshotError, match=r"refused|damaged"):
        river_pickle.loads(content)


def test_a_malicious_state_in_a_recipe_is_refused(tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    with pytest.raises(SnapshotError, match=r"posix\.system"):
        recipe("passive-aggressive").restore(
            {"kind": "river", "resets": 0, "pickle": pickle.dumps(Runs(os.system, f"touch {mark}"))}
        )
    assert not mark.exists()


@pytest.mark.parametrize("name", [name for name in MODELS if name != "logistic regression"])
def test_a_cut_state_is_refused(name: str) -> None:
    state = recipe(name).state()
    for cut in (0, 1, len(state["pickle"]) // 2, -1):
        with pytest.raises(SnapshotError):
            recipe(name).restore(state | {"pickle": state["pickle"][:cut]})


def test_generators_of_distributions_are_left_out() -> None:
    learned = recipe("forest")
    values, labels, ids = rows(1200)
    learned.learn(values, labels, NAMES, ids)
    assert len(learned.state()["pickle"]) < 0.2 * len(pickle.dumps(learned.model))
    distribution = proba.Gaussian()
    distribution.update(1.0)
    assert river_pickle.loads(river_pickle.dumps(distribution)).mu == 1.0
