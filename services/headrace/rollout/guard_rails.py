"""What must hold for a version while it answers. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from headrace.v1 import alert_pb2, model_pb2, route_pb2

RULE = "guard_rail"


@dataclass(frozen=True)
class Crossed:
    """A guard rail that a champion crossed.

    Attributes:
        rail: its name, for example "scores".
        detail: one sentence.
        value: what was measured.
        threshold: what is allowed.
    """

    rail: str
    detail: str
    value: float = 0.0
    threshold: float = 0.0


def alerts_between(
    before: model_pb2.RouteTable | None, after: model_pb2.RouteTable, crossed: Crossed | None
) -> list[alert_pb2.Alert]:
    """What is to be said when one table follows another: that a guard rail stopped refreshes, or that this is over.

    Args:
        before: the table until now.
        after: the one that is written with the alerts.
        crossed: what the subject of a new alert crossed.
    """
    was = before.frozen if before is not None else route_pb2.RefreshFreeze()
    now = after.frozen
    alerts = []
    if was.alert_subject and was.alert_subject != now.alert_subject:
        change = after.changes[-1]
        detail = (
            f"refreshes are allowed again by {change.by}" if not after.HasField("frozen") else "a newer alert holds"
        )
        alerts.append(_alert(was.alert_subject, change.time_us, alert_pb2.ALERT_STATE_CLEARED, detail, None))
    if now.alert_subject and was.alert_subject != now.alert_subject:
        raised = alert_pb2.ALERT_STATE_RAISED
        alerts.append(_alert(now.alert_subject, now.time_us, raised, now.reason, crossed))
    return alerts


def _alert(
    subject: str, time_us: int, state: alert_pb2.AlertState.ValueType, detail: str, crossed: Crossed | None
) -> alert_pb2.Alert:
    return alert_pb2.Alert(
        alert_id=f"{RULE}/{subject}/{time_us}",
        rule=RULE,
        subject=subject,
        event_time_us=time_us,
        value=crossed.value if crossed is not None else 0,
        threshold=crossed.threshold if crossed is not None else 0,
        state=state,
        detail=detail,
    )
