"""The committed modules are what the contracts say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_generated_code_is_current(tmp_path: Path) -> None:
    (tmp_path / "headrace" / "v1").mkdir(parents=True)
    subprocess.run([sys.executable, ROOT / "protos" / "generate.py", tmp_path], check=True, capture_output=True)
    fresh = {path.name: path.read_text() for path in (tmp_path / "headrace" / "v1").iterdir() if path.is_file()}
    committed_folder = ROOT / "services" / "headrace" / "v1"
    committed = {path.name: path.read_text() for path in committed_folder.iterdir() if path.is_file()}
    assert fresh == committed, "run `make proto` and commit the result"
