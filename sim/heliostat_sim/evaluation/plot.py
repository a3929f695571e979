"""Charts as SVG text: lines with bands, distributions, grouped bars. The same bytes every time."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from heliostat_sim.evaluation import svg
from heliostat_sim.evaluation.scale import Axis, Scale, make_scale, tick_text

__all__ = ["Axis", "Bars", "Line", "bar_chart", "distribution", "line_chart"]

Points = tuple[tuple[float, float], ...]

_WIDTH, _HEIGHT = 720.0, 400.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 72.0, 16.0, 40.0, 52.0
_LEGEND_ROW, _LETTER = 20.0, 6.6
_MARKED_POINTS = 30
"""A line with more points is drawn without marks."""


@dataclass(frozen=True, slots=True)
class Line:
    """One series of a line chart."""

    name: str
    points: Points
    """In ascending order of x."""
    band: tuple[tuple[float, float, float], ...] = ()
    """(x, low, high): shaded, as the spread over seeds."""
    stepped: bool = False
    """Whether a value holds until the next point."""


@dataclass(frozen=True, slots=True)
class Bars:
    """One series of a bar chart: a bar in each group."""

    name: str
    values: tuple[float | None, ...]
    limits: tuple[tuple[float, float] | None, ...] = ()
    """(low, high) of each bar, drawn as a thin line; may be left out."""


def line_chart(title: str, x: Axis, y: Axis, lines: Sequence[Line]) -> str:
    """Lines over a common axis of numbers."""
    legend, top = _legend([line.name for line in lines], filled=False)
    across = make_scale(x, (p[0] for line in lines for p in line.points), _LEFT, _WIDTH - _RIGHT)
    up = make_scale(y, _heights(lines), _HEIGHT - _BOTTOM, top)
    parts = [*_frame(title, x.label, y.label, up, top), *legend, *_numbers_below(across)]
    parts += [part for i, line in enumerate(lines) for part in _band(line, i, across, up)]
    parts += [part for i, line in enumerate(lines) for part in _line(line, i, across, up)]
    return svg.document(_WIDTH, _HEIGHT, title, parts)


def distribution(name: str, curve: Sequence[float]) -> Line:
    """The cumulative distribution of evenly spaced quantiles, as a line of (value, share)."""
    last = max(1, len(curve) - 1)
    points = tuple((value, index / last) for index, value in enumerate(curve))
    return Line(name, points, stepped=True)


def bar_chart(title: str, y: Axis, groups: Sequence[str], series: Sequence[Bars]) -> str:
    """Bars side by side in named groups."""
    legend, top = _legend([bars.name for bars in series], filled=True)
    values = [v for bars in series for v in bars.values if v is not None]
    values += [edge for bars in series for limits in bars.limits if limits for edge in limits]
    if y.least is None and not y.logarithmic:
        y = Axis(y.label, y.logarithmic, min([0.0, *values]), y.greatest)
    up = make_scale(y, values, _HEIGHT - _BOTTOM, top)
    parts = [*_frame(title, "", y.label, up, top), *legend]
    room = (_WIDTH - _RIGHT - _LEFT) / max(1, len(groups))
    width = min(48.0, room * 0.8 / max(1, len(series)))
    for place, group in enumerate(groups):
        middle = _LEFT + room * (place + 0.5)
        parts.append(svg.label(group, middle, _HEIGHT - _BOTTOM + 18, "middle"))
        start = middle - width * len(series) / 2
        for index, bars in enumerate(series):
            parts += _bar(bars, index, place, start + width * index, width, up)
    return svg.document(_WIDTH, _HEIGHT, title, parts)


def _frame(title: str, x_label: str, y_label: str, up: Scale, top: float) -> list[str]:
    """Title, labels, and the horizontal lines with their numbers."""
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = [
        svg.label(title, 16, 24, class_="title"),
        svg.label(x_label, (_LEFT + right) / 2, _HEIGHT - 12, "middle"),
        svg.label(y_label, 18, (top + bottom) / 2, "middle", turn=-90),
    ]
    for tick in up.ticks:
        y = up.place(tick)
        parts.append(svg.line(_LEFT, y, right, y, "grid"))
        parts.append(svg.label(tick_text(tick), _LEFT - 8, y + 4, "end"))
    parts.append(svg.line(_LEFT, bottom, right, bottom, "axis"))
    return parts


def _numbers_below(across: Scale) -> Iterable[str]:
    bottom = _HEIGHT - _BOTTOM
    for tick in across.ticks:
        x = across.place(tick)
        yield svg.line(x, bottom, x, bottom + 4, "axis")
        yield svg.label(tick_text(tick), x, bottom + 18, "middle")


def _legend(names: Sequence[str], *, filled: bool) -> tuple[list[str], float]:
    """The names with their colours, in rows below the title; and where the chart may begin."""
    parts: list[str] = []
    x, y = 16.0, _TOP + 4
    for index, name in enumerate(names):
        width = 34 + _LETTER * len(name)
        if x + width > _WIDTH - _RIGHT and x > 16.0:
            x, y = 16.0, y + _LEGEND_ROW
        colour = svg.colour(index)
        if filled:
            parts.append(svg.element("rect", x=x + 4, y=y - 5, width=10, height=10, fill=colour))
        else:
            stroke = svg.path(((x, y), (x + 18, y)))
            parts.append(_stroke(stroke, index))
        parts.append(svg.label(name, x + 23, y + 4))
        x += width
    return parts, y + _LEGEND_ROW


def _heights(lines: Sequence[Line]) -> Iterable[float]:
    for line in lines:
        yield from (y for _, y in line.points)
        yield from (edge for _, low, high in line.band for edge in (low, high))


def _band(line: Line, index: int, across: Scale, up: Scale) -> list[str]:
    shown = [p for p in line.band if across.shows(p[0]) and up.shows(p[1]) and up.shows(p[2])]
    if not shown:
        return []
    there = [(across.place(x), up.place(high)) for x, _, high in shown]
    back = [(across.place(x), up.place(low)) for x, low, _ in reversed(shown)]
    outline = svg.path([*there, *back], closed=True)
    return [svg.element("path", d=outline, fill=svg.colour(index), fill_opacity="0.18")]


def _line(line: Line, index: int, across: Scale, up: Scale) -> list[str]:
    shown = [(x, y) for x, y in line.points if across.shows(x) and up.shows(y)]
    places = [(across.place(x), up.place(y)) for x, y in shown]
    if not places:
        return []
    parts = [_stroke(svg.path(_steps(places) if line.stepped else places), index)]
    if len(places) <= _MARKED_POINTS and not line.stepped:
        colour = svg.colour(index)
        parts += [svg.element("circle", cx=x, cy=y, r=3, fill=colour) for x, y in places]
    return parts


def _steps(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    corners = [places[0]]
    for x, y in places[1:]:
        corners += [(x, corners[-1][1]), (x, y)]
    return corners


def _stroke(outline: str, index: int) -> str:
    return svg.element(
        "path",
        d=outline,
        fill="none",
        stroke=svg.colour(index),
        stroke_width=2,
        stroke_linejoin="round",
        stroke_dasharray=svg.dashes(index),
    )


def _bar(bars: Bars, index: int, group: int, left: float, width: float, up: Scale) -> Iterable[str]:
    value = bars.values[group]
    if value is None or not up.shows(value):
        return
    place: Callable[[float], float] = up.place
    ground = place(up.low if up.logarithmic else max(0.0, up.low))
    top, bottom = sorted((place(value), ground))
    yield svg.element(
        "rect", x=left + 1, y=top, width=width - 2, height=bottom - top, fill=svg.colour(index)
    )
    limits = bars.limits[group] if group < len(bars.limits) else None
    if limits is not None and all(math.isfinite(edge) for edge in limits):
        x = left + width / 2
        yield svg.line(x, place(limits[0]), x, place(limits[1]), "limits")
