"""The paper's day and night: how many engines, federated or each region for itself."""

from collections.abc import Sequence

from heliostat_sim.evaluation import Changes, Comparison, Table, measure_named
from heliostat_sim.evaluation.plot import Axis, Line, line_chart
from heliostat_sim.findings.campaign import Campaign, Study, contenders
from heliostat_sim.findings.judging import paper_goals, ratio_of
from heliostat_sim.findings.rivals import OURS, PAIR, SKYLB
from heliostat_sim.findings.section import Draft, Section
from heliostat_sim.findings.workloads import Workload, ideal, yardsticks
from heliostat_sim.policies.registry import PolicyName

_SCENARIO = "paper-diurnal"
_TOTALS = (3, 6, 9, 12, 15, 18)
_JUDGED = 9
_SEEDS = 3
"""Of all totals but the one that goals are judged by."""
_FIELDS = ("throughput_tokens_per_second", "ttft_p90_seconds", "hit_ratio", "cross_region_ratio")


def cut_off(*regions: str, seconds: float = 86_400.0) -> Changes:
    """Cut all ways between regions from the start: each serves itself."""
    links = [
        f"{{kind: link, at: 0s, lasts: {seconds:g}s, region: {one}, otherRegion: {other}}}"
        for index, one in enumerate(regions)
        for other in regions[index + 1 :]
    ]
    return (f"faults=[{', '.join(links)}]",)


def spread_evenly(total: int, regions: Sequence[str]) -> Changes:
    """So many engines over the regions, the first ones get what is left over."""
    share, rest = divmod(total, len(regions))
    return tuple(
        f"regions.{name}.engines={share + (index < rest)}" for index, name in enumerate(regions)
    )


REGIONS = ("us", "asia", "eu")
_USUAL = Workload("day", "Day and night, 9 engines", _SCENARIO, spread_evenly(_JUDGED, REGIONS))


def federated_and_cut(campaign: Campaign) -> tuple[list[Comparison], list[Comparison]]:
    """All totals with the regions together, and with all ways between them cut."""
    pairs = contenders(PolicyName.HELIOSTAT, PolicyName.SKYLB, PolicyName.GKE)
    together = [
        Study(_SCENARIO, pairs, spread_evenly(n, REGIONS), seeds=None if n == _JUDGED else _SEEDS)
        for n in _TOTALS
    ]
    cut = cut_off(*REGIONS)
    apart = [
        Study(_SCENARIO, PAIR, (*spread_evenly(n, REGIONS), *cut), seeds=_SEEDS) for n in _TOTALS
    ]
    found = campaign.compare_all([*together, *apart])
    return found[: len(_TOTALS)], found[len(_TOTALS) :]


def gains(together: Sequence[Comparison], apart: Sequence[Comparison], policy: str) -> list[float]:
    """Throughput of the regions together over apart, for each total."""
    return [
        _throughput(one, policy) / _throughput(other, policy)
        for one, other in zip(together, apart, strict=True)
    ]


def regional(campaign: Campaign) -> Section:
    """WildChat clients where it is day in one region, over the number of engines."""
    together, apart = federated_and_cut(campaign)
    draft = Draft("Day and night, as in the paper")
    draft.say(
        """WildChat; 120 clients in the US, 40 in each other region, 3 to 18 engines spread evenly.
        `apart` is the same policy with all ways between regions cut: region-local serving."""
    )
    rows = []
    for total, one, other in zip(_TOTALS, together, apart, strict=True):
        for name, comparison in ((n, one) for n in one.reports):
            rows.append((f"{total}, {name}", *_cells(comparison, name)))
        rows += [(f"{total}, {name} apart", *_cells(other, name)) for name in other.reports]
    header = ("engines, policy", *(measure_named(field).label for field in _FIELDS))
    draft.table(Table(header, tuple(rows)))
    for name in (OURS, SKYLB):
        ratios = gains(together, apart, name)
        draft.say(
            f"{name}: together over apart {min(ratios):.2f} to {max(ratios):.2f}x (paper, SkyLB:"
            f" 1.07 to 1.18x). {_equal_words(together, apart, name)}"
        )
    draft.picture("paper-diurnal", "Throughput over the number of engines", _chart(together, apart))
    over = [ratio_of(comparison, "throughput_tokens_per_second") for comparison in together]
    shown = ", ".join(
        f"{n}: {r.ratio:.2f}x" for n, r in zip(_TOTALS, over, strict=True) if r is not None
    )
    draft.say(f"Heliostat over SkyLB, throughput by engines: {shown}.")
    usual = _TOTALS.index(_JUDGED)
    bound = ideal(campaign, _USUAL, together[usual])
    sticks = yardsticks(campaign, _USUAL, together[usual], bound)
    draft.goals(paper_goals(_USUAL.key, _USUAL.words, together[usual], sticks))
    return draft.done()


def _equal_words(together: Sequence[Comparison], apart: Sequence[Comparison], name: str) -> str:
    """How many engines together do what 12 do apart."""
    goal = _throughput(apart[_TOTALS.index(12)], name)
    for total, comparison in zip(_TOTALS, together, strict=True):
        if _throughput(comparison, name) >= 0.99 * goal:
            return f"{total} engines together give the throughput of 12 apart (paper: 9)."
    return "No number of engines together gives the throughput of 12 apart."


def _throughput(comparison: Comparison, policy: str) -> float:
    spread = comparison.spread(policy, measure_named("throughput_tokens_per_second"))
    return spread.mean if spread else 0.0


def _cells(comparison: Comparison, name: str) -> list[str]:
    cells = []
    for field in _FIELDS:
        measure = measure_named(field)
        spread = comparison.spread(name, measure)
        cells.append(measure.show(spread.mean if spread else None))
    return cells


def _chart(together: Sequence[Comparison], apart: Sequence[Comparison]) -> str:
    series = [
        (f"{name}{words}", name, found)
        for found, words in ((together, ""), (apart, ", apart"))
        for name in found[0].reports
    ]
    lines = [
        Line(
            label,
            tuple((float(n), _throughput(c, name)) for n, c in zip(_TOTALS, found, strict=True)),
        )
        for label, name, found in series
    ]
    y = Axis("Throughput (input + 2 output tokens/s)", least=0.0)
    return line_chart("Day and night: throughput", Axis("Engines"), y, lines)
