"""What ends the learner, each with one line for the person who runs it."""

from __future__ import annotations

from headrace.platform.errors import OperatorError


class LearnerError(OperatorError):
    """The learner cannot go on; the message names the thing at fault and what helps."""


class UnsupportedRecipeError(LearnerError):
    """The declared model holds a step or setting whose state cannot be saved exactly."""


class RecipeChangedError(LearnerError):
    """The announced version was made by another recipe or from other features than the pipeline declares."""


class SnapshotError(LearnerError):
    """A snapshot or order log is not what its announcement says, or is damaged."""


class ModelDivergedError(LearnerError):
    """A weight is infinite or not a number: the learning rate or the features are wrong."""


class ExportMismatchError(LearnerError):
    """The ONNX file does not give River's scores on recent rows. The version is not announced."""


class LeadershipLostError(LearnerError):
    """Another learner took over. This one must end."""

    # The next start stands by until that one ends.
    retriable = True


class OutcomesLostError(LearnerError):
    """Outcomes that are still to be learned, or replayed, are no longer in the topic."""
