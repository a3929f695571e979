"""How many engines a day takes, federated or with each region sized for its own peak."""

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
_DAY_SECONDS, _SHORT_DAY_SECONDS = 1200.0, 300.0
_SEEDS = 2
_OBJECTIVE_RATIO = 0.99
"""Share of first tokens within 1 s that every region wants."""
_LEAST_OF_FLOOR = 0.75
"""Where the search begins, over the fluid floor: an engine takes a little more for a while."""
_MOST_OVER_FLOOR = 1.15
_STEPS = 200
_MOST_ENGINES = 12
"""In a region, where the search for static provisioning gives up."""


def fluid_floor(day_seconds: float) -> float:
    """The peak of the world's total demand, in engines."""
    spec = load_scenario(_SCENARIO).spec
    stretch = _stretch(spec, day_seconds)
    curves = [
        (
            region.rate or 0.0,
            DayCurve(day_seconds, (region.peak_at or 0.0) * stretch, region.peak_to_trough or 1.0),
        )
        for region in spec.regions.values()
    ]
    at = (day_seconds * step / _STEPS for step in range(_STEPS))
    peak = max(sum(rate * curve.ratio(t) for rate, curve in curves) for t in at)
    return peak / _ENGINE_CHATS_PER_SECOND


def gpu_hours(campaign: Campaign) -> Section:
    """Search for the smallest numbers of engines that serve every region in time."""
    day_seconds = _SHORT_DAY_SECONDS if campaign.effort.short else _DAY_SECONDS
    day, floor = _day(day_seconds), fluid_floor(day_seconds)
    rows: list[tuple[str, ...]] = []
    found = _fixed(campaign, day)
    fixed = {name: engines or _MOST_ENGINES for name, engines in found.items()}
    unsized = [name for name, engines in found.items() if engines is None]
    apart = campaign.compare(_study((*day, *_engines(fixed), *cut_off(*REGIONS))))
    words = f"apart ({', '.join(unsized)}: not found)" if unsized else "apart"
    rows.append(_row(words, fixed, apart))
    reached: int | None = None
    for total in range(ceil(_LEAST_OF_FLOOR * floor), sum(fixed.values()) + 1):
        engines = _shares(total, fixed)
        together = campaign.compare(_study((*day, *_engines(engines))))
        rows.append(_row("federated", engines, together))
        if min(_attainments(together).values()) >= _OBJECTIVE_RATIO:
            reached = total
            break
    static = None if unsized else sum(fixed.values())
    return _written(floor, static, rows, reached, day_seconds)


def _fixed(campaign: Campaign, day: Changes) -> dict[str, int | None]:
    """The smallest number of engines with which each region serves itself in time.

    None where not even the most engines tried are enough. Fewer than the mean rate asks for need
    not be tried: queues would only grow.
    """
    fixed: dict[str, int] = {}
    rates = (region.rate or 0.0 for region in load_scenario(_SCENARIO).spec.regions.values())
    engines = ceil(min(rates) / _ENGINE_CHATS_PER_SECOND) - 1
    while len(fixed) < len(REGIONS) and engines < _MOST_ENGINES:
        engines += 1
        everywhere = _engines(dict.fromkeys(REGIONS, engines))
        found = _attainments(campaign.compare(_study((*day, *everywhere, *cut_off(*REGIONS)))))
        for name in REGIONS:
            if found[name] >= _OBJECTIVE_RATIO:
                fixed.setdefault(name, engines)
    return {name: fixed.get(name) for name in REGIONS}


def _written(
    floor: float,
    static: int | None,
    rows: list[tuple[str, ...]],
    reached: int | None,
    day_seconds: float,
) -> Section:
    draft = Draft("GPU-hours of a day")
    draft.say(
        f"""A day of {day_seconds / 60:g} minutes with each region's rate following the sun. The
        objective is that in every region {_OBJECTIVE_RATIO:.0%} of first tokens come within 1 s.
        Apart, all ways between regions are cut, and each has the smallest number of engines that
        meets it: static provisioning for its own peak. Federated, the same policy has the smallest
        number in all that meets it in every region. The fluid floor is the peak of the world's
        total demand at {_ENGINE_CHATS_PER_SECOND:g} chats/s an engine, {floor:.1f} engines.
        What an engine takes is written by hand, and the floor is no better than
        that."""
    )
    draft.table(Table(("", "engines", "us/asia/eu", *REGIONS, "GPU-hours"), tuple(rows)))
    if reached is None:
        result, met = "no number up to the static one", False
    elif static is None:
        over = reached / floor
        result = f"{reached} engines, {over:.2f} x the floor; static provisioning not found"
        met = over <= _MOST_OVER_FLOOR
    else:
        over = reached / floor
        result = (
            f"{reached} engines, {over:.2f} x the floor; {reached / static:.0%} of {static} apart"
        )
        met = over <= _MOST_OVER_FLOOR
    draft.say(f"Reached: {result}. The paper: 9 federated for 12 region-local, 75 %.")
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
