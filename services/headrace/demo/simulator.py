"""Card payments with known frauds, simulated by the published rules of the Fraud Detection Handbook.

Customers and terminals are points of a 100 x 100 plane. Every customer has a mean amount and a mean number of payments
a day, and pays at the terminals within a radius. Three fraud scenarios lie over it: payments above 220, compromised
terminals (28 days, every payment), compromised customers (14 days, one third of the payments at five times the amount).

The handbook has 5,000 customers and 10,000 terminals. Here the population follows from the number of payments asked
for, and the daily number of compromises and the radius are scaled with it, so that a customer reaches as many terminals
and frauds have the same share (about 0.8 %) as there.

Source: Le Borgne, Siblini, Lebichot, Bontempi: Reproducible Machine Learning for Credit Card Fraud Detection -
Practical Handbook, chapter "Simulation".
"""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

DAY_SECONDS = 86_400
PLANE_SIDE = 100.0
MEAN_PAYMENTS_PER_DAY_MAX = 4.0
FRAUD_AMOUNT = 220.0
TERMINAL_FRAUD_DAYS = 28
CUSTOMER_FRAUD_DAYS = 14
CUSTOMER_FRAUD_FACTOR = 5.0
HANDBOOK_CUSTOMERS = 5_000
HANDBOOK_TERMINALS = 10_000
HANDBOOK_RADIUS = 5.0
HANDBOOK_TERMINALS_PER_DAY = 2.0
HANDBOOK_CUSTOMERS_PER_DAY = 3.0
DISTANCE_CELLS = 4_000_000
"""Distances held at a time; it bounds the memory for large populations."""


@dataclass(frozen=True)
class Simulation:
    """What to simulate.

    Args:
        events: Payments to return, exactly; at least 1.
        days: Days they should span, about: it sets the number of customers.
        seed: Seed of the random numbers, 0 or more. The same parameters give the same payments, bit for bit.
        start: First day (UTC).
    """

    events: int = 100_000
    days: int = 60
    seed: int = 0
    start: dt.date = dt.date(2025, 1, 1)

    def __post_init__(self) -> None:
        for name, value, least in (("events", self.events, 1), ("days", self.days, 1), ("seed", self.seed, 0)):
            if value < least:
                raise ValueError(f"{name} is {value}, allowed is {least} or more")

    @property
    def customers(self) -> int:
        """Customers in the plane: each makes 1.94 payments a day on average, the tails of the day cut off."""
        return max(20, round(self.events / self.days / 1.94))

    @property
    def terminals(self) -> int:
        """Terminals in the plane, two for each customer as in the handbook."""
        return self.customers * HANDBOOK_TERMINALS // HANDBOOK_CUSTOMERS

    @property
    def radius(self) -> float:
        """Reach of a customer, so that about as many terminals are within it as in the handbook."""
        return HANDBOOK_RADIUS * math.sqrt(HANDBOOK_TERMINALS / self.terminals)


@dataclass(frozen=True)
class _Population:
    """Customers, `mean_amount` and `payments_per_day` float64 (customers,), and the terminals that each reaches.

    `terminals[first[c] : first[c + 1]]` are the terminals of customer c.
    """

    mean_amount: npt.NDArray[np.float64]
    payments_per_day: npt.NDArray[np.float64]
    terminals: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]


