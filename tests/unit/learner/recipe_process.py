"""A process that learns: `python -m tests.unit.learner.recipe_process FROM TO DIRECTORY`.

Learns rows FROM to TO with every model; begins from the states in DIRECTORY when FROM is above 0, and leaves its own
there. Prints for each model what is to be the same in every process.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from headrace.learner import snapshot
from headrace.learner.snapshot import Progress, Snapshot
from headrace.onnx_export import export
from tests.unit.learner.river_models import DECLARED, NAMES, recipe, rows

ROWS = 1200


def main() -> None:
    """Learn."""
    first, last, directory = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    values, labels, ids = rows(ROWS)
    found = {}
    for number, name in enumerate(DECLARED):
        learned = recipe(name)
        file = directory / f"{number}"
        if first:
            learned.restore(snapshot.decode(file.read_bytes()).model)
        scores = learned.learn(values[first:last], labels[first:last], NAMES, ids[first:last])
        state = learned.state()
        nothing = np.empty((0, len(NAMES)), np.float32)
        whole = Snapshot("1", "0", learned.fingerprint, 1, NAMES, Progress((0,), (last,)), state, {}, nothing)
        file.write_bytes(snapshot.encode(whole))
        found[name] = {
            "fingerprint": learned.fingerprint,
            "scores": hashlib.sha256(scores[-100:].tobytes()).hexdigest(),
            "served": hashlib.sha256(learned.score(values[:100], NAMES).tobytes()).hexdigest(),
            "state": learned.comparable(state),
            "onnx": hashlib.sha256(export(learned.model, NAMES)).hexdigest(),
            "resets": learned.resets,
        }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
