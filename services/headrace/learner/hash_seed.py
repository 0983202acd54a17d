"""The hash seed of the process, fixed: some River estimators go through sets of feature names, whose order follows it.

`KMeans` sums its distances and draws its first centres in such an order. With another seed in each process, as Python
has by default, learning the same outcomes again would give another model.
"""

from __future__ import annotations

import os
import sys

VARIABLE = "PYTHONHASHSEED"
SEED = "0"


def pin_hash_seed() -> None:
    """Start this program anew in its own process, with the fixed seed, unless it has it already.

    To be called before anything is opened: nothing of the process is left but its id, streams and environment.
    """
    if os.environ.get(VARIABLE) == SEED:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(  # noqa: S606
        sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | {VARIABLE: SEED}
    )
