"""The lock files agree with each other and with pyproject.toml."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
LOCKS = ROOT / "requirements"
EXTRAS = tuple(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"])
OF_TRITON = ("triton", "tritonserver")
OF_THEIR_OWN = (*OF_TRITON, "bench", "bench-mlserver", "mlflow-server")


def pins(lock: str) -> dict[str, str]:
    text = (LOCKS / f"{lock}.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9][a-z0-9.-]*)==(\S+)", text, re.MULTILINE))


@pytest.mark.parametrize("lock", [*EXTRAS, "all"])
def test_each_lock_is_part_of_dev(lock: str) -> None:
    assert pins(lock).items() <= pins("dev").items()


def test_all_has_every_extra() -> None:
    together = {name: version for extra in EXTRAS for name, version in pins(extra).items()}
    assert together == pins("all")


@pytest.mark.parametrize("lock", [*EXTRAS, "all", "dev"])
def test_the_build_backend_is_locked(lock: str) -> None:
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    assert wanted == [f"hatchling=={pins(lock)['hatchling']}"]


@pytest.mark.parametrize("lock", [*EXTRAS, "all", "dev", *OF_THEIR_OWN])
def test_every_pin_has_hashes_and_no_address(lock: str) -> None:
    text = (LOCKS / f"{lock}.txt").read_text(encoding="utf-8")
    requirements = re.split(r"\n(?=\S)", text.strip())
    assert len(requirements) == len(pins(lock)) > 0
    assert all("--hash=sha256:" in requirement for requirement in requirements)
    assert "://" not in text
    assert not re.search(r"^\s*(-i|-f|--index-url|--extra-index-url|--find-links)\b", text, re.MULTILINE)


def test_triton_computes_with_numpy_1() -> None:
    assert pins("triton")["numpy"].startswith("1.")
    assert pins("triton")["onnxruntime"] == pins("gateway")["onnxruntime"]


def test_there_is_no_lock_that_nothing_writes() -> None:
    assert {path.stem for path in LOCKS.glob("*.txt")} == {*EXTRAS, "all", "dev", *OF_THEIR_OWN}
