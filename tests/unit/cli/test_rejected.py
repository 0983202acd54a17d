from __future__ import annotations

import datetime as dt
import time

import pytest

from headrace.cli.errors import UserError
from headrace.cli.rejected import _age, _printable, _since, _size, _source
from headrace.platform.topics import Topics

TOPICS = Topics("fraud")


def test_a_time_is_a_duration_or_iso_8601() -> None:
    assert _since("") == 0
    assert _since("90m") == pytest.approx((time.time() - 5400) * 1e6, abs=5e6)
    assert _since("2d") == pytest.approx((time.time() - 172_800) * 1e6, abs=5e6)
    assert _since("2026-01-31T12:00:00Z") == int(dt.datetime(2026, 1, 31, 12, tzinfo=dt.UTC).timestamp() * 1e6)


def test_a_source_names_a_topic_by_either_name() -> None:
    assert _source("events/0/17", TOPICS) == _source("fraud.events/0/17", TOPICS) == "fraud.events/0/17"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("soon", "--since 'soon' is neither a duration, for example 90m or 2d, nor an ISO 8601 time"),
        ("-5m", "--since '-5m' is neither a duration, for example 90m or 2d, nor an ISO 8601 time"),
        ("2026-01-01T00:00:00", "--since '2026-01-01T00:00:00' has no zone; add Z for UTC"),
    ],
)
def test_what_is_no_time_is_named(text: str, line: str) -> None:
    with pytest.raises(UserError) as raised:
        _since(text)
    assert str(raised.value) == line


@pytest.mark.parametrize("text", ["events/1", "events/x/1", "events/0/-1", "17", "a/b/c/d"])
def test_what_is_no_place_is_named(text: str) -> None:
    with pytest.raises(UserError) as raised:
        _source(text, TOPICS)
    assert str(raised.value) == f"--source {text!r} is not TOPIC/PARTITION/OFFSET, for example events/0/17"


def test_a_topic_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(UserError, match=r"there is no topic clicks; there are events, vectors, predictions, labels"):
        _source("clicks/0/1", TOPICS)


def test_figures_are_short_and_texts_printable() -> None:
    assert [_size(count) for count in (0, 9_999, 10_000, 2_500_000, 10_000_000)] == [
        "0 B",
        "9999 B",
        "10 kB",
        "2500 kB",
        "10 MB",
    ]
    assert [_age(seconds * 1e6) for seconds in (-3, 5, 90, 7200, 200_000)] == ["0s", "5s", "2m", "2h", "2d"]
    assert _printable("a\x1b[31m\nb") == "a\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}b"
