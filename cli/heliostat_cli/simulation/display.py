"""What a person sees of a simulation: how far it is, then tables."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as ProgressBar

from heliostat_sim.evaluation import MEASURES, Progress, Report, Table
from heliostat_sim.evaluation.measures import duration, percentage


@contextmanager
def progress_display(title: str, total: int) -> Iterator[Callable[[Progress], None]]:
    """A callback that shows progress on stderr: a bar on a terminal, else a line for each run."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _print_line
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[last]}", markup=False),
    )
    with ProgressBar(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=total, last="")

        def show(progress: Progress) -> None:
            bar.update(task, completed=progress.done, last=_name(progress))

        yield show


def _print_line(progress: Progress) -> None:
    line = f"{progress.done} of {progress.total}: {_name(progress)}"
    print(line, file=sys.stderr, flush=True)


def _name(progress: Progress) -> str:
    job = progress.job
    return ", ".join((job.policy, f"seed {job.seed}", *job.changes))


def report_table(report: Report) -> Table:
    """All that one run came to."""
    rows = tuple((measure.label, measure.show(measure.value(report))) for measure in MEASURES)
    title = f"{report.scenario}, {report.policy}, seed {report.seed}: {report.span_seconds:g} s"
    return Table(("", ""), rows, title)


def regions_table(report: Report) -> Table:
    """What the clients of each region saw."""
    rows = tuple(
        (
            name,
            str(region.requests),
            duration(region.ttft_p50_seconds),
            duration(region.ttft_p90_seconds),
            percentage(region.slo_ratio),
        )
        for name, region in report.regions.items()
    )
    in_time = f"within {report.slo_seconds:g} s"
    return Table(("clients in", "requests", "TTFT p50", "TTFT p90", in_time), rows)
