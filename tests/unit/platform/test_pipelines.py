from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from headrace.pipeline import Pipeline
from headrace.platform.pipelines import PipelineLoadError, load_beside, load_pipeline, resolve

ROOT = Path(__file__).parents[3]


def test_from_a_file() -> None:
    pipeline = load_pipeline(str(ROOT / "pipelines" / "fraud.py"))
    assert isinstance(pipeline, Pipeline)
    assert pipeline.name == "fraud"


def test_from_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (ROOT / "pipelines" / "fraud.py").read_text()
    (tmp_path / "declared_elsewhere.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_pipeline("declared_elsewhere").features_fingerprint == (
        load_pipeline(str(ROOT / "pipelines" / "fraud.py")).features_fingerprint
    )


def test_what_a_file_defines_can_be_pickled(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(
        (ROOT / "pipelines" / "fraud.py").read_text() + "\n\nclass Own:\n    pass\n\n\npipeline.own = Own()\n"
    )
    own = vars(load_pipeline(str(path)))["own"]
    assert type(pickle.loads(pickle.dumps(own))) is type(own)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1\n", r"needs a headrace.pipeline.Pipeline named 'pipeline', found nothing"),
        ("pipeline = 7\n", r"found a int"),
        ("x = 1\ny = 1 / 0\n", r"line 2: ZeroDivisionError"),
        ("x = 1\ndef (:\n", r"line 2: SyntaxError"),
        ("import not_installed_here\n", r"imports not_installed_here, which is not installed"),
        ("from headrace.pipeline import DefinitionError\nraise DefinitionError('entity x')\n", r"bad.py: entity x$"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.py"
    path.write_text(content)
    with pytest.raises(PipelineLoadError, match=message) as caught:
        load_pipeline(str(path))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_not_there() -> None:
    with pytest.raises(PipelineLoadError, match=r"pipeline pipelines/none.py: there is no such file"):
        load_pipeline("pipelines/none.py")
    with pytest.raises(PipelineLoadError, match=r"pipeline acme.none: there is no such module"):
        load_pipeline("acme.none")


def test_by_its_name_in_the_folder_pipelines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    assert load_pipeline("clicks").name == "clicks"
    assert resolve("clicks") == "pipelines/clicks.py"
    assert resolve("acme.clicks") == "acme.clicks"
    monkeypatch.chdir(tmp_path)
    assert resolve("clicks") == "clicks"
    with pytest.raises(PipelineLoadError, match="pipeline clicks: there is no such module"):
        load_pipeline("clicks")


def test_what_lies_beside_a_pipeline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "own.py").touch()
    assert load_beside(str(tmp_path / "own.py"), "_history") is None
    (tmp_path / "own_history.py").write_text("WORD = 'mine'")
    found = load_beside(str(tmp_path / "own.py"), "_history")
    assert found is not None
    assert found.WORD == "mine"
    monkeypatch.syspath_prepend(str(tmp_path))
    found = load_beside("own", "_history")
    assert found is not None
    assert found.WORD == "mine"
    assert load_beside("own", "_other") is None
    assert load_beside("no.such.module", "_history") is None
    (tmp_path / "own_history.py").write_text("WORD = 1 / 0")
    with pytest.raises(PipelineLoadError, match=r"own_history\.py: line 1: ZeroDivisionError"):
        load_beside(str(tmp_path / "own.py"), "_history")
