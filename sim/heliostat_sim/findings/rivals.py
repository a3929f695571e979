"""Who is compared in which sections, and the rows of their tables."""

from collections.abc import Sequence

from heliostat_sim.evaluation import Comparison, Measure, Table, measure_named
from heliostat_sim.evaluation.comparison import show_ratio
from heliostat_sim.evaluation.measures import ABSENT
from heliostat_sim.findings.campaign import Contender, contenders
from heliostat_sim.policies.registry import GatewayLayout, PolicyName

OURS, SKYLB = PolicyName.HELIOSTAT.value, PolicyName.SKYLB.value

CLAIRVOYANT = Contender(PolicyName.CLAIRVOYANT, most_seeds=2)
"""Takes long, and is a measure rather than a rival."""

SINGLE_GATEWAY = (
    PolicyName.ROUND_ROBIN,
    PolicyName.LEAST_LOAD,
    PolicyName.RING_HASH,
    PolicyName.SGLANG,
)
"""The paper's baselines with one gateway in the US."""

PAIR = contenders(PolicyName.HELIOSTAT, PolicyName.SKYLB)

MAIN = (
    *PAIR,
    *contenders(PolicyName.SKYLB_CH, PolicyName.GKE, PolicyName.LEAST_LOAD, PolicyName.GORGO),
    CLAIRVOYANT,
)

ALL = (
    *PAIR,
    CLAIRVOYANT,
    *contenders(
        PolicyName.SKYLB_CH, PolicyName.GKE, *SINGLE_GATEWAY, PolicyName.GORGO, PolicyName.STICKY
    ),
    *contenders(*SINGLE_GATEWAY, PolicyName.STICKY, layout=GatewayLayout.PER_REGION),
)

PAPER_FIELDS = (
    "throughput_tokens_per_second",
    "output_tokens_per_second",
    "ttft_p50_seconds",
    "ttft_p90_seconds",
    "ttft_p99_seconds",
    "e2e_p50_seconds",
    "e2e_p90_seconds",
    "time_per_output_token_p90_seconds",
    "hit_ratio",
    "imbalance_least_ratio",
    "cross_region_ratio",
    "preemptions",
    "failed_ratio",
)
"""What every table of policies shows."""


def columns(fields: Sequence[str] = PAPER_FIELDS) -> list[Measure]:
    """The measures of these fields."""
    return [measure_named(field) for field in fields]


def policies_table(
    comparison: Comparison, title: str, *extra: tuple[str, ...], more_fields: Sequence[str] = ()
) -> Table:
    """A row for each contender, a column for each measure; `extra` rows come last."""
    measures = columns((*PAPER_FIELDS, *more_fields))
    rows = [
        (_row_name(comparison, name), *_cells(comparison, name, measures))
        for name in comparison.reports
    ]
    padded = [(*row, *[ABSENT] * (len(measures) + 1 - len(row))) for row in extra]
    header = ("", *(measure.label for measure in measures))
    return Table(header, (*rows, *padded), f"{title}: {seeds_text(comparison)}")


def seeds_text(comparison: Comparison) -> str:
    """How many seeds are behind a table, and the spread."""
    count = len(comparison.reports[comparison.reference])
    return "one seed" if count == 1 else f"means of {count} seeds, +- standard deviation"


def _row_name(comparison: Comparison, name: str) -> str:
    """With the number of seeds where it is less than the table's."""
    count = len(comparison.reports[name])
    if count >= len(comparison.reports[comparison.reference]):
        return name
    return f"{name} ({count} seed{'s' if count > 1 else ''})"


def ratios_table(comparisons: dict[str, Comparison], fields: Sequence[str]) -> Table:
    """Heliostat's ratios to SkyLB, a row for each scenario, paired by seed with 95 % limits."""
    measures = columns(fields)
    rows = tuple(
        (name, *(show_ratio(comparison.ratio(OURS, measure)) for measure in measures))
        for name, comparison in comparisons.items()
    )
    header = ("", *(measure.label for measure in measures))
    return Table(header, rows, "Heliostat over SkyLB, with 95 % limits")


def _cells(comparison: Comparison, name: str, measures: Sequence[Measure]) -> list[str]:
    cells = []
    for measure in measures:
        spread = comparison.spread(name, measure)
        if spread is None:
            cells.append(ABSENT)
        elif spread.seeds > 1 and spread.mean > 0:
            cells.append(f"{measure.show(spread.mean)} +-{spread.deviation / spread.mean:.0%}")
        else:
            cells.append(measure.show(spread.mean))
    return cells
