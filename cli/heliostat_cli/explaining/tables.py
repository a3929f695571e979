"""Requests for people: one a line, or one with each decision and what every candidate cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from heliostat_cli.explaining.asking import ToldRequest, candidates, number, printable
from heliostat_cli.loading.display import duration

_TERMS = ("network", "wait", "prefill", "burden", "spread", "egress", "cost")
_STYLES = {"won": "green", "busy": "yellow", "alike": "cyan"}


def latest(requests: Sequence[ToldRequest]) -> RenderableType:
    """A line each, the latest first."""
    table = _table("id", "pool", "endpoint", "outcome", "rule", "queued", "ttft", "total")
    for told in requests:
        times = [told.number(f"{name}_seconds") for name in ("queue", "ttft", "total")]
        outcome = told.raw.get("outcome")
        table.add_row(
            *(Text(told.text(key)) for key in ("request_id", "pool", "endpoint")),
            Text("goes on" if outcome is None else printable(outcome)),
            Text(told.text("rule")),
            *(duration(seconds) for seconds in times),
        )
    return table


def story(told: ToldRequest) -> RenderableType:
    """Its way from its arrival to the end of its answer."""
    outcome = told.raw.get("outcome")
    ending = "goes on" if outcome is None else printable(outcome)
    title = f"{told.text('request_id')}: {ending}, {told.text('endpoint')}"
    times = ", ".join(
        f"{name} {duration(told.number(f'{key}_seconds'))}"
        for name, key in (("queued", "queue"), ("first token", "ttft"), ("total", "total"))
    )
    tokens = ", ".join(
        f"{told.text(f'{key}_tokens')} {name}"
        for name, key in (("prompt", "prompt"), ("cached", "cached"), ("output", "output"))
    )
    about = f"model {told.text('model')}, pool {told.text('pool')}, arrived {told.text('time')}"
    if told.raw.get("tenant"):
        about += f", of {told.text('tenant')}"
    if told.raw.get("origin"):
        about += f", from {told.text('origin')}"
    parts: list[RenderableType] = [Text(title, "bold"), Text(about)]
    parts += [Text(f"{times}; tokens: {tokens}"), ""]
    for step in told.steps:
        parts.append(Text(_sentence(step)))
        if candidates(step):
            parts += [_costs(step), ""]
    return Group(*parts)


def _sentence(step: Mapping[str, Any]) -> str:
    at = duration(number(step.get("at_seconds")))
    kind = printable(step.get("step"))
    about = next(
        (step[key] for key in ("endpoint", "endpoints", "region", "reason") if step.get(key)), ""
    )
    places = ", ".join(map(str, about)) if isinstance(about, list) else str(about)
    text = f"{at:>8}  {kind} {printable(places) if places else ''}".rstrip()
    if "rule" in step:
        text += f"  ({printable(step['rule'])}, {printable(step.get('eligible'))} eligible)"
    return text


def _costs(step: Mapping[str, Any]) -> Table:
    """What each would cost; terms that are nothing for all of them are left out."""
    rows = candidates(step)
    terms = [term for term in _TERMS if any(number(row.get(f"{term}_seconds")) for row in rows)]
    table = _table("", "endpoint", "cached", "uncached", *terms)
    for row in rows:
        verdict = printable(row.get("verdict"))
        counts = (number(row.get(f"{name}_tokens")) for name in ("cached", "uncached"))
        table.add_row(
            Text(verdict, _STYLES.get(verdict, "")),
            Text(printable(row.get("endpoint"))),
            *("-" if count is None else f"{count:.0f}" for count in counts),
            *(duration(number(row.get(f"{term}_seconds"))) for term in terms),
        )
    return table


def _table(*headers: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for header in headers:
        is_number = header in ("cached", "uncached", *_TERMS)
        table.add_column(header, justify="right" if is_number else "left", no_wrap=True)
    return table
