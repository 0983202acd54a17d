"""Taking back what was learned of an event, for models where that is defined.

A model that keeps sums can take one away. A gradient step cannot be taken back: the steps after it depended on it. Nor
can a row be taken out of a tree, whose splits it took part in, nor one that a scaler changed before it was learned,
since the scaler has moved on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from river import naive_bayes

from headrace.learner.errors import UnsupportedRecipeError

REVERSIBLE = "GaussianNB, without a step before it"


def check(model: Any) -> None:
    """Refuse a model that cannot take back what it learned.

    Raises:
        UnsupportedRecipeError: names the model and those that can.
    """
    if type(model) is not naive_bayes.GaussianNB:
        raise UnsupportedRecipeError(
            f"corrections='reverse': {_name(model)} cannot take back what it learned; {REVERSIBLE}, can. "
            "Declare corrections='ignore'"
        )


def take_back(model: Any, x: Mapping[str, float], label: bool) -> None:
    """Make a model that `check` accepts as if it had not learned a row, up to rounding.

    Counts are exact. Means and variances are taken back by the inverse of Welford's update, which leaves rounding
    errors of the order of 1e-16 times the squares that it took away.

    Args:
        model: has learned the row.
        x: features by name, as they were learned.
        label: as it was learned.
    """
    model.class_counts[label] -= 1
    left = model.class_counts[label]
    if not left:
        # As if the class had never been seen.
        del model.class_counts[label]
        model.gaussians.pop(label, None)
        return
    for name, value in x.items():
        gaussian = model.gaussians[label][name]
        gaussian.revert(value)
        # One value has no variance, and none is negative: what is left then is rounding.
        gaussian._var._S = 0.0 if left == 1 else max(0.0, gaussian._var._S)


def _name(model: Any) -> str:
    steps = getattr(model, "steps", None)
    return " | ".join(type(step).__name__ for step in steps.values()) if steps else type(model).__name__
