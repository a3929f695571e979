from xml.etree import ElementTree

import pytest

from heliostat_sim.evaluation.plot import Axis, Bars, Line, bar_chart, distribution, line_chart
from heliostat_sim.evaluation.scale import make_scale, tick_text

SVG = "{http://www.w3.org/2000/svg}"


def parse(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)  # noqa: S314 - our own


def words(text: str) -> list[str]:
    return [element.text or "" for element in parse(text).iter(f"{SVG}text")]


def lines_chart() -> str:
    points = ((1.0, 0.5), (2.0, 4.0), (4.0, 90.0))
    band = tuple((x, y * 0.9, y * 1.1) for x, y in points)
    return line_chart(
        "A <b> & c",
        Axis("Clients"),
        Axis("Time (s)", logarithmic=True),
        [Line("heliostat", points, band), Line("zero", ((1.0, 0.0), (2.0, float("inf"))))],
    )


def test_a_line_chart_is_wellformed_and_labelled() -> None:
    """Title, axes with units and legend are words in well-formed XML, the same every time."""
    text = lines_chart()
    assert {"A <b> & c", "Clients", "Time (s)", "heliostat", "zero"} <= set(words(text))
    assert text == lines_chart()
    assert "prefers-color-scheme:dark" in text
    bands = [e for e in parse(text).iter(f"{SVG}path") if e.get("fill-opacity")]
    assert len(bands) == 1


def test_every_place_is_inside_the_picture() -> None:
    """No circle of a line lies outside the picture, values that have no place are left out."""
    root = parse(lines_chart())
    circles = list(root.iter(f"{SVG}circle"))
    assert len(circles) == 3
    assert all(0 <= float(c.get("cx", "")) <= 720 for c in circles)
    assert all(0 <= float(c.get("cy", "")) <= 400 for c in circles)


def test_bars_start_at_zero() -> None:
    """Bars grow from zero, a missing value has none, and limits are lines on them."""
    series = [Bars("a", (2.0, None), ((1.0, 3.0), None)), Bars("b", (4.0, 1.0))]
    root = parse(bar_chart("t", Axis("Tokens/s"), ["x", "y"], series))
    bars = [
        e for e in root.iter(f"{SVG}rect") if e.get("class") is None and e.get("height") != "10"
    ]
    heights = [float(bar.get("height", "")) for bar in bars]
    assert heights == pytest.approx([heights[1] / 2, heights[1], heights[1] / 4], rel=0.01)
    assert len([e for e in root.iter(f"{SVG}line") if e.get("class") == "limits"]) == 1


def test_a_distribution_ends_at_one() -> None:
    """A distribution climbs from 0 to 1 in steps."""
    line = distribution("p", [1.0, 2.0, 5.0])
    assert line.points == ((1.0, 0.0), (2.0, 0.5), (5.0, 1.0))
    assert line.stepped
    assert distribution("p", []).points == ()


@pytest.mark.parametrize("chart", [line_chart("t", Axis("x"), Axis("y"), []), lines_chart()])
def test_an_empty_chart_is_a_chart(chart: str) -> None:
    """A chart without any value has its frame all the same."""
    assert parse(chart).tag == f"{SVG}svg"


@pytest.mark.parametrize(
    ("values", "logarithmic", "ticks"),
    [
        ([0.0, 10.0], False, (0.0, 2.0, 4.0, 6.0, 8.0, 10.0)),
        ([3.0, 3.0], False, (3.0, 4.0, 5.0, 6.0)),
        ([0.3, 4.0], True, (0.2, 0.5, 1.0, 2.0, 5.0)),
        ([0.02, 900.0], True, (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)),
    ],
)
def test_ticks_are_round(values: list[float], logarithmic: bool, ticks: tuple[float, ...]) -> None:
    """An axis is marked at round numbers that hold all values between them."""
    scale = make_scale(Axis("x", logarithmic), values, 0.0, 100.0)
    assert scale.ticks == ticks
    assert (scale.place(ticks[0]), scale.place(ticks[-1])) == (0.0, 100.0)


def test_ticks_are_short() -> None:
    """Great numbers are told in thousands and millions."""
    assert [tick_text(v) for v in (0.5, 250, 2500, 20_000, 3e6)] == [
        *("0.5", "250", "2.5k", "20k", "3M")
    ]
