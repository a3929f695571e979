"""How many engines a day takes, federated or with each region sized for its own peak."""

from dataclasses import dataclass
from math import ceil

from heliostat_sim.demand.arrivals import DayCurve
from heliostat_sim.evaluation import Changes, Comparison, Table
from heliostat_sim.evaluation.measures import number, percentage
from heliostat_sim.findings.campaign import Campaign, Study, contenders
from heliostat_sim.findings.regional import REGIONS, cut_off
from heliostat_sim.findings.rivals import OURS
from heliostat_sim.findings.section import Draft, Goal, Section
from heliostat_sim.policies.registry import PolicyName
from heliostat_sim.scenario.scenario import load_scenario
from heliostat_sim.scenario.spec import ScenarioSpec
from heliostat_sim.scenario.workload_spec import OpenChatWorkload

_SCENARIO = "diurnal"
_ENGINE_CHATS_PER_SECOND = 0.8
"""What one engine can take of these chats, as the scenarios say."""
_DAY_SECONDS, _SHORT_DAY_SECONDS = 1800.0, 300.0
_SEEDS = 3
_SAME_RATIO = 0.002
"""Attainments that differ by no more are the same."""
_MOST_OVER_FLOOR = 1.15
_STEPS = 200


@dataclass(frozen=True, slots=True)
class Sizing:
    """What the day's demand comes to, in engines."""

    fixed: dict[str, int]
    """Each region for its own peak."""
    floor: float
    """The peak of the world's total demand: no fixed number of engines below it can do."""


def sizing(day_seconds: float) -> Sizing:
    """The demand of the scenario, as a fluid."""
    spec = load_scenario(_SCENARIO).spec
    stretch = _stretch(spec, day_seconds)
    curves = {
        name: (
            region.rate or 0.0,
            DayCurve(day_seconds, (region.peak_at or 0.0) * stretch, region.peak_to_trough or 1.0),
        )
        for name, region in spec.regions.items()
    }
    at = [day_seconds * step / _STEPS for step in range(_STEPS)]
    rates = {n: [rate * curve.ratio(t) for t in at] for n, (rate, curve) in curves.items()}
    fixed = {n: ceil(max(values) / _ENGINE_CHATS_PER_SECOND) for n, values in rates.items()}
    peak = max(sum(values) for values in zip(*rates.values(), strict=True))
    return Sizing(fixed, peak / _ENGINE_CHATS_PER_SECOND)


def gpu_hours(campaign: Campaign) -> Section:
    """Search for the smallest federated number of engines that serves every region as well."""
    day_seconds = _SHORT_DAY_SECONDS if campaign.effort.short else _DAY_SECONDS
    sizes = sizing(day_seconds)
    day = _day(day_seconds)
    apart = campaign.compare(_study((*day, *_engines(sizes.fixed), *cut_off(*REGIONS))))
    wanted = _attainments(apart)
    static = sum(sizes.fixed.values())
    rows = [_row("static, apart", sizes.fixed, apart)]
    reached: int | None = None
    for total in range(ceil(sizes.floor), static + 1):
        engines = _shares(total, sizes.fixed)
        together = campaign.compare(_study((*day, *_engines(engines))))
        rows.append(_row("federated", engines, together))
        found = _attainments(together)
        if all(found[name] >= wanted[name] - _SAME_RATIO for name in wanted):
            reached = total
            break
    return _written(sizes, rows, reached, day_seconds)


def _written(
    sizes: Sizing, rows: list[tuple[str, ...]], reached: int | None, day_seconds: float
) -> Section:
    static = sum(sizes.fixed.values())
    draft = Draft("GPU-hours of a day")
    draft.say(
        f"""A day of {day_seconds / 60:g} minutes with each region's rate following the sun. Apart,
        each region has engines for its own peak (an engine takes
        {_ENGINE_CHATS_PER_SECOND:g} chats/s) and serves itself. Federated, the same policy needs
        the smallest number that gives every region at least the same share of first tokens within
        1 s. The fluid floor is the peak of the world's total demand, {sizes.floor:.1f} engines."""
    )
    draft.table(Table(("", "engines", "us/asia/eu", *REGIONS, "GPU-hours"), tuple(rows)))
    if reached is None:
        result, met = "no number up to the static one", False
    else:
        over = reached / sizes.floor
        result = (
            f"{reached} engines, {over:.2f} x the floor; {reached / static:.0%} of {static} static"
        )
        met = over <= _MOST_OVER_FLOOR
    draft.say(f"Reached: {result}. The paper: 9 engines federated for 12 region-local, 75 %.")
    words, target = "A day's GPU-hours at equal attainment", "at most 1.15 x the fluid floor"
    draft.goals([Goal("gpu-hours", words, target, result, met)])
    return draft.done()


def _study(changes: Changes) -> Study:
    return Study(_SCENARIO, contenders(PolicyName.HELIOSTAT), changes, OURS, _SEEDS)


def _day(day_seconds: float) -> Changes:
    spec = load_scenario(_SCENARIO).spec
    stretch = _stretch(spec, day_seconds)
    peaks = (
        f"regions.{name}.peakAt={(region.peak_at or 0.0) * stretch:g}s"
        for name, region in spec.regions.items()
    )
    return (f"duration={day_seconds:g}s", f"workload.day={day_seconds:g}s", *peaks)


def _stretch(spec: ScenarioSpec, day_seconds: float) -> float:
    """How much shorter the day is than the scenario's."""
    workload = spec.workload
    if not isinstance(workload, OpenChatWorkload) or workload.day is None:
        raise TypeError(f"the scenario {_SCENARIO} has no day")
    return day_seconds / workload.day


def _engines(engines: dict[str, int]) -> Changes:
    return tuple(f"regions.{name}.engines={count}" for name, count in engines.items())


def _shares(total: int, like: dict[str, int]) -> dict[str, int]:
    """A total split like these, greatest remainders first."""
    whole = sum(like.values())
    exact = {name: total * count / whole for name, count in like.items()}
    shares = {name: int(value) for name, value in exact.items()}
    rest = total - sum(shares.values())
    for name in sorted(exact, key=lambda n: shares[n] - exact[n])[:rest]:
        shares[name] += 1
    return shares


def _attainments(comparison: Comparison) -> dict[str, float]:
    reports = list(comparison.reports[OURS].values())
    return {
        name: sum(r.regions[name].slo_ratio or 0.0 for r in reports) / len(reports)
        for name in REGIONS
    }


def _row(words: str, engines: dict[str, int], comparison: Comparison) -> tuple[str, ...]:
    total = sum(engines.values())
    reports = list(comparison.reports[OURS].values())
    found = _attainments(comparison)
    hours = sum(report.gpu_hours for report in reports) / len(reports)
    return (
        words,
        str(total),
        "/".join(str(engines[name]) for name in REGIONS),
        *(percentage(found[name]) for name in REGIONS),
        number(hours),
    )
