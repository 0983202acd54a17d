"""How long a step of a lockstep replay is, when it needs one order for all events, and what stops it."""

from __future__ import annotations

import pytest

from headrace.demo.errors import DemoError
from headrace.demo.replay import lockstep_step, needs_one_order, serves, undelayed_fields
from headrace.pipeline import DAY, HOUR
from headrace.platform.pipelines import load_pipeline
from headrace.v1.model_pb2 import RouteTable


def test_payments_go_day_by_day_in_the_partitions_of_their_customers() -> None:
    fraud = load_pipeline("pipelines/fraud.py")
    assert lockstep_step(fraud) == DAY
    assert undelayed_fields(fraud) == ["customer_id"]
    assert not needs_one_order(fraud)


def test_impressions_go_by_the_horizon_of_a_click_and_in_one_order() -> None:
    clicks = load_pipeline("pipelines/clicks.py")
    assert lockstep_step(clicks) == HOUR
    assert undelayed_fields(clicks) == ["user_id", "ad_id", "page_id"]
    assert needs_one_order(clicks)


def test_a_step_waits_for_its_version_unless_refreshes_are_frozen() -> None:
    table = RouteTable()
    table.champion.model.learned_count = 100
    assert not serves(table, 100)
    table.adopted = True
    assert serves(table, 100)
    assert not serves(table, 101)
    table.frozen.by, table.frozen.reason = "rollout", "score_shift: too far"
    assert serves(table, 100)
    with pytest.raises(DemoError, match=r"101 outcomes can serve: rollout froze refreshes \(score_shift: too far\)"):
        serves(table, 101)
