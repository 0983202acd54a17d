"""How long a step of a lockstep replay is, and when it needs one order for all events."""

from __future__ import annotations

from headrace.demo.replay import lockstep_step, needs_one_order, undelayed_fields
from headrace.pipeline import DAY, HOUR
from headrace.platform.pipelines import load_pipeline


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
