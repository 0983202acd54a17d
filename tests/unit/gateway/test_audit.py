"""The audit log has who, what and why, and is bounded."""

from __future__ import annotations

import structlog

from headrace.gateway.audit import LINES, WINDOW_S, Audit


def test_lines_are_bounded_and_the_rest_is_counted() -> None:
    now = [0.0]
    with structlog.testing.capture_logs() as lines:
        audit = Audit("fraud", clock=lambda: now[0])
        for number in range(1000):
            audit.denied("Predict", "expired", caller="", peer=f"ipv4:10.0.0.{number}")
        audit.flush()
        assert len(lines) == LINES
        for _ in range(LINES + 1):
            audit.administered("ServerReflectionInfo", caller="jwt:ops", peer="ipv4:10.0.0.1")
        assert len(lines) == 2 * LINES, "admin calls are seen, however much is denied"
        now[0] = WINDOW_S
        audit.flush()
        audit.flush()
        assert len(lines) == 2 * LINES + 1
        assert lines[-1]["left_out"] == {"Predict: expired": 1000 - LINES, "ServerReflectionInfo: admin call": 1}
        audit.denied("Predict", "lacks ingest", caller="jwt:" + "x" * 10_000, peer="ipv4:10.0.0.1")
    assert lines[0] == {
        "audit": True,
        "event": "access denied",
        "method": "Predict",
        "reason": "expired",
        "caller": "",
        "peer": "ipv4:10.0.0.0",
        "pipeline": "fraud",
        "log_level": "warning",
    }
    assert lines[-1]["event"] == "access denied"
    assert len(lines[-1]["caller"]) == 200


def test_admin_calls_are_logged() -> None:
    with structlog.testing.capture_logs() as lines:
        Audit("fraud").administered("ServerReflectionInfo", caller="jwt:ops", peer="unix")
    assert [(one["event"], one["caller"], one["method"]) for one in lines] == [
        ("admin call", "jwt:ops", "ServerReflectionInfo")
    ]
