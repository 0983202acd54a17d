"""Which findings are announced: a change of state, once."""

from __future__ import annotations

from collections.abc import Iterable

from headrace.monitor.stream_watch import Finding
from headrace.v1.alert_pb2 import ALERT_STATE_CLEARED, ALERT_STATE_RAISED, Alert


class Announcements:
    """State of every alert, as `alerts` has it.

    A finding at or before the last announcement about its rule and subject is history: after a restart the same
    seasons are judged again and announce nothing twice.
    """

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], Alert] = {}

    def know(self, alerts: Iterable[Alert]) -> None:
        """Take note of what was announced."""
        for alert in alerts:
            last = self._last.get((alert.rule, alert.subject))
            if last is None or alert.event_time_us >= last.event_time_us:
                self._last[alert.rule, alert.subject] = alert

    def due(self, findings: Iterable[Finding]) -> list[Alert]:
        """What is to be announced, given findings in order; it counts as announced only once it is known."""
        last = dict(self._last)
        alerts = []
        for finding in findings:
            known = last.get((finding.rule, finding.subject))
            if known is not None and finding.event_time_us <= known.event_time_us:
                continue
            raised = known is not None and known.state == ALERT_STATE_RAISED
            if finding.violated == raised:
                continue
            alert = Alert(
                alert_id=f"{finding.rule}/{finding.subject}/{finding.event_time_us}",
                rule=finding.rule,
                subject=finding.subject,
                event_time_us=finding.event_time_us,
                value=finding.value,
                threshold=finding.threshold,
                state=ALERT_STATE_RAISED if finding.violated else ALERT_STATE_CLEARED,
                detail=finding.detail,
            )
            last[finding.rule, finding.subject] = alert
            alerts.append(alert)
        return alerts

    def raised(self) -> dict[tuple[str, str], bool]:
        """Whether each alert holds, by rule and subject."""
        return {key: alert.state == ALERT_STATE_RAISED for key, alert in self._last.items()}
