from __future__ import annotations

from headrace.monitor.announcements import Announcements
from headrace.monitor.stream_watch import Finding
from headrace.v1.alert_pb2 import ALERT_STATE_CLEARED, ALERT_STATE_RAISED


def finding(time_us: int, violated: bool, subject: str = "amount") -> Finding:
    return Finding("feature_drift", subject, time_us, 0.3, 0.1, violated, "it drifted")


def test_only_a_change_of_state_is_announced() -> None:
    announced = Announcements()
    findings = [finding(day, 3 <= day <= 5) for day in range(1, 9)]
    alerts = announced.due(findings)
    assert [(alert.event_time_us, alert.state) for alert in alerts] == [
        (3, ALERT_STATE_RAISED),
        (6, ALERT_STATE_CLEARED),
    ]
    assert alerts[0].alert_id == "feature_drift/amount/3"
    assert (alerts[0].value, alerts[0].threshold, alerts[0].detail) == (0.3, 0.1, "it drifted")


def test_what_was_announced_before_a_restart_is_not_announced_again() -> None:
    findings = [finding(day, 3 <= day <= 5) for day in range(1, 9)]
    alerts = Announcements().due(findings)
    for known in range(len(alerts) + 1):
        restarted = Announcements()
        restarted.know(alerts[:known])
        assert restarted.due(findings) == alerts[known:]


def test_what_was_not_published_stays_due() -> None:
    announced = Announcements()
    assert announced.due([finding(1, True)]) == announced.due([finding(1, True)])


def test_subjects_have_a_state_each() -> None:
    announced = Announcements()
    announced.know(announced.due([finding(1, True), finding(1, True, "score"), finding(2, False)]))
    assert announced.raised() == {("feature_drift", "amount"): False, ("feature_drift", "score"): True}
