"""The simulator follows the handbook's rules and repeats itself."""

import datetime as dt

import numpy as np
import polars as pl
import pytest

from headrace.demo.simulator import Simulation, simulate


@pytest.fixture(scope="module")
def payments() -> pl.DataFrame:
    return simulate(Simulation())


def test_shape_and_order(payments: pl.DataFrame) -> None:
    assert payments.height == 100_000
    assert payments["TRANSACTION_ID"].to_list() == list(range(100_000))
    assert payments["TX_DATETIME"].is_sorted()
    first, last = payments["TX_DATETIME"][0], payments["TX_DATETIME"][-1]
    assert isinstance(first, dt.datetime)
    assert isinstance(last, dt.datetime)
    assert 55 <= (last - first).days <= 66
    assert payments.null_count().sum_horizontal().item() == 0


def test_the_same_seed_gives_the_same_payments(payments: pl.DataFrame) -> None:
    assert payments.equals(simulate(Simulation()))
    assert not payments.equals(simulate(Simulation(seed=1)))


def test_payments_are_where_and_when_the_handbook_has_them(payments: pl.DataFrame) -> None:
    simulation = Simulation()
    assert payments["CUSTOMER_ID"].max() == simulation.customers - 1
    assert payments["TERMINAL_ID"].max() == simulation.terminals - 1
    reached = payments.group_by("CUSTOMER_ID").agg(pl.col("TERMINAL_ID").n_unique())["TERMINAL_ID"]
    # About 78 terminals lie within the handbook's radius.
    assert 40 < float(reached.filter(reached > 30).mean()) < 100  # type: ignore[arg-type]
    second_of_day = (payments["TX_DATETIME"].dt.epoch("s") % 86_400).to_numpy()
    assert abs(second_of_day.mean() - 43_200) < 300
    # A normal of 20,000 s cut at 2.16 deviations on both sides.
    assert 18_000 < second_of_day.std() < 19_000
    per_customer = (
        payments.filter(pl.col("TX_FRAUD_SCENARIO") == 0)
        .group_by("CUSTOMER_ID")
        .agg(pl.col("TX_AMOUNT").mean().alias("mean"), pl.len())
    )
    busy = per_customer.filter(pl.col("len") > 60)["mean"]
    assert busy.is_between(3, 130).all()
    assert (payments["TX_AMOUNT"] >= 0).all()
    cents = payments["TX_AMOUNT"].to_numpy() * 100
    assert np.abs(cents - np.round(cents)).max() < 1e-6


def test_frauds_follow_the_three_scenarios(payments: pl.DataFrame) -> None:
    assert 0.005 < float(payments["TX_FRAUD"].mean()) < 0.011  # type: ignore[arg-type]
    assert (payments["TX_FRAUD"] == (payments["TX_FRAUD_SCENARIO"] > 0)).all()
    assert set(payments["TX_FRAUD_SCENARIO"].unique()) == {0, 1, 2, 3}
    assert payments.filter(pl.col("TX_FRAUD") == 0)["TX_AMOUNT"].max() <= 220  # type: ignore[operator]
    # A compromised terminal has nothing but frauds for 28 days, so honest payments there come only before or after.
    terminals = payments.filter(pl.col("TX_FRAUD_SCENARIO") == 2)
    spans = terminals.group_by("TERMINAL_ID").agg(
        pl.col("TX_DATETIME").min().alias("begin"), pl.col("TX_DATETIME").max().alias("end")
    )
    honest = payments.filter(pl.col("TX_FRAUD") == 0).join(spans, on="TERMINAL_ID")
    inside = honest.filter(pl.col("TX_DATETIME").is_between(pl.col("begin"), pl.col("end")))
    # A terminal that was compromised twice may have an honest time between.
    assert inside["TERMINAL_ID"].n_unique() <= 1
    assert (spans["end"] - spans["begin"]).max() <= dt.timedelta(days=56)  # type: ignore[operator]
    scenario_3 = payments.filter(pl.col("TX_FRAUD_SCENARIO") == 3)["TX_AMOUNT"].mean()
    honest_mean = payments.filter(pl.col("TX_FRAUD") == 0)["TX_AMOUNT"].mean()
    assert 3.5 < scenario_3 / honest_mean < 7.0  # type: ignore[operator]


@pytest.mark.parametrize("events", [1, 37, 1_000, 20_000])
def test_any_number_of_payments_is_exact(events: int) -> None:
    assert simulate(Simulation(events=events, seed=5)).height == events


def test_a_wrong_parameter_is_refused() -> None:
    with pytest.raises(ValueError, match="events is 0, allowed is 1 or more"):
        Simulation(events=0)