def simulate(simulation: Simulation) -> pl.DataFrame:
    """Payments in the order of time, with the handbook's raw columns.

    Args:
        simulation: What to simulate.

    Returns:
        `simulation.events` rows: `TRANSACTION_ID` int64 (0, 1, ...), `TX_DATETIME` datetime in µs (UTC, without a
        zone, whole seconds), `CUSTOMER_ID` and `TERMINAL_ID` int64, `TX_AMOUNT` float64 (two decimals), `TX_FRAUD` int8
        (0 or 1), `TX_FRAUD_SCENARIO` int8 (0 none, 1 amount, 2 terminal, 3 customer).
    """
    seeds = np.random.SeedSequence(simulation.seed).spawn(3)
    population = _populate(simulation, np.random.default_rng(seeds[0]))
    expected = float(population.payments_per_day.sum()) * 0.95
    days = math.ceil(simulation.events / expected) + 2
    # A day is drawn as a whole, so a few more days than needed are drawn and the first `events` payments are kept.
    while True:
        table = _pay(population, days, np.random.default_rng(seeds[1]))
        if len(table.seconds) >= simulation.events:
            break
        days += max(1, days // 4)
    scenario = _commit_frauds(simulation, table, days, np.random.default_rng(seeds[2]))
    kept = slice(0, simulation.events)
    start = np.datetime64(simulation.start, "us")
    return pl.DataFrame(
        {
            "TRANSACTION_ID": np.arange(simulation.events, dtype=np.int64),
            "TX_DATETIME": start + table.seconds[kept] * np.timedelta64(1_000_000, "us"),
            "CUSTOMER_ID": table.customer[kept],
            "TERMINAL_ID": table.terminal[kept],
            "TX_AMOUNT": np.round(table.amount[kept], 2),
            "TX_FRAUD": (scenario[kept] > 0).astype(np.int8),
            "TX_FRAUD_SCENARIO": scenario[kept],
        }
    )


@dataclass
class _PaymentTable:
    """Payments by time: `seconds` int64 since the first day, `customer` and `terminal` int64, `amount` float64."""

    seconds: npt.NDArray[np.int64]
    customer: npt.NDArray[np.int64]
    terminal: npt.NDArray[np.int64]
    amount: npt.NDArray[np.float64]


def _populate(simulation: Simulation, rng: np.random.Generator) -> _Population:
    customers, terminals = simulation.customers, simulation.terminals
    at = rng.uniform(0.0, PLANE_SIDE, (customers, 2))
    mean_amount = rng.uniform(5.0, 100.0, customers)
    payments_per_day = rng.uniform(0.0, MEAN_PAYMENTS_PER_DAY_MAX, customers)
    terminal_at = rng.uniform(0.0, PLANE_SIDE, (terminals, 2))
    reached: list[npt.NDArray[np.int64]] = []
    counts: list[npt.NDArray[np.int64]] = []
    chunk = max(1, DISTANCE_CELLS // terminals)
    for begin in range(0, customers, chunk):
        across = at[begin : begin + chunk, None, 0] - terminal_at[None, :, 0]
        along = at[begin : begin + chunk, None, 1] - terminal_at[None, :, 1]
        squared = across * across + along * along
        within = squared < simulation.radius**2
        # Nobody is without a terminal: one who reaches none goes to the nearest.
        within[np.arange(len(within)), squared.argmin(axis=1)] = True
        counts.append(within.sum(axis=1).astype(np.int64))
        reached.append(np.nonzero(within)[1].astype(np.int64))
    first = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.concatenate(counts))])
    return _Population(mean_amount, payments_per_day, np.concatenate(reached), first)


def _pay(population: _Population, days: int, rng: np.random.Generator) -> _PaymentTable:
    number = rng.poisson(population.payments_per_day, (days, len(population.payments_per_day)))
    day_of_cell, customer_of_cell = np.divmod(np.arange(number.size), number.shape[1])
    repeats = number.ravel()
    day, customer = (np.repeat(day_of_cell, repeats), np.repeat(customer_of_cell, repeats))
    time = rng.normal(DAY_SECONDS / 2, 20_000.0, len(day)).astype(np.int64)
    mean = population.mean_amount[customer]
    amount = rng.normal(mean, mean / 2)
    again = rng.uniform(0.0, 2.0 * mean)
    amount = np.round(np.where(amount < 0, again, amount), 2)
    reach = population.first[customer + 1] - population.first[customer]
    terminal = population.terminals[population.first[customer] + rng.integers(0, reach)]
    # The handbook drops what falls outside its day.
    inside = np.nonzero((time > 0) & (time < DAY_SECONDS))[0]
    seconds = day[inside] * DAY_SECONDS + time[inside]
    order = inside[np.argsort(seconds, kind="stable")]
    return _PaymentTable(day[order] * DAY_SECONDS + time[order], customer[order], terminal[order], amount[order])


def _commit_frauds(
    simulation: Simulation, table: _PaymentTable, days: int, rng: np.random.Generator
) -> npt.NDArray[np.int8]:
    """Lay the three scenarios over `table`, raising amounts in place; returns the scenario of each payment, int8."""
    scenario = np.where(table.amount > FRAUD_AMOUNT, 1, 0).astype(np.int8)
    begin_of_day = np.searchsorted(table.seconds, np.arange(days + 1) * DAY_SECONDS)

    def period(day: int, length: int) -> slice:
        return slice(int(begin_of_day[day]), int(begin_of_day[min(day + length, days)]))

    def per_day(handbook: float, share: float) -> list[int]:
        # A fraction is spread evenly over the days, so that a small population has its share as well.
        reached = np.floor(np.arange(days + 1) * handbook * share + rng.uniform()).astype(np.int64)
        return [int(number) for number in np.diff(reached)]

    terminals = per_day(HANDBOOK_TERMINALS_PER_DAY, simulation.terminals / HANDBOOK_TERMINALS)
    for day in range(days):
        chosen = rng.choice(simulation.terminals, min(terminals[day], simulation.terminals), replace=False)
        rows = period(day, TERMINAL_FRAUD_DAYS)
        scenario[rows][np.isin(table.terminal[rows], chosen)] = 2
    customers = per_day(HANDBOOK_CUSTOMERS_PER_DAY, simulation.customers / HANDBOOK_CUSTOMERS)
    for day in range(days):
        chosen = rng.choice(simulation.customers, min(customers[day], simulation.customers), replace=False)
        rows = period(day, CUSTOMER_FRAUD_DAYS)
        theirs = np.nonzero(np.isin(table.customer[rows], chosen))[0]
        taken = rng.choice(theirs, len(theirs) // 3, replace=False)
        table.amount[rows][taken] *= CUSTOMER_FRAUD_FACTOR
        scenario[rows][taken] = 3
    return scenario
