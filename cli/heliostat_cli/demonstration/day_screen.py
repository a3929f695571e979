"""What a person sees while the three regions live through their days: a live screen, or lines."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import combinations
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from heliostat_cli.demonstration.day_run import DayState, Mode
from heliostat_cli.demonstration.sun import REGIONS, Day, RegionPlan
from heliostat_cli.demonstration.tally import RECENT_SECONDS
from heliostat_cli.loading.display import duration

_LINE_SECONDS = 5.0
_BAR_CELLS = 10
_LEVELS = "▁▂▃▄▅▆▇█"
_ROOMY_LINES = 30
"""Height from which the curves of the day are shown too."""
_STYLES = {"Connected": "green", "Degraded": "yellow", "Unreachable": "bold red"}


@dataclass(slots=True)
class DayScene:
    """All that the view shows."""

    day: Day
    states: list[DayState] = field(default_factory=list)
    """Of the runs so far; the last one is under way."""
    asking_simulator: bool = False

    def state(self, mode: Mode) -> DayState | None:
        """Of a run that has begun."""
        return next((state for state in self.states if state.mode is mode), None)


class DayDisplay(Protocol):
    """Shows the scene again after each change."""

    def show(self, scene: DayScene) -> None:
        """Show the scene as it is now."""


@contextmanager
def open_day_display(console: Console) -> Iterator[DayDisplay]:
    """A live screen on a terminal, else lines every few seconds."""
    if not console.is_terminal:
        yield DayLines(console)
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        yield DayScreen(live, console)


class DayScreen:
    """Draws the whole screen each time."""

    def __init__(self, live: Live, console: Console) -> None:
        self._live = live
        self._console = console

    def show(self, scene: DayScene) -> None:
        """Draw, with more where there is room."""
        self._live.update(render_day(scene, self._console.size.height), refresh=True)


class DayLines:
    """Prints a line when something begins, and every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = ""
        self._due_seconds = 0.0

    def show(self, scene: DayScene) -> None:
        """Print what is due."""
        if scene.asking_simulator:
            self._say_once("asking the simulator how many engines this demand needs")
            return
        state = scene.states[-1]
        if not state.running:
            self._due_seconds = _LINE_SECONDS
            self._say_once(f"{state.mode}: starting three gateways and their engines")
            return
        if state.news and not state.done:
            self._say_once(f"{state.mode}: {state.news}")
        if state.elapsed_seconds >= self._due_seconds:
            self._due_seconds += _LINE_SECONDS
            self._print(_line(state))

    def _say_once(self, line: str) -> None:
        if line != self._last:
            self._last = line
            self._print(line)

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._console.file.flush()


def _line(state: DayState) -> str:
    tally = state.tally
    ttft = f"{duration(tally.ttft(50))}/{duration(tally.ttft(90))}"
    return (
        f"{state.mode} {state.elapsed_seconds:.0f} s: {tally.served} served, {state.active} active,"
        f" {tally.cut} cut by the kill, {tally.failed} failed, TTFT p50/p90 {ttft}"
    )


def render_day(scene: DayScene, height: int = 24) -> RenderableType:
    """The whole view, in 80 columns and at most so many lines."""
    state = scene.states[-1]
    parts: list[RenderableType] = [
        Text(
            "Heliostat demo: three regions and the sun, each for itself and then federated", "bold"
        ),
        "",
        _runs(scene),
        "",
        _regions(state),
        "",
        _matrix(state),
        _news(scene),
        _results(scene),
    ]
    if height >= _ROOMY_LINES:
        parts += ["", _curves(scene)]
    parts.append(
        Text("Real gateways, modelled engines. ^C ends the demo with what is known.", "dim")
    )
    return Group(*parts)


def _runs(scene: DayScene) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(width=30)
    grid.add_column(no_wrap=True)
    for mode in Mode:
        state = scene.state(mode)
        elapsed = 0.0 if state is None else state.elapsed_seconds
        bar = ProgressBar(total=scene.day.seconds, completed=elapsed, width=30)
        style = "bold" if state is scene.states[-1] else "dim"
        grid.add_row(Text(mode, style), bar, Text(_run_words(state), style))
    return grid


def _run_words(state: DayState | None) -> str:
    if state is None:
        return "next"
    if state.done:
        return "done"
    if not state.running:
        return "starting gateways and engines"
    if state.elapsed_seconds < state.day.seconds:
        return f"{state.elapsed_seconds:.0f} of {state.day.seconds:g} s"
    return f"last answers: {state.active} to come" if state.active else "stopping all"


