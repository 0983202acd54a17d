"""The machine code that tests evaluate with, kept between runs."""

from __future__ import annotations

from pathlib import Path

from headrace.pipeline.evaluation import Kernel, load_kernel

FOLDER = Path(__file__).parents[3] / ".cache" / "machine-code"


def kernel() -> Kernel:
    """The kernel. Where numba is not installed, tests must not pass by comparing numpy with itself."""
    found = load_kernel(FOLDER)
    assert found is not None
    return found
