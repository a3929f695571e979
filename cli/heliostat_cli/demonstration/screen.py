"""What a person sees while the demo runs: a live screen of 80 x 24, or plain lines."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from heliostat_cli.demonstration.watch import EndpointState, FleetState
from heliostat_cli.loading import LoadReport, Progress
from heliostat_cli.loading.display import duration, ratio, state_line

_LINE_SECONDS = 5.0
_BAR_CELLS = 10


@dataclass(slots=True)
class Scene:
    """All that the view shows."""

    policies: tuple[str, ...]
    seconds: float
    """How long each policy runs."""
    policy: str = ""
    """The one that runs or starts."""
    url: str = ""
    """The gateway; empty while it starts."""
    progress: Progress | None = None
    fleet: FleetState = field(default_factory=FleetState)
    reports: dict[str, LoadReport] = field(default_factory=dict)

    def enter(self, policy: str) -> None:
        """Begin with a policy: nothing runs yet."""
        self.policy = policy
        self.url = ""
        self.progress = None
        self.fleet = FleetState()


class Display(Protocol):
    """Shows the scene again after each change."""

    def show(self, scene: Scene) -> None:
        """Show the scene as it is now."""


@contextmanager
def open_display(console: Console) -> Iterator[Display]:
    """A live screen on a terminal, else lines every few seconds."""
    if not console.is_terminal:
        yield PlainDisplay(console)
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        yield LiveDisplay(live)


class LiveDisplay:
    """Draws the whole screen each time."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, scene: Scene) -> None:
        """Draw."""
        self._live.update(render_scene(scene), refresh=True)


class PlainDisplay:
    """Prints a line at the start of each policy and every few seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._policy = ""
        self._due_seconds = 0.0

    def show(self, scene: Scene) -> None:
        """Print a line if one is due."""
        if scene.policy != self._policy:
            self._policy = scene.policy
            self._due_seconds = _LINE_SECONDS
            self._print(f"{scene.policy}: starting fresh engines and gateway")
        progress = scene.progress
        if progress is not None and progress.elapsed_seconds >= self._due_seconds:
            self._due_seconds += _LINE_SECONDS
            line = f"{scene.policy} {progress.elapsed_seconds:.0f} s: {state_line(progress)}"
            self._print(f"{line}, {scene.fleet.queued} queued at the router")

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        self._console.file.flush()


def render_scene(scene: Scene) -> RenderableType:
    """The whole view."""
    return Group(
        Text("Heliostat demo: four stand-ins for vLLM behind a real Envoy", "bold"),
        "",
        _steps(scene),
        "",
        _endpoints(scene),
        Text(f"\nqueued at the router  {scene.fleet.queued}"),
        "",
        _results(scene),
        Text(f"\n{_footer(scene)}", "dim"),
    )


def _steps(scene: Scene) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(width=30)
    grid.add_column(no_wrap=True)
    for policy in scene.policies:
        elapsed = 0.0
        state = "next"
        if policy in scene.reports:
            elapsed, state = scene.seconds, "done"
        elif policy == scene.policy:
            elapsed, state = _running(scene)
        bar = ProgressBar(total=scene.seconds, completed=min(elapsed, scene.seconds), width=30)
        style = "bold" if policy == scene.policy else "dim"
        grid.add_row(Text(policy, style), bar, Text(state, style))
    return grid


def _running(scene: Scene) -> tuple[float, str]:
    progress = scene.progress
    if progress is None:
        return 0.0, "starting fresh engines"
    elapsed = progress.elapsed_seconds
    if elapsed < scene.seconds:
        return elapsed, f"{elapsed:.0f} of {scene.seconds:g} s"
    return elapsed, f"last answers: {progress.active} to come"


def _endpoints(scene: Scene) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("endpoint", no_wrap=True)
    for header in ("running", "waiting", "in flight"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("cached share", no_wrap=True)
    table.add_column("KV in use", no_wrap=True)
    rows = scene.fleet.endpoints or [EndpointState("-") for _ in range(4)]
    for endpoint in rows:
        waiting = str(endpoint.waiting_requests)
        table.add_row(
            endpoint.address,
            str(endpoint.running_requests),
            Text(waiting, "bold yellow" if endpoint.waiting_requests else ""),
            str(endpoint.inflight),
            _bar(endpoint.cached_ratio, "green"),
            _bar(endpoint.kv_cache_utilization, "blue"),
        )
    return table


def _bar(share: float | None, style: str) -> Text:
    filled = round((share or 0.0) * _BAR_CELLS)
    number = "   -" if share is None else f"{share:4.0%}"
    return Text.assemble(("█" * filled, style), ("░" * (_BAR_CELLS - filled), "dim"), f" {number}")


def _results(scene: Scene) -> Table:
    """A column for each policy that has run or runs."""
    table = Table(box=None, pad_edge=False)
    table.add_column("", style="bold", no_wrap=True)
    columns = [_result(scene, policy) for policy in scene.policies]
    for policy in scene.policies:
        style = "bold" if policy == scene.policy else ""
        table.add_column(Text(policy, style), justify="right", min_width=11, no_wrap=True)
    labels = ("hit ratio", "TTFT p50", "TTFT p90", "output tokens/s", "requests", "failed")
    for row, label in enumerate(labels):
        table.add_row(label, *(column[row] for column in columns))
    return table


def _result(scene: Scene, policy: str) -> tuple[str, ...]:
    report = scene.reports.get(policy)
    if report is not None:
        ttft = report.ttft_seconds
        return (
            *(ratio(report.hit_ratio), duration(ttft["p50"]), duration(ttft["p90"])),
            *(f"{report.output_tokens_per_second:,.0f}", str(report.requests), str(report.failed)),
        )
    progress = scene.progress
    if policy != scene.policy or progress is None:
        return ("-",) * 6
    rate = progress.output_tokens / progress.elapsed_seconds if progress.elapsed_seconds else 0.0
    return (
        ratio(progress.hit_ratio),
        duration(progress.ttft_p50_seconds),
        duration(progress.ttft_p90_seconds),
        *(f"{rate:,.0f}", str(progress.requests), str(progress.failed)),
    )


def _footer(scene: Scene) -> str:
    where = f"Envoy on {scene.url}. " if scene.url else ""
    return f"{where}^C ends the demo and shows what was measured."
