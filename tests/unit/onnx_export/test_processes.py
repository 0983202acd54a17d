"""The same model gives the same bytes in every process."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

from headrace.onnx_export import export
from tests.unit.onnx_export.case import NAMES
from tests.unit.onnx_export.every_model import CASES
from tests.unit.onnx_export.test_every_model import trained

PROGRAM = """
import hashlib, pickle, sys
from headrace.onnx_export import export
models, names = pickle.load(open(sys.argv[1], "rb"))
for model in models:
    print(hashlib.sha256(export(model, names)).hexdigest())
"""


def test_bytes_do_not_depend_on_the_process(tmp_path: Path) -> None:
    """Hashes of texts, and with them the order of sets, differ from process to process."""
    models = [trained(case) for case in CASES.values()]
    stored = tmp_path / "models.pickle"
    stored.write_bytes(pickle.dumps((models, NAMES)))
    here = [hashlib.sha256(export(model, NAMES)).hexdigest() for model in models]
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    there = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(stored)], env=environment, capture_output=True, text=True, check=True
    )
    assert there.stdout.split() == here
