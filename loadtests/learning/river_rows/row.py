"""One row of River's page in a process of its own: `python -m loadtests.learning.river_rows.row DATASET MODEL`.

Prints a JSON object: accuracy and F1, or why the model is refused.
"""

from __future__ import annotations

import argparse
import json
import signal
from dataclasses import asdict, replace
from pathlib import Path

from headrace.learner.errors import UnsupportedRecipeError
from loadtests.learning.river_rows.data import FOLDER, load
from loadtests.learning.river_rows.declaration import DECLARED
from loadtests.learning.river_rows.page import Quality
from loadtests.learning.river_rows.prequential import learner_scores, river_scores, unanswered

WAYS = ("learner", "learner-decimals", "river", "river-float32")
DEADLINE_S = 3600


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="One row of River's page.")
    parser.add_argument("dataset", choices=list(DECLARED))
    parser.add_argument("model")
    parser.add_argument("--by", choices=WAYS, default="learner", help="learner-decimals: decimal numbers as float32")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    # Ends the process where whoever started it is gone.
    signal.alarm(DEADLINE_S)
    data, model, by = load(arguments.dataset, arguments.folder), arguments.model, arguments.by
    if by == "learner-decimals":
        data = replace(data, declared=replace(data.declared, parts=1.0))
    try:
        if by.startswith("river"):
            scores = river_scores(model, data, single=by == "river-float32")
        else:
            scores = learner_scores(model, data)
    except UnsupportedRecipeError as error:
        print(json.dumps({"refused": str(error)}))
        return 0
    print(json.dumps(asdict(Quality.of(scores, data.labels, unanswered(model, data)))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
