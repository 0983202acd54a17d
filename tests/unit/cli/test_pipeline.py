"""`headrace init` and `headrace pipeline`: what they write, say and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from headrace.cli.errors import UserError
from headrace.cli.init import init
from headrace.cli.pipeline import pipeline
from headrace.platform.pipelines import load_pipeline
from headrace.platform.redis import RedisUnavailable

ROOT = Path(__file__).parents[3]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ran(*arguments: str) -> Result:
    return CliRunner().invoke(pipeline, list(arguments), catch_exceptions=False)


def test_a_new_pipeline_can_be_tried_at_once(folder: Path) -> None:
    written = CliRunner().invoke(init, ["pump_faults"], catch_exceptions=False).output
    data = "pipelines/pump_faults_sample.csv"
    assert f"headrace pipeline test pump_faults --data {data}" in written
    assert load_pipeline("pump_faults").name == "pump-faults"
    shown = ran("test", "pump_faults", "--data", data).output
    assert "pump-faults: 2,880 events, 111 labels, 111 positives; 2,5" in shown
    for words in ("machine_std_vibration_1d", "the last vectors", "quality by day", "2025-01-17", "AUC 0.7"):
        assert words in shown, words


def test_nothing_is_overwritten(folder: Path) -> None:
    (folder / "pipelines").mkdir()
    (folder / "pipelines" / "mine_sample.csv").write_text("mine")
    with pytest.raises(UserError, match=r"mine_sample\.csv is there already; nothing was written"):
        CliRunner().invoke(init, ["mine"], catch_exceptions=False)
    assert [path.name for path in (folder / "pipelines").iterdir()] == ["mine_sample.csv"]


@pytest.mark.parametrize("name", ["Mine", "../mine", "9lives", "a-b", ""])
def test_a_name_that_is_no_module_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(UserError, match="lower-case letters, digits and _"):
        CliRunner().invoke(init, [name], catch_exceptions=False)


def test_bad_rows_are_named_by_row_and_field(folder: Path) -> None:
    CliRunner().invoke(init, ["mine"], catch_exceptions=False)
    (folder / "bad.csv").write_text(
        "event_id,event_time,machine_id,site_id,mode,temperature,vibration,label\n"
        "a,2025-01-01T00:00:00Z,m,s,idle,900,3,\n"
        "b,yesterday,m,s,idle,20,x,2\n"
    )
    with pytest.raises(UserError) as refused:
        ran("test", "mine", "--data", "bad.csv")
    lines = str(refused.value).splitlines()
    assert lines[0] == "bad.csv, column temperature, row 1: temperature is 900; allowed is -50 to 500"
    assert [line.split(":")[0] for line in lines[1:]] == [
        f"bad.csv, column {column}, row 2" for column in ("event_time", "vibration", "label")
    ]


def test_show_tells_what_each_entity_costs() -> None:
    shown = ran("show", str(ROOT / "pipelines" / "clicks.py")).output
    for words in (
        "pipeline clicks: 35 features of 3 entities",
        "label binary, horizon 1h, without one: negative",
        "entity ad (ad_id)",
        "user_count_6h_long_look",
        "where events.numbers['dwell_s'] >= 30",
        "decayed_count over 10h, half-life 15m",
    ):
        assert words in shown, words


def test_show_as_json_is_complete() -> None:
    data = json.loads(ran("show", str(ROOT / "pipelines" / "fraud.py"), "--json").output)
    fraud = load_pipeline(str(ROOT / "pipelines" / "fraud.py"))
    assert data["plan"]["features_fingerprint"] == f"{fraud.features_fingerprint:016x}"
    assert data["plan"]["features"] == list(fraud.feature_names)
    assert [entity["entity"] for entity in data["plan"]["entities"]] == ["customer", "terminal"]
    assert data["definition"]["features"]["terminal_label_rate_7d"]["operation"] == "label_rate"


def test_check_says_in_one_line_that_redis_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("HEADRACE_PIPELINE", str(ROOT / "pipelines" / "fraud.py"))
    with pytest.raises(RedisUnavailable, match="Redis does not answer"):
        ran("check")
