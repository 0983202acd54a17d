from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Literal, Self

import pytest
from pydantic import Field, SecretStr, model_validator

from headrace.platform.settings import Settings, SettingsError, describe, variable


class MillSettings(Settings):
    service: ClassVar[str] = "mill"

    ops_port: int = 19999
    """Port of the mill."""

    batch_rows: int = Field(default=128, ge=1, le=4096)
    """Rows of a batch."""

    mode: Literal["fast", "exact"] = "exact"
    """How it grinds,
    over two lines."""

    password: SecretStr = SecretStr("")
    """Never shown."""

    stones: Path | None = None
    """Where the stones are."""

    @model_validator(mode="after")
    def _fast_needs_rows(self) -> Self:
        if self.mode == "fast" and self.batch_rows < 10:
            raise ValueError("HEADRACE_MILL_MODE=fast needs HEADRACE_MILL_BATCH_ROWS of at least 10")
        return self


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("HEADRACE_"):
            monkeypatch.delenv(name)


def test_defaults() -> None:
    settings = MillSettings.load()
    assert settings.kafka_bootstrap == "127.0.0.1:19092"
    assert settings.triton_urls == ("127.0.0.1:18001",)
    assert settings.ops_port == 19999
    assert settings.ops_host == "127.0.0.1"
    assert settings.stones is None


def test_shared_and_own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_TRITON_URLS", "a:1, b:2")
    monkeypatch.setenv("HEADRACE_STATE_DIR", "/var/lib/headrace")
    monkeypatch.setenv("HEADRACE_MILL_BATCH_ROWS", "64")
    monkeypatch.setenv("HEADRACE_MILL_OPS_PORT", "0")
    monkeypatch.setenv("HEADRACE_MILL_SHUTDOWN_TIMEOUT_S", "1.5")
    monkeypatch.setenv("HEADRACE_MILL_STONES", "/stones")
    settings = MillSettings.load()
    assert settings.triton_urls == ("a:1", "b:2")
    assert settings.state_dir == Path("/var/lib/headrace")
    assert (settings.batch_rows, settings.ops_port, settings.shutdown_timeout_s) == (64, 0, 1.5)
    assert settings.stones == Path("/stones")


def test_variables_without_the_prefix_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE", "elsewhere.py")
    monkeypatch.setenv("HEADRACE_BATCH_ROWS_OF_OTHERS", "9")
    assert MillSettings.load().pipeline == "pipelines/fraud.py"


def test_an_empty_variable_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_MILL_BATCH_ROWS", "")
    assert MillSettings.load().batch_rows == 128


def test_arguments_go_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_MILL_BATCH_ROWS", "64")
    assert MillSettings.load(batch_rows=7).batch_rows == 7


def test_every_wrong_setting_has_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_MILL_BATCH_ROWS", "many")
    monkeypatch.setenv("HEADRACE_MILL_MODE", "slow")
    monkeypatch.setenv("HEADRACE_NAMESPACE", "Not Allowed")
    with pytest.raises(SettingsError) as caught:
        MillSettings.load()
    assert sorted(str(caught.value).splitlines()) == [
        "HEADRACE_MILL_BATCH_ROWS: 'many' is not allowed; must be an integer from 1 to 4096",
        "HEADRACE_MILL_MODE: 'slow' is not allowed; must be one of fast, exact",
        "HEADRACE_NAMESPACE: 'Not Allowed' is not allowed; must be a-z, 0-9 and inner hyphens, at most 60 long",
    ]


def test_a_rule_over_several_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_MILL_MODE", "fast")
    monkeypatch.setenv("HEADRACE_MILL_BATCH_ROWS", "2")
    with pytest.raises(SettingsError, match=r"^HEADRACE_MILL_MODE=fast needs HEADRACE_MILL_BATCH_ROWS of at least 10$"):
        MillSettings.load()


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("HEADRACE_MILL_BATCH_ROW", "HEADRACE_MILL_BATCH_ROW: not a setting; did you mean HEADRACE_MILL_BATCH_ROWS?"),
        ("HEADRACE_MILL_X", "HEADRACE_MILL_X: not a setting; did you mean HEADRACE_MILL_MODE?"),
        ("HEADRACE_KAFKA_BOOTSTAP", "HEADRACE_KAFKA_BOOTSTAP: not a setting; did you mean HEADRACE_KAFKA_BOOTSTRAP?"),
    ],
)
def test_unknown_variables_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, line: str) -> None:
    monkeypatch.setenv(name, "1")
    with pytest.raises(SettingsError) as caught:
        MillSettings.load()
    assert str(caught.value) == line


@pytest.mark.parametrize("name", ["HEADRACE_GATEWAY_OPS_PORT", "HEADRACE_FEATURES_BATCH", "HEADRACE_DEMO"])
def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    MillSettings.load()


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Guarded(Settings):
        service: ClassVar[str] = "guarded"
        token: SecretStr = Field(default=SecretStr("a-default"), min_length=20)
        """A token."""

    monkeypatch.setenv("HEADRACE_GUARDED_TOKEN", "hunter2")
    with pytest.raises(SettingsError) as caught:
        Guarded.load()
    assert "hunter2" not in str(caught.value)
    assert all("a-default" not in one.default for one in describe(Guarded))


def test_describe_has_own_settings_first_and_one_line_each() -> None:
    described = list(describe(MillSettings))
    assert {one.variable for one in described} >= {"HEADRACE_PIPELINE", "HEADRACE_MILL_MODE", "HEADRACE_MILL_OPS_HOST"}
    first_shared = next(i for i, one in enumerate(described) if not one.variable.startswith("HEADRACE_MILL_"))
    assert not any(one.variable.startswith("HEADRACE_MILL_") for one in described[first_shared:])
    mode = next(one for one in described if one.variable == "HEADRACE_MILL_MODE")
    assert mode == ("HEADRACE_MILL_MODE", "one of fast, exact", "exact", "How it grinds, over two lines.")
    assert all(one.description for one in described)


def test_variable() -> None:
    assert variable(MillSettings, "pipeline") == "HEADRACE_PIPELINE"
    assert variable(MillSettings, "ops_port") == "HEADRACE_MILL_OPS_PORT"
