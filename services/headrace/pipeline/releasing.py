"""What a pipeline declares about new versions of its models: which are watched, and how far scores may move."""

from __future__ import annotations

import math
from dataclasses import dataclass

PROBABILITY_SHIFT = 0.25


@dataclass(frozen=True)
class Releasing:
    """Rules for versions on their way into traffic. They change no feature and no weight, so they are in no
    fingerprint.

    Attributes:
        shadow_challengers: score the newest version of each challenger beside the answers, as a shadow. It never
            answers by itself.
        max_score_shift: how far the scores of a refresh may be from those of the version that it replaces: the mean
            distance of their distributions (Wasserstein-1), in units of the score. None is 0.25 for probabilities and
            no bound for numbers.
        min_learned: outcomes that the replaced version must have learned for the distance to be judged: before, scores
            move far because they must.
    """

    shadow_challengers: bool = False
    max_score_shift: float | None = None
    min_learned: int = 1_000

    def problem(self) -> str:
        """What is wrong with the declaration; empty when nothing is."""
        if self.max_score_shift is not None and not self.max_score_shift > 0:
            return f"max_score_shift {self.max_score_shift}: allowed is above 0"
        if self.min_learned < 0:
            return f"min_learned {self.min_learned}: allowed is 0 or more"
        return ""

    def shift_allowed(self, *, numeric: bool) -> float:
        """The bound in force; infinite where there is none."""
        if self.max_score_shift is not None:
            return self.max_score_shift
        return math.inf if numeric else PROBABILITY_SHIFT
