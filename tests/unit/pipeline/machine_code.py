"""The machine code that tests evaluate with."""

from __future__ import annotations

from headrace.pipeline.evaluation import Kernel, load_kernel


def kernel() -> Kernel:
    """The kernel. Where numba is not installed, no test may pass by comparing numpy with itself."""
    found = load_kernel()
    assert found is not None
    return found
