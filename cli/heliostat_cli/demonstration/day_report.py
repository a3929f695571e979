"""The end of the three-region demo: both days side by side, and what the simulator adds."""

import json
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from heliostat_cli.demonstration.day_run import DayState
from heliostat_cli.demonstration.provisioning import (
    OBJECTIVE_RATIO,
    OBJECTIVE_SECONDS,
    Provisioning,
)
from heliostat_cli.demonstration.sun import REGIONS, Day
from heliostat_cli.loading.display import duration


def day_report(
    day: Day, states: Sequence[DayState], provisioning: Provisioning | None
) -> RenderableType:
    """The table with what has to be said about it."""
    parts: list[RenderableType] = ["", _table(states), ""]
    if provisioning is not None:
        parts += [engines_sentence(day, provisioning), ""]
    parts.append(
        f"The engines are stand-ins that model L4 GPUs, {day.engines} in each region; the gateways"
        " are real, and the ways between them delayed as between Ohio, Frankfurt and Tokyo."
    )
    parts += [Text(line, "red") for line in day_problems(states)]
    return Group(*parts)


def _table(states: Sequence[DayState]) -> Table:
    table = Table(title="The day side by side", title_justify="left", box=None, pad_edge=False)
    table.add_column("", style="bold", no_wrap=True)
    for state in states:
        words = str(state.mode) if state.done else f"{state.mode} (cut short)"
        table.add_column(words, justify="right", no_wrap=True)
    rows: list[tuple[str, list[str]]] = [
        ("served", [f"{s.tally.served:,}" for s in states]),
        ("cut by the kill", [str(s.tally.cut) for s in states]),
        ("failed", [str(s.tally.failed) for s in states]),
    ]
    rows += [(f"TTFT p{p}", [duration(s.tally.ttft(p)) for s in states]) for p in (50, 90)]
    rows += [
        (
            f"TTFT p90, {region.title}",
            [duration(s.tally.regions[region.name].ttft.percentile(90)) for s in states],
        )
        for region in REGIONS
    ]
    rows.append(("served by another region", [str(_passed_on(s)) for s in states]))
    for label, values in rows:
        table.add_row(label, *values)
    return table


def _passed_on(state: DayState) -> int:
    return sum(state.federation.passed_on.values())


def engines_sentence(day: Day, provisioning: Provisioning) -> str:
    """What the simulator says of the engines needed."""
    objective = (
        f"For {OBJECTIVE_RATIO:.0%} of first tokens within {OBJECTIVE_SECONDS:g} s in each region,"
    )
    apart, federated = provisioning.apart_total, provisioning.federated
    if apart is None or federated is None:
        return f"{objective} the simulator has found no number of engines that is enough."
    each = ", ".join(f"{provisioning.apart[region.name]} in {region.title}" for region in REGIONS)
    return (
        f"{objective} the simulator says that this demand needs {apart} engines if each region"
        f" serves itself ({each}), and {federated} federated. The demo has"
        f" {day.engines * len(REGIONS)}."
    )


def day_problems(states: Sequence[DayState]) -> list[str]:
    """What keeps the numbers from being taken at face value, a sentence each."""
    found = []
    for state in states:
        tally = state.tally
        found += [f"{state.mode}: {count} failed: {why}" for why, count in tally.errors.items()]
        if not state.done:
            found.append(f"{state.mode}: interrupted, so its numbers are not comparable.")
        elif not tally.valid:
            lag = duration(tally.lag.percentile(99))
            found.append(
                f"{state.mode}: not valid, this machine is too busy: clients lagged {lag} (p99)."
            )
    return found


def day_json(day: Day, states: Sequence[DayState], provisioning: Provisioning | None) -> str:
    """Both runs and the simulator's answer as plain data."""
    runs = {
        str(state.mode): {
            **state.tally.to_json(),
            "interrupted": not state.done,
            "served_by": {
                region.name: {
                    other.name: state.federation.served(state.tally)[region.name, other.name]
                    for other in REGIONS
                }
                for region in REGIONS
            },
        }
        for state in states
    }
    engines = None
    if provisioning is not None:
        engines = {
            "objective_seconds": OBJECTIVE_SECONDS,
            "objective_ratio": OBJECTIVE_RATIO,
            "region_local": dict(provisioning.apart),
            "federated": provisioning.federated,
        }
    plain = {
        "day_seconds": day.seconds,
        "seed": day.seed,
        "runs": runs,
        "simulated_engines": engines,
    }
    return json.dumps(plain, indent=2)
