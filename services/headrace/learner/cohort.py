"""The models of a pipeline, learned side by side: each from the same outcomes in the same order. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from headrace.learner.examples import Example, OutcomeRecord, decode
from headrace.learner.learning import Learning


@dataclass(frozen=True)
class Member:
    """One model of the pipeline.

    Attributes:
        name: of its recipe in the declaration.
        learning: its state.
        challenger: whether it learns beside the champion.
    """

    name: str
    learning: Learning
    challenger: bool


class Cohort:
    """The champion and its challengers.

    Args:
        members: the champion first.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = tuple(members)
        self.champion = self.members[0].learning

    @property
    def learned_since_version(self) -> int:
        """Outcomes that a model has learned since its last version, of the model that has learned most."""
        return max(member.learning.learned_since_version for member in self.members)

    @property
    def next_offsets(self) -> tuple[int, ...]:
        """By partition, the first offset that some model has not read yet."""
        return tuple(map(min, zip(*(member.learning.next_offsets for member in self.members), strict=True)))

    @property
    def next_command(self) -> int:
        """Offset in `control` of the first command that is not handled yet."""
        return min(member.learning.next_command for member in self.members)

    def handled(self, command: int) -> None:
        """Note that the command at this offset was handled."""
        for member in self.members:
            member.learning.next_command = max(member.learning.next_command, command + 1)

    def learn(self, records: Sequence[OutcomeRecord]) -> Counter[str]:
        """Let each model learn what has arrived, in order.

        Args:
            records: outcomes that were not given before. What a model has learned already, because it is ahead of
                another after a restart, it leaves out.

        Returns:
            Outcomes that the champion did not learn, by reason.
        """
        decoded: dict[tuple[bool, bool, bool], list[Example]] = {}
        ignored: Counter[str] = Counter()
        for member in self.members:
            learning = member.learning
            recipe, width = learning.recipe, len(learning.feature_names)
            form = recipe.knows_absence, recipe.numeric, recipe.reverses
            if form not in decoded:
                absence, numeric, reverse = form
                decoded[form] = decode(
                    records,
                    learning.features_fingerprint,
                    width,
                    absence=absence,
                    numeric=numeric,
                    reverse=reverse,
                )
            known, before = learning.next_offsets, Counter(learning.ignored)
            learning.learn(one for one in decoded[form] if one.offset >= known[one.partition])
            if learning is self.champion:
                ignored = learning.ignored - before
        return ignored

    def advance(self, next_offsets: Sequence[int]) -> None:
        """Note that everything below these offsets was read: behind the last outcome lie records that are none."""
        for member in self.members:
            member.learning.advance(next_offsets)
