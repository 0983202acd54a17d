"""River-compatible estimators that River does not have. Pure: they learn and predict like any of River."""

from headrace.estimators.calibration import PlattScaling
from headrace.estimators.constant_scaler import ConstantScaler
from headrace.estimators.prior_correction import PriorCorrection

__all__ = ["ConstantScaler", "PlattScaling", "PriorCorrection"]
