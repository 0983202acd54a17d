"""Files of access: refused at the start where they are not fit, followed while they change."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
import structlog

from headrace.gateway.access import ANYONE, Credentials
from headrace.gateway.access_control import AccessControl
from headrace.gateway.access_files import MAX_FILE_BYTES, AccessFileError, AccessFiles
from headrace.gateway.access_keys import new_key
from headrace.gateway.access_policy import Permission
from headrace.gateway.audit import Audit
from headrace.gateway.errors import NotFoundError, PermissionDeniedError, UnauthenticatedError

POLICY = '[[grants]]\ncallers = ["api-key:checkout"]\npipelines = ["fraud"]\npermissions = ["predict"]\n'
KEY = new_key("checkout", now=dt.datetime(2030, 1, 1, tzinfo=dt.UTC))
CREDENTIALS = Credentials(api_key=KEY.key)


@pytest.fixture
def files(tmp_path: Path) -> AccessFiles:
    made = AccessFiles(policy=tmp_path / "policy.toml", api_keys=tmp_path / "keys.toml")
    (tmp_path / "policy.toml").write_text(POLICY)
    (tmp_path / "keys.toml").write_text(KEY.table)
    return made


def test_without_a_policy_all_is_open() -> None:
    control = AccessControl(AccessFiles(), "fraud", Audit("fraud"))
    assert control.open
    assert control.caller(Credentials()) is ANYONE


def test_changed_files_count_and_unfit_ones_do_not(files: AccessFiles, tmp_path: Path) -> None:
    control = AccessControl(files, "fraud", Audit("fraud"))
    assert not control.open
    assert control.caller(CREDENTIALS).permissions == {Permission.PREDICT}
    (tmp_path / "policy.toml").write_text(POLICY.replace('"predict"', '"predict", "ingest"'))
    control.refresh()
    assert control.caller(CREDENTIALS).permissions == {Permission.PREDICT, Permission.INGEST}
    with structlog.testing.capture_logs() as lines:
        for broken in ("grants = 7", None):
            (tmp_path / "policy.toml").unlink()
            if broken is not None:
                (tmp_path / "policy.toml").write_text(broken)
            control.refresh()
            control.refresh()
            assert control.caller(CREDENTIALS).permissions == {Permission.PREDICT, Permission.INGEST}
            (tmp_path / "policy.toml").touch()
    assert [one["log_level"] for one in lines] == ["error", "error"], "once for each change"
    assert "policy.toml: grants" in lines[0]["reason"]
    (tmp_path / "policy.toml").write_text(POLICY)
    (tmp_path / "keys.toml").write_text("")
    control.refresh()
    with pytest.raises(UnauthenticatedError):
        control.caller(CREDENTIALS)


def test_files_that_are_not_fit_are_named(files: AccessFiles, tmp_path: Path) -> None:
    for path in (tmp_path / "policy.toml", tmp_path / "keys.toml"):
        fit = path.read_bytes()
        for content in (b"grants = 7\n", b"[", b"#" * (MAX_FILE_BYTES + 1), None):
            path.unlink()
            if content is not None:
                path.write_bytes(content)
            with pytest.raises(AccessFileError, match=path.name) as refused:
                AccessControl(files, "fraud", Audit("fraud"))
            assert "\n" not in str(refused.value)
            path.touch()
        path.write_bytes(fit)
    with pytest.raises(AccessFileError, match=r"jwt\.pem"):
        AccessControl(files._replace(jwt_keys=tmp_path / "jwt.pem"), "fraud", Audit("fraud"))
    (tmp_path / "jwt.pem").write_text("secret")
    with pytest.raises(AccessFileError, match="neither a public key"):
        AccessControl(files._replace(jwt_keys=tmp_path / "jwt.pem"), "fraud", Audit("fraud"))


def test_denials_are_noted_with_their_reason_and_other_errors_are_not(files: AccessFiles) -> None:
    with structlog.testing.capture_logs() as lines:
        control = AccessControl(files, "fraud", Audit("fraud"))
        control.denied(UnauthenticatedError("expired", "it has expired"), "Predict", "ipv4:10.0.0.7")
        control.denied(PermissionDeniedError("api-key:checkout", "ingest"), "Predict", "ipv4:10.0.0.7")
        control.denied(NotFoundError("no such version"), "Predict", "ipv4:10.0.0.7")
    assert [(one["caller"], one["reason"]) for one in lines] == [("", "expired"), ("api-key:checkout", "lacks ingest")]