def _regions(state: DayState) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("region", no_wrap=True, width=8)
    for header, width in (("clock", 5), ("clients", 14)):
        table.add_column(header, no_wrap=True, width=width)
    for header in ("free", "in flight", "queued"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("TTFT p50", justify="right", no_wrap=True, width=8)
    table.add_column("p90", justify="right", no_wrap=True, width=8)
    for region in REGIONS:
        table.add_row(*_region_row(state, region))
    return table


def _region_row(state: DayState, region: RegionPlan) -> Sequence[str | Text]:
    at, tally = state.elapsed_seconds, state.tally.regions[region.name]
    count = state.day.clients(region, at) if state.running else 0
    filled = round(count / state.day.peak_clients * _BAR_CELLS)
    hour = state.day.hour(region, at)
    clients = Text.assemble(
        ("█" * filled, "yellow"), ("░" * (_BAR_CELLS - filled), "dim"), f" {count:2}"
    )
    waits = [duration(tally.recent_ttft(percent)) for percent in (50, 90)]
    return (
        Text(region.title, "bold"),
        f"{int(hour):02}:{int(hour % 1 * 60):02}",
        clients,
        *_load(state, region),
        *waits,
    )


def _load(state: DayState, region: RegionPlan) -> Sequence[Text]:
    status = state.federation.routers[region.name]
    if state.down == region.name:
        return (Text("killed", "bold red"), Text("-"), Text("-"))
    if status is None:
        return (Text("-"),) * 3
    free, engines = sum(p.free for p in status.pools), sum(p.endpoints for p in status.pools)
    queued = sum(p.queued for p in status.pools)
    return (
        Text(f"{free} of {engines}", "green" if free else "yellow"),
        Text(str(sum(p.inflight for p in status.pools))),
        Text(str(queued), "bold yellow" if queued else ""),
    )


def _matrix(state: DayState) -> Table:
    """Who served whom in the last seconds, and the links beside it."""
    served = state.federation.recently_served(state.tally)
    grid = Table(box=None, pad_edge=False)
    grid.add_column(f"last {RECENT_SECONDS:g} s, by", no_wrap=True, width=17)
    for region in REGIONS:
        grid.add_column(region.title, justify="right", no_wrap=True, width=6)
    grid.add_column("  links", no_wrap=True)
    for region, pair in zip(REGIONS, combinations(REGIONS, 2), strict=True):
        cells = []
        for other in REGIONS:
            count = served[region.name, other.name]
            style = "dim" if not count else "bold cyan" if other is not region else ""
            cells.append(Text(str(count) if count else "·", style))
        grid.add_row(f"clients of {region.title}", *cells, Text("  ") + _link(state, *pair))
    return grid


def _link(state: DayState, one: RegionPlan, other: RegionPlan) -> Text:
    """The worse of the two ends' views of it."""
    names = f"{one.title}-{other.title} "
    if state.mode is Mode.REGION_LOCAL:
        return Text(f"{names}not federated", "dim")
    views = [
        state.federation.link(one.name, other.name),
        state.federation.link(other.name, one.name),
    ]
    seen = [view for view in views if view is not None]
    if not seen:
        return Text(f"{names}-", "dim")
    worst = max(
        seen, key=lambda view: list(_STYLES).index(view.state) if view.state in _STYLES else 3
    )
    trips = [v.round_trip_seconds for v in seen if v.round_trip_seconds is not None]
    trip = f" {duration(min(trips))}" if trips and worst.state == "Connected" else ""
    return Text.assemble(names, (worst.state, _STYLES.get(worst.state, "")), trip)


def _news(scene: DayScene) -> Text:
    state = scene.states[-1]
    if scene.asking_simulator:
        return Text("\nAsking the simulator how many engines this demand needs\n", "bold")
    return Text(f"\n{state.news}\n", "bold red" if state.down else "bold green")


def _results(scene: DayScene) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("", style="bold", no_wrap=True)
    for header in ("served", "cut by the kill", "failed", "TTFT p50", "TTFT p90"):
        table.add_column(header, justify="right", no_wrap=True)
    for mode in Mode:
        state = scene.state(mode)
        if state is None:
            table.add_row(mode, *("-",) * 5)
            continue
        tally = state.tally
        table.add_row(
            mode,
            *(str(tally.served), str(tally.cut), str(tally.failed)),
            *(duration(tally.ttft(50)), duration(tally.ttft(90))),
        )
    return table


def _curves(scene: DayScene) -> RenderableType:
    """TTFT p90 over the day, a bar for each half hour, both runs to one scale."""
    curves = {m: s.tally.ttft_by_hour(90) for m in Mode if (s := scene.state(m)) is not None}
    top = max((v for curve in curves.values() for v in curve if v is not None), default=1.0)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_row("", Text(f"TTFT p90 over the day, up to {duration(top)}", "dim"))
    for mode in Mode:
        style = "green" if mode is Mode.FEDERATED else "red"
        bars = "".join(_level(value, top) for value in curves.get(mode, []))
        grid.add_row(mode, Text(bars, style))
        grid.add_row("", "")
    return grid


def _level(value: float | None, top: float) -> str:
    if value is None:
        return " "
    return _LEVELS[min(len(_LEVELS) - 1, int(value / top * len(_LEVELS)))]
