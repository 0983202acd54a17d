from __future__ import annotations

from headrace.monitor.warm_up import warm_up
from headrace.pipeline import DAY
from headrace.platform.pipelines import load_pipeline


def test_a_feature_is_full_when_its_window_behind_its_delay_is() -> None:
    pipeline = load_pipeline("pipelines/fraud.py")
    full = {name: length // DAY for name, length in zip(pipeline.feature_names, warm_up(pipeline), strict=True)}
    assert full["amount"] == full["night"] == 0
    assert full["customer_count_1d"] == 1
    assert full["customer_mean_amount_cents_30d"] == 30
    assert full["terminal_count_1d"] == 8
    assert full["terminal_label_rate_30d"] == 37
