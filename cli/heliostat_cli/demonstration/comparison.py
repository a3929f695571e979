"""The end of the demo: the policies side by side, as a table, a sentence and JSON."""

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from heliostat_cli.demonstration.scenario import SCENARIO
from heliostat_cli.loading import LoadReport
from heliostat_cli.loading.display import duration, ratio
from heliostat_cli.loading.report import LAG_LIMIT_SECONDS

Reports = Mapping[str, LoadReport]
"""Policy -> what was measured with it, in the order in which they ran."""
_ALIKE_RATIO = 1.05
_ENGINES = (
    f"The engines are stand-ins that model L4 GPUs at {SCENARIO.speed_ratio:g} times their speed."
)


@dataclass(frozen=True, slots=True)
class Measure:
    """One row of the table."""

    label: str
    value: Callable[[LoadReport], float | None]
    show: Callable[[float | None], str]
    more_is_better: bool = False
    compared: bool = True


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


MEASURES = (
    Measure("hit ratio", lambda r: r.hit_ratio, ratio, more_is_better=True),
    Measure("TTFT p50", lambda r: r.ttft_seconds["p50"], duration),
    Measure("TTFT p90", lambda r: r.ttft_seconds["p90"], duration),
    Measure("TTFT p99", lambda r: r.ttft_seconds["p99"], duration),
    Measure("between tokens p50", lambda r: r.time_between_tokens_seconds["p50"], duration),
    Measure("between tokens p99", lambda r: r.time_between_tokens_seconds["p99"], duration),
    Measure("end to end p50", lambda r: r.e2e_seconds["p50"], duration),
    Measure("end to end p90", lambda r: r.e2e_seconds["p90"], duration),
    Measure("output tokens/s", lambda r: r.output_tokens_per_second, _number, more_is_better=True),
    Measure("requests", lambda r: r.requests, _number, compared=False),
    Measure("failed", lambda r: r.failed, _number, compared=False),
)


def comparison_json(reports: Reports) -> str:
    """The reports as `heliostat load --json` writes them, by policy."""
    policies = {name: report.to_json() for name, report in reports.items()}
    return json.dumps({"policies": policies}, indent=2)


def verdict(measure: Measure, before: LoadReport, after: LoadReport) -> str:
    """How much better or worse the later policy did, as a factor; nothing if one was cut short."""
    old, new = measure.value(before), measure.value(after)
    if not measure.compared or before.interrupted or after.interrupted or not old or not new:
        return ""
    better = new / old if measure.more_is_better else old / new
    if max(better, 1 / better) < _ALIKE_RATIO:
        return "alike"
    return f"{better:.3g}x better" if better > 1 else f"{1 / better:.3g}x worse"


def comparison_table(reports: Reports) -> Table:
    """A column for each policy; the last one is compared with the first."""
    table = Table(title="Side by side", title_justify="left", box=None, pad_edge=False)
    table.add_column("", style="bold", no_wrap=True)
    for policy in reports:
        table.add_column(policy, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    first, *_, last = *reports.values(), *reports.values()
    for measure in MEASURES:
        said = verdict(measure, first, last) if len(reports) > 1 else ""
        style = "green" if "better" in said else "red" if "worse" in said else "dim"
        values = [measure.show(measure.value(report)) for report in reports.values()]
        table.add_row(measure.label, *values, Text(said, style))
    return table


def summary_sentence(reports: Reports) -> str:
    """What the table shows, good or bad; empty where that would be unfair."""
    (first, before), *_, (last, after) = *reports.items(), *reports.items()
    if not before.requests or not after.requests:
        return "Nothing was measured."
    if before.interrupted or after.interrupted:
        return ""
    after_ttft = duration(after.ttft_seconds["p90"])
    if len(reports) == 1:
        return (
            f"With {last}, {ratio(after.hit_ratio)} of the prompt tokens were cached where they"
            f" were sent; nine in ten first tokens came within {after_ttft}."
        )
    return (
        f"With the same sequence of chats and cold caches, {ratio(after.hit_ratio)} of the prompt"
        f" tokens were cached where {last} sent them, {ratio(before.hit_ratio)} with {first}; nine"
        f" in ten first tokens came within {after_ttft}, with {first} within"
        f" {duration(before.ttft_seconds['p90'])}."
    )


def problems(reports: Reports) -> list[str]:
    """What keeps the numbers from being taken at face value, a sentence each."""
    found = []
    for policy, report in reports.items():
        found += [f"{policy}: {count} failed: {why}" for why, count in report.errors.items()]
        if report.interrupted:
            found.append(f"{policy}: interrupted, so its numbers are not comparable.")
        elif not report.valid:
            lag = duration(report.event_loop_lag_seconds["p99"])
            engines = duration(report.engine_lag_p99_seconds)
            limit = duration(LAG_LIMIT_SECONDS)
            found.append(
                f"{policy}: not valid, this machine is too busy: the load lagged {lag}, the engines"
                f" {engines} (p99; limit {limit})."
            )
    return found


def curl_line(url: str, model: str) -> str:
    """A request to type into a shell."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 40}
    content_type = shlex.quote("content-type: application/json")
    return f"curl {url}/v1/chat/completions -H {content_type} -d {shlex.quote(json.dumps(body))}"


def comparison(reports: Reports) -> RenderableType:
    """The table with what has to be said about it."""
    warnings = [Text(line, "red") for line in problems(reports)]
    return Group("", comparison_table(reports), "", _ENGINES, *warnings, summary_sentence(reports))
