"""What a person sees of a run: a progress bar or plain lines, then a table."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table

from heliostat_cli.loading.options import LoadOptions
from heliostat_cli.loading.report import LAG_LIMIT_SECONDS, LoadReport, Progress
from heliostat_sim.workload.session import Workload

_LINE_SECONDS = 5.0
_ABSENT = "-"


@contextmanager
def progress_display(
    options: LoadOptions, workload: Workload, name: str | None
) -> Iterator[Callable[[Progress], None]]:
    """A callback that shows progress on stderr: a bar on a terminal, else a line at times."""
    title = name or workload.name
    console = Console(stderr=True)
    if console.is_terminal:
        with _bar(console, options, workload, title) as show:
            yield show
    else:
        yield _lines(title)


@contextmanager
def _bar(
    console: Console, options: LoadOptions, workload: Workload, title: str
) -> Iterator[Callable[[Progress], None]]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
        TextColumn("{task.fields[state]}", markup=False),
    )
    with ProgressBar(*columns, console=console, auto_refresh=False, transient=True) as bar:
        task = bar.add_task(title, total=1.0, state="")

        def show(progress: Progress) -> None:
            share = completed_ratio(options, workload, progress)
            bar.update(task, total=None if share is None else 1.0, completed=share or 0.0)
            bar.update(task, state=state_line(progress), refresh=True)

        yield show


def _lines(title: str) -> Callable[[Progress], None]:
    due_seconds = _LINE_SECONDS

    def show(progress: Progress) -> None:
        nonlocal due_seconds
        if progress.elapsed_seconds < due_seconds:
            return
        due_seconds = progress.elapsed_seconds + _LINE_SECONDS
        line = f"{title} {progress.elapsed_seconds:.0f} s: {state_line(progress)}"
        print(line, file=sys.stderr, flush=True)

    return show


def completed_ratio(options: LoadOptions, workload: Workload, progress: Progress) -> float | None:
    """How much of the run is done, by whichever limit ends it first; None if it has none."""
    shares = []
    limits = (options.max_requests, workload.length)
    requests = min((limit for limit in limits if limit is not None), default=None)
    if requests:
        shares.append(progress.requests / requests)
    if options.seconds is not None:
        shares.append(progress.elapsed_seconds / options.seconds)
    return min(1.0, max(shares)) if shares else None


def state_line(progress: Progress) -> str:
    """One line that says where the run stands."""
    ttft = f"{duration(progress.ttft_p50_seconds)}/{duration(progress.ttft_p90_seconds)}"
    return (
        f"{progress.requests} done, {progress.active} active, {progress.failed} failed,"
        f" TTFT p50/p90 {ttft}, hit ratio {ratio(progress.hit_ratio)}"
    )


def duration(seconds: float | None) -> str:
    """A duration in a unit that suits it."""
    if seconds is None:
        return _ABSENT
    return f"{seconds * 1000:.3g} ms" if seconds < 0.9995 else f"{seconds:.4g} s"


def ratio(value: float | None) -> str:
    """A ratio as a percentage."""
    return _ABSENT if value is None else f"{value:.1%}"


def print_report(report: LoadReport, name: str | None, file: TextIO) -> None:
    """Print the result for a person to read."""
    console = Console(file=file, highlight=False)
    table = Table(title=name or report.workload, title_justify="left", show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column()
    for label, value in _rows(report):
        table.add_row(label, value)
    console.print(table)
    for reason, count in report.errors.items():
        console.print(f"{count} failed: {reason}", markup=False, style="red")
    if report.interrupted:
        console.print("Interrupted: requests without a full answer are not counted.")
    if not report.valid:
        lag = duration(report.event_loop_lag_seconds["p99"])
        engines = duration(report.engine_lag_p99_seconds)
        limit = duration(LAG_LIMIT_SECONDS)
        console.print(
            f"Not valid: this process lagged {lag}, the engines {engines} (p99; limit {limit})."
            " Send less, or from a machine with more cores.",
            style="red",
        )


def _rows(report: LoadReport) -> list[tuple[str, str]]:
    lag = report.event_loop_lag_seconds
    return [
        ("requests", f"{report.requests} in {report.duration_seconds:.1f} s"),
        ("failed", str(report.failed)),
        ("time to first token", _durations(report.ttft_seconds)),
        ("time between tokens", _durations(report.time_between_tokens_seconds)),
        ("end to end", _durations(report.e2e_seconds)),
        ("output", f"{report.output_tokens_per_second:,.1f} tokens/s"),
        ("input", f"{report.input_tokens_per_second:,.1f} tokens/s"),
        ("throughput", f"{report.requests_per_second:.2f} requests/s"),
        ("hit ratio", ratio(report.hit_ratio)),
        ("event-loop lag", _durations(lag)),
    ]


def _durations(values: dict[str, float | None]) -> str:
    return ", ".join(f"{name} {duration(value)}" for name, value in values.items())
