"""What the versions that answer gave lately, and whether a guard rail is crossed. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from headrace.rollout.checks import score_shift
from headrace.rollout.guard_rails import Crossed

SCORES_KEPT = 1_000
ROWS_KEPT = 256
VERSIONS_KEPT = 16
LOOKS_TO_FAIL = 2
LOOKS_TO_BE_SLOW = 3


class Counted(Protocol):
    """What a server has counted for a model since it was loaded; see `triton.ModelStatistics`."""

    @property
    def answered(self) -> int:
        """Requests answered."""

    @property
    def failed(self) -> int:
        """Requests answered with an error."""

    @property
    def executions(self) -> int:
        """Runs of the model."""

    @property
    def compute_s(self) -> float:
        """Seconds in these runs."""


@dataclass(frozen=True)
class Rails:
    """What is allowed while a version answers.

    Attributes:
        min_rows: answers of a version, and of the one before, for their distributions to be compared.
        max_failed_share: of the requests to a version on a server, between two looks.
        min_failed: failed requests between two looks, below which the share says nothing.
        max_slowdown: run of the model beside the mean run of the version before.
        slow_s: seconds that a run must take more than that, besides.
        min_executions: runs between two looks, below which their time says nothing.
    """

    min_rows: int = 200
    max_failed_share: float = 0.2
    min_failed: int = 5
    max_slowdown: float = 10.0
    slow_s: float = 0.05
    min_executions: int = 20


@dataclass
class _Scores:
    finite: deque[float] = field(default_factory=lambda: deque(maxlen=SCORES_KEPT))
    not_finite: int = 0


@dataclass
class _Looks:
    last: Counted
    failing: int = 0
    slow: int = 0
    failed_share: float = 0.0
    run_s: float = 0.0


class LiveScores:
    """Answers by version, and recent rows.

    Args:
        width: number of features.
        rails: what is allowed.
    """

    def __init__(self, width: int, rails: Rails) -> None:
        self._width = width
        self._rails = rails
        self._versions: OrderedDict[str, _Scores] = OrderedDict()
        self._rows: deque[Sequence[float]] = deque(maxlen=ROWS_KEPT)
        self._looks: dict[tuple[str, str], _Looks] = {}

    def answered(self, version: str, score: float, features: Sequence[float]) -> None:
        """Take note of an answer."""
        scores = self._versions.setdefault(version, _Scores())
        self._versions.move_to_end(version)
        if np.isfinite(score):
            scores.finite.append(score)
        else:
            scores.not_finite += 1
        if len(features) == self._width:
            self._rows.append(features)
        while len(self._versions) > VERSIONS_KEPT:
            self._versions.popitem(last=False)

    @property
    def rows(self) -> NDArray[np.float32]:
        """Features of the newest answers, rows x features."""
        return np.asarray(list(self._rows), np.float32).reshape(-1, self._width)

    def looked(self, server: str, counted: Mapping[str, Counted], champion: str, before: str) -> None:
        """Take note of what a server has counted.

        Args:
            server: its URL.
            counted: by Triton model.
            champion: Triton model of the champion.
            before: Triton model of the champion before; empty for none.
        """
        now, key = counted.get(champion), (server, champion)
        self._looks = {one: looks for one, looks in self._looks.items() if one[0] != server or one == key}
        if now is None:
            self._looks.pop(key, None)
            return
        looks = self._looks.setdefault(key, _Looks(now))
        last, looks.last = looks.last, now
        answered, failed = now.answered - last.answered, now.failed - last.failed
        runs, compute_s = now.executions - last.executions, now.compute_s - last.compute_s
        rails = self._rails
        if min(answered, failed, runs) < 0:
            # Loaded anew.
            looks.failing = looks.slow = 0
            return
        looks.failed_share = failed / (answered + failed) if answered + failed else 0.0
        failing = failed >= rails.min_failed and looks.failed_share > rails.max_failed_share
        looks.failing = looks.failing + 1 if failing else 0
        parent = counted.get(before)
        if parent is None or not parent.executions or runs < rails.min_executions:
            looks.slow = 0
            return
        looks.run_s, usual_s = compute_s / runs, parent.compute_s / parent.executions
        slow = looks.run_s > usual_s * rails.max_slowdown and looks.run_s > usual_s + rails.slow_s
        looks.slow = looks.slow + 1 if slow else 0

    def crossed(self, champion: str, triton_model: str, before: str, shift_allowed: float | None) -> Crossed | None:
        """The guard rail that the champion crosses, if it does.

        Args:
            champion: its version.
            triton_model: its Triton model.
            before: version of the champion before; empty for none.
            shift_allowed: largest distance between the distributions of the two; None judges none.
        """
        scores = self._versions.get(champion, _Scores())
        if scores.not_finite:
            return Crossed("finite_scores", f"version {champion} answered with scores that are not finite")
        if crossed := self._crossed_at(triton_model, champion):
            return crossed
        parent = self._versions.get(before, _Scores())
        if shift_allowed is None or min(len(scores.finite), len(parent.finite)) < self._rails.min_rows:
            return None
        shift = score_shift(scores.finite, parent.finite)
        if shift <= shift_allowed:
            return None
        return Crossed(
            "score_shift",
            f"answers of version {champion} are {shift:.3g} from those of {before} on average; "
            f"allowed is {shift_allowed:.3g}",
            shift,
            shift_allowed,
        )

    def _crossed_at(self, triton_model: str, champion: str) -> Crossed | None:
        for (server, name), looks in self._looks.items():
            if name != triton_model:
                continue
            if looks.failing >= LOOKS_TO_FAIL:
                return Crossed(
                    "failures",
                    f"{looks.failed_share:.0%} of the requests to version {champion} failed at {server}",
                    looks.failed_share,
                    self._rails.max_failed_share,
                )
            if looks.slow >= LOOKS_TO_BE_SLOW:
                return Crossed(
                    "latency", f"version {champion} takes {looks.run_s * 1e3:.0f} ms a run at {server}", looks.run_s
                )
        return None
