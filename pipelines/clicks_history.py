"""A simulated clickstream, the history of a demonstration of the clicks pipeline.

Users visit a site and look at pages, each with an advertisement. Whether one is clicked depends on what
no field says outright: how curious the user is, how good the advertisement is and how worn out by now, how busy the
page is. That shows only in what happened before, so in the features. It also depends on what is there to see: the
position, the device, how far into the visit the user is. A click comes seconds to minutes later; that there is none
is known only when the horizon has passed.

Copy this file for a pipeline of your own: `make demo PIPELINE=name` calls `simulate` of `pipelines/name_history.py`.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from headrace.demo.history import Words

WORDS = Words("impressions", "clicks")

START_US = 1_740_960_000_000_000  # 2025-03-03 00:00 UTC
SECOND_US = 1_000_000
EVENTS_PER_HOUR = 1_400
LEAST_HOURS, LEAST_EVENTS_PER_HOUR = 30, 40
PAGES_PER_VISIT = 6
DEVICES, DEVICE_SHARES = ("phone", "desktop", "tablet"), (0.6, 0.32, 0.08)
COUNTRIES = ("DE", "FR", "GB", "IN", "JP", "US")
ADS, PAGES = 60, 120
LATEST_CLICK_S = 3_000


def simulate(events: int, seed: int) -> pl.DataFrame:
    """Impressions of a site that has visitors at all hours, and their clicks.

    Args:
        events: How many impressions.
        seed: Of the random numbers, 0 or more. The same arguments give the same table.
    """
    rng = np.random.default_rng(seed)
    # Few events over many hours would leave gaps that the stream takes for faults of a clock.
    hours = max(events / EVENTS_PER_HOUR, min(LEAST_HOURS, events / LEAST_EVENTS_PER_HOUR))
    users = max(20, events // 40)
    curiosity = rng.normal(0.0, 0.8, users)
    device_of = rng.choice(len(DEVICES), users, p=DEVICE_SHARES)
    country_of = rng.integers(0, len(COUNTRIES), users)
    frequency = rng.pareto(2.5, users) + 0.3

    lengths = rng.geometric(1 / PAGES_PER_VISIT, 2 * events // PAGES_PER_VISIT + 50)
    visits = int(np.searchsorted(np.cumsum(lengths), events)) + 1
    lengths = lengths[:visits]
    visit = np.repeat(np.arange(visits), lengths)[:events]
    n = len(visit)
    step = np.arange(n) - np.repeat(np.cumsum(lengths) - lengths, lengths)[:n]
    user = rng.choice(users, visits, p=frequency / frequency.sum())[visit]
    dwell = np.round(rng.gamma(1.5, 14.0, n), 1)
    before = np.cumsum(dwell) - dwell
    since_begin = before - before[np.searchsorted(visit, visit)]
    begin = rng.uniform(0.0, hours * 3600, visits)
    seconds = begin[visit] + since_begin + rng.uniform(0.0, 1.0, n)

    # An advertisement starts strong and wears out; there is always a new one.
    launched = rng.uniform(-48.0, hours, ADS)
    quality = rng.normal(0.0, 0.9, ADS)
    ad = rng.integers(0, ADS, n)
    age = np.abs(seconds / 3600 - launched[ad])
    page = np.minimum((PAGES * rng.beta(0.7, 2.2, n)).astype(np.int64), PAGES - 1)
    busy = rng.normal(0.0, 0.5, PAGES)
    position = rng.integers(1, 7, n)
    price = np.round(rng.lognormal(3.4 + 0.3 * quality[ad], 0.5)).astype(np.int64)
    logit = (
        -2.6
        + curiosity[user]
        + quality[ad] * np.exp(-age / 36.0)
        + busy[page]
        - 0.25 * (position - 1)
        - 0.12 * np.minimum(step, 10)
        + np.array([0.3, 0.0, -0.2])[device_of[user]]
    )
    clicked = rng.uniform(0.0, 1.0, n) < 1 / (1 + np.exp(-logit))
    wait_s = np.minimum(rng.exponential(90.0, n) + 1.0, LATEST_CLICK_S)

    times = START_US + (seconds * SECOND_US).astype(np.int64)
    table = pl.DataFrame(
        {
            "event_time": times,
            "user_id": [f"u{number}" for number in user.tolist()],
            "ad_id": [f"a{number}" for number in ad.tolist()],
            "page_id": [f"p{number}" for number in page.tolist()],
            "device": [DEVICES[number] for number in device_of[user].tolist()],
            "country": [COUNTRIES[number] for number in country_of[user].tolist()],
            "position": position,
            "dwell_s": dwell,
            "price_cents": price,
            "label": np.where(clicked, 1.0, np.nan),
            "label_time": times + (wait_s * SECOND_US).astype(np.int64),
        }
    )
    table = table.sort("event_time", maintain_order=True)
    return table.with_columns(
        pl.Series("event_id", [f"i{number}" for number in range(n)]), pl.col("label").fill_nan(None)
    )
