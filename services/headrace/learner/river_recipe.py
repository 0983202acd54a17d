"""Any River classifier, regressor or clusterer that has an ONNX form, learned in a way that can be repeated to the bit.

Nothing here depends on the clock, on chance without a seed, or on the process: the same rows in the same order give the
same model, and a restored model goes on as if it had never been saved.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river import base, compose, drift, ensemble

from headrace.estimators import PlattScaling, PriorCorrection
from headrace.learner import canonical_state, reversal, river_pickle
from headrace.learner.errors import ModelDivergedError, SnapshotError, UnsupportedRecipeError
from headrace.learner.prequential import ScoreKind
from headrace.learner.river_description import (
    check_seeds,
    describe,
    final_step,
    fingerprint,
    knows_absence,
    order_names,
    takes_weights,
)
from headrace.onnx_export import UnsupportedModelError, check

_KIND = "river"


class RiverRecipe:
    """A River model, learned row by row.

    Args:
        build: returns a fresh River model.
        feature_names: names of the features that it is given, in order.
        class_weights: weight of a row by its label; absent labels weigh 1.
        negative_sampling: share of the negatives that is learned, chosen by a hash of the event id. What is served is
            corrected for it exactly.
        reset_on_drift: confidence (delta) of ADWIN on the absolute error of each row before it is learned; where it
            finds that the error rose, the model begins anew. None is off.
        calibration: "platt" learns Platt scaling of the served probability from every row; None is off.
        reverse_corrections: whether a corrected row is taken back before it is learned with its new label.
        numeric: whether labels are numbers, not one of two classes.

    Raises:
        UnsupportedRecipeError: names the step or setting that cannot be served, or not learned twice in the same way,
            or that does not go with the label.
    """

    def __init__(
        self,
        build: Callable[[], Any],
        feature_names: Sequence[str],
        *,
        class_weights: Mapping[bool, float] | None = None,
        negative_sampling: float = 1.0,
        reset_on_drift: float | None = None,
        calibration: str | None = None,
        reverse_corrections: bool = False,
        numeric: bool = False,
    ) -> None:
        self._build = build
        self._weights = class_weights and {label: float(class_weights.get(label, 1.0)) for label in (False, True)}
        self._kept = negative_sampling
        self._detector: Any = None if reset_on_drift is None else drift.ADWIN(delta=reset_on_drift)
        self._calibration = calibration
        self.reverses, self.numeric = reverse_corrections, numeric
        self.resets = 0
        self._learner = build()
        self._check(feature_names)
        description = {"model": describe(self._learner)}
        order_names(self._learner)
        # A fresh model in bytes, for when it begins anew: `build` may give the same object twice.
        self._fresh = river_pickle.dumps(self._learner)
        self.model = self._served()
        self.knows_absence = knows_absence(self._learner)
        self._check_answers(feature_names)
        options = {
            "class_weights": self._weights and [self._weights[False], self._weights[True]],
            "negative_sampling": None if negative_sampling == 1.0 else negative_sampling,
            "reset_on_drift": reset_on_drift,
            "calibration": calibration,
            "corrections": "reverse" if reverse_corrections else None,
        }
        # What is not declared is left out, so that an option that is added one day changes no fingerprint.
        self.fingerprint = fingerprint(description | {name: value for name, value in options.items() if value})

    def learn(
        self,
        rows: Sequence[Sequence[float]],
        labels: Sequence[float],
        names: Sequence[str],
        event_ids: Sequence[str] | None = None,
        replaced: Sequence[float | None] | None = None,
    ) -> NDArray[np.float64]:
        """Learn rows one by one, as River's own loop does.

        Args:
            rows: feature values, each row as long as `names`; one that is NaN is absent.
            labels: one per row.
            names: feature names in column order.
            event_ids: one per row; needed where negatives are sampled.
            replaced: of a row that was learned before, the label that is taken back first; None of others.

        Returns:
            float64 [rows]: the score that the model gave each row before it learned its label.

        Raises:
            ModelDivergedError: a number became too large for a float.
            ValueError: event ids are needed and not given.
        """
        if self._kept < 1.0 and event_ids is None:
            raise ValueError("where negatives are sampled, event ids are needed")
        scores = np.empty(len(rows), np.float64)
        plain = self._weights is None and self._kept == 1.0 and self._detector is None and self._calibration is None
        try:
            for index, (row, label) in enumerate(zip(rows, labels, strict=True)):
                x = self._features(names, row)
                score = scores[index] = self._score_one(x)
                if replaced is not None and (before := replaced[index]) is not None:
                    reversal.take_back(self._learner, x, bool(before))
                if plain:
                    self._learn_one(x, label)
                else:
                    self._learn_declared(x, label, score, "" if event_ids is None else event_ids[index])
        except OverflowError as error:
            raise ModelDivergedError(
                f"a number of the model became too large ({error}): lower the learning rate or look at the features"
            ) from error
        return scores

    def score(self, rows: Sequence[Sequence[float]], names: Sequence[str]) -> NDArray[np.float64]:
        """The score that is served for each row, float64 [rows]; nothing is learned."""
        return np.array([self._score_one(self._features(names, row)) for row in rows], np.float64)

    def state(self) -> dict[str, Any]:
        """What was learned; `restore` of it gives a model that goes on to the bit.

        The bytes are a pickle for `river_pickle.loads`, which is to be given what was signed here and nothing else.
        """
        return {"kind": _KIND, "resets": self.resets, "pickle": river_pickle.dumps(self._content())}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put the model where `state` was taken.

        Raises:
            SnapshotError: the state is of another kind of model, damaged, or names what no model is made of.
        """
        if state.get("kind") != _KIND:
            raise SnapshotError(f"the snapshot holds a {state.get('kind')!r} state that does not fit the recipe")
        content = river_pickle.loads(state["pickle"])
        try:
            learner, detector, calibration = content
            self.resets = int(state["resets"])
        except (TypeError, ValueError, KeyError) as error:
            raise SnapshotError(f"the model state in the snapshot is damaged: {error!r}") from error
        if type(learner) is not type(self._learner) or type(detector) is not type(self._detector):
            raise SnapshotError(f"the snapshot holds a {type(learner).__name__} that does not fit the recipe")
        self._learner, self._detector = learner, detector
        self.model = self._served()
        if calibration is not None:
            self.model.slope, self.model.intercept = map(float, calibration)

    def copy(self) -> RiverRecipe:
        """A recipe in the same state. To export and to score with: some models draw by chance when they do."""
        twin = copy.copy(self)
        twin.restore(self.state())
        return twin

    def comparable(self, state: Mapping[str, Any]) -> Any:
        """A state in a form in which equal states are equal: its digest instead of its pickle."""
        digest = canonical_state.digest(river_pickle.loads(state["pickle"]))
        return {"kind": state["kind"], "resets": state["resets"], "digest": digest}

    def _content(self) -> tuple[Any, Any, tuple[float, float] | None]:
        calibration = (self.model.slope, self.model.intercept) if self._calibration else None
        return self._learner, self._detector, calibration

    def _served(self) -> Any:
        model = self._learner
        if self._kept < 1.0:
            model = PriorCorrection(model, self._kept)
        if self._calibration:
            model = PlattScaling(model)
        self._kind_of(model)
        return model

    def _kind_of(self, model: Any) -> None:
        """Settle by what is asked and what is taught: looked up once, not for each row."""
        last = final_step(self._learner)
        self._is_classifier = isinstance(last, base.Classifier)
        self._is_clusterer = isinstance(last, base.Clusterer)
        self.score_kind: ScoreKind = (
            "probability" if self._is_classifier else "cluster" if self._is_clusterer else "value"
        )
        # Voters give the class alone.
        self._gives_shares = self._is_classifier and not isinstance(last, ensemble.VotingClassifier)
        self._predict = model.predict_proba_one if self._gives_shares else model.predict_one
        self._uncalibrated = model.classifier.predict_proba_one if self._calibration else None
        self._learn = self._learner.learn_one

    def _score_one(self, x: dict[str, float]) -> float:
        answer = self._predict(x)
        if self._gives_shares:
            return float(answer.get(True, 0.0))
        # What has learned nothing may answer nothing.
        return 0.0 if answer is None else float(answer)

    def _learn_one(self, x: dict[str, float], label: float, **weight: float) -> None:
        if self._is_classifier:
            self._learn(x, label, **weight)
        elif self._is_clusterer:
            self._learn(x)
        else:
            self._learn(x, float(label), **weight)

    def _learn_declared(self, x: dict[str, float], label: float, score: float, event_id: str) -> None:
        if self._uncalibrated is not None:
            self.model.calibrate_one(self._uncalibrated(x).get(True, 0.0), label)
        if label or self._kept == 1.0 or sampled(event_id, self._kept):
            weight = {} if self._weights is None else {"w": self._weights[bool(label)]}
            self._learn_one(x, label, **weight)
        if self._detector is not None:
            self._look_for_drift(abs(float(label) - score))

    def _look_for_drift(self, error: float) -> None:
        before = self._detector.estimation
        self._detector.update(error)
        # ADWIN also finds that the error fell; that is no reason to forget.
        if self._detector.drift_detected and self._detector.estimation > before:
            self.resets += 1
            calibration = self._content()[2]
            self._learner = river_pickle.loads(self._fresh)
            self.model = self._served()
            if calibration is not None:
                self.model.slope, self.model.intercept = calibration

    def _features(self, names: Sequence[str], row: Sequence[float]) -> dict[str, float]:
        x = dict(zip(names, row, strict=True))
        if self.knows_absence and any(map(math.isnan, row)):
            x = {name: value for name, value in x.items() if not math.isnan(value)}
        return x

    def _check(self, feature_names: Sequence[str]) -> None:
        model = self._learner
        if isinstance(model, compose.Pipeline) and not model.steps:
            raise UnsupportedRecipeError("the recipe is an empty pipeline")
        last = final_step(model)
        if self.numeric and isinstance(last, base.Classifier):
            raise UnsupportedRecipeError(
                f"the label is a number, and {type(last).__name__} learns classes: declare a regressor"
            )
        if self.reverses:
            reversal.check(model)
        options = {
            "class_weights": self._weights is not None,
            "negative_sampling": self._kept < 1.0,
            "reset_on_drift": self._detector is not None,
            "calibration": self._calibration is not None,
        }
        for name, asked in options.items():
            if asked and not isinstance(last, base.Classifier):
                raise UnsupportedRecipeError(f"{name} needs a classifier; {type(last).__name__} is none")
        if self._weights is not None and not takes_weights(last):
            raise UnsupportedRecipeError(
                f"class_weights: {type(last).__name__} learns rows without weights; "
                "negative_sampling works with every classifier"
            )
        try:
            check(model, feature_names)
        except UnsupportedModelError as error:
            raise UnsupportedRecipeError(f"the recipe cannot be served: {error}") from error
        check_seeds(model)
        if canonical_state.digest(self._build()) != canonical_state.digest(model):
            raise UnsupportedRecipeError(
                "the recipe is another one each time it is built: a part of it draws by chance and has no seed"
            )

    def _check_answers(self, feature_names: Sequence[str]) -> None:
        """A version is served before anything was learned, so the model must have an answer then."""
        try:
            twin = self.copy()
            twin.score([[1.0] * len(feature_names)], feature_names)
        except (ArithmeticError, TypeError) as error:
            raise UnsupportedRecipeError(
                f"the recipe has no answer before it has learned: River fails with {error!r}"
            ) from error


def sampled(event_id: str, share: float) -> bool:
    """Whether an event is in a sample of this share: the same answer always and everywhere.

    Args:
        event_id: of the event; its hash (BLAKE2b) decides.
        share: 0 to 1.
    """
    drawn = int.from_bytes(hashlib.blake2b(event_id.encode(), digest_size=8).digest())
    return drawn < share * 2.0**64
