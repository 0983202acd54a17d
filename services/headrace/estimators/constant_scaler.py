"""Features that are kept as whole numbers of a small unit, back in their own."""

from __future__ import annotations

from typing import Any

from river import base


class ConstantScaler(base.Transformer):
    """Divides every feature by the same number.

    A model is given its features as float32, which holds no decimal fraction exactly and whole numbers up to 2²⁴. A
    feature with six decimals can be declared in millionths; behind ``ConstantScaler(1e6)`` the model sees the double
    that is nearest to the decimal number, the same that a decimal text is read as.

    Args:
        divisor: not 0.

    Raises:
        ValueError: the divisor is 0.

    Examples:
        >>> ConstantScaler(1e6).transform_one({"price": 56443.0})
        {'price': 0.056443}
    """

    def __init__(self, divisor: float) -> None:
        if divisor == 0:
            raise ValueError("the divisor is 0")
        self.divisor = divisor

    def transform_one(self, x: dict[Any, Any]) -> dict[Any, Any]:
        """The features divided; one that is absent stays so."""
        return {name: value / self.divisor for name, value in x.items()}
