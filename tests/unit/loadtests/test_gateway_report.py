"""The page shows every figure and draws every server's latencies; memory growth is told from samples."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from loadtests.figures import figure
from loadtests.gateway.curves import Curve, draw
from loadtests.gateway.memory_growth import Sample, growth
from loadtests.gateway.open_loop import PERCENTILES, Latencies
from loadtests.gateway.report import Cost, page

SVG = "{http://www.w3.org/2000/svg}"
POINTS = [Latencies(load, load, 0.0, (load / 100, load / 50, load / 20, load / 10)) for load in (500.0, 2500.0, 5000.0)]
CURVES = [Curve("gateway", POINTS), Curve("Triton <alone>", POINTS[:2])]


def test_each_percentile_has_a_panel_with_a_line_for_each_server() -> None:
    root = ET.fromstring(draw(CURVES))
    lines = root.findall(f".//{SVG}polyline")
    assert len(lines) == len(PERCENTILES) * len(CURVES)
    assert len(root.findall(f".//{SVG}circle")) == len(PERCENTILES) * (len(POINTS) + 2)
    titles = {one.text for one in root.findall(f".//{SVG}circle/{SVG}title")}
    assert "Triton <alone>: 2,500 calls/s, 250 ms" in titles


def test_higher_latencies_are_higher_and_higher_loads_further_right() -> None:
    root = ET.fromstring(draw(CURVES[:1]))
    for line in root.findall(f".//{SVG}polyline"):
        places = [tuple(map(float, one.split(","))) for one in line.attrib["points"].split()]
        assert [x for x, _ in places] == sorted(x for x, _ in places)
        assert [y for _, y in places] == sorted((y for _, y in places), reverse=True)


def test_nothing_measured_is_nothing_to_draw() -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        draw([Curve("gateway", [])])


def test_the_page_has_figures_latencies_and_notes() -> None:
    figures = [
        figure("Predict: top rate", 6000.0, "calls/s", control=("echo", 10_000.0), least_ratio=0.7),
        figure("memory", 300.0, "MiB", better="lower"),
    ]
    costs = [Cost("TLS", 4000.0, 5000.0, 150.0, 120.0)]
    text = page(["machine: one & only"], figures, CURVES, costs, ["MLServer is left out."])
    assert "<td>TLS</td><td class=number>4,000</td>" in text
    assert "<td class=number>80%</td>" in text
    assert "<td class=number>+30.0</td>" in text
    assert "machine: one &amp; only" in text
    assert "<tr class='missed'><td>Predict: top rate</td><td class=number>6,000</td>" in text
    assert "MLServer is left out." in text
    assert "Triton &lt;alone&gt;" in text
    assert "<svg" in text
    assert "<svg" not in page([], figures, [])


def test_growth_is_counted_after_the_warm_up() -> None:
    warming = [Sample(float(at), 100 + at) for at in range(20)]
    flat = [Sample(float(at), 200) for at in range(20, 100)]
    assert growth(warming + flat) == (200, 200, 0.0)


def test_a_leak_is_found_and_a_spike_is_not_one() -> None:
    leaking = [Sample(float(at), 1000 + at) for at in range(100)]
    assert growth(leaking)[2] == pytest.approx(0.0699, abs=0.002)
    spiking = [Sample(float(at), 5000 if at in (21, 98) else 1000) for at in range(100)]
    assert growth(spiking)[2] == 0.0


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        growth([Sample(0.0, 1), Sample(1.0, 1)])
    with pytest.raises(ValueError, match="too few"):
        growth([])
