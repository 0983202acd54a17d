"""River-compatible wrappers that River does not have. Pure: they learn and predict like any River classifier."""

from headrace.estimators.calibration import PlattScaling
from headrace.estimators.prior_correction import PriorCorrection

__all__ = ["PlattScaling", "PriorCorrection"]
