"""The goals against SkyLB on one workload, and how a comparison meets them."""

from dataclasses import dataclass, replace

from heliostat_sim.evaluation import Comparison, RatioEstimate, measure_named
from heliostat_sim.evaluation.comparison import show_ratio
from heliostat_sim.evaluation.measures import duration
from heliostat_sim.findings.campaign import means
from heliostat_sim.findings.rivals import OURS, SKYLB
from heliostat_sim.findings.section import Goal

_GAIN, _OF_BOUND, _LEAST_LIMIT = 1.2, 0.93, 0.98
_LEAST_HIT, _MOST_TTFT, _QUEUED_RATIO, _MOST_LATENCY = 0.95, 0.5, 4.0, 1.05


@dataclass(frozen=True, slots=True)
class Yardsticks:
    """What a workload's goals are measured with, beside SkyLB."""

    bound_ratio: float
    """The bound on throughput, over SkyLB's throughput."""
    unloaded_ttft_seconds: float
    """P90 time to first token with one client in each region."""


def paper_goals(key: str, words: str, comparison: Comparison, sticks: Yardsticks) -> list[Goal]:
    """The goals on one of SkyLB's workloads."""
    throughput = ratio_of(comparison, "throughput_tokens_per_second")
    target = min(_GAIN, _OF_BOUND * sticks.bound_ratio)
    least = f"at least {target:.2f} x SkyLB's"
    binding = least if target == _GAIN else f"{least} (0.93 of the bound)"
    return [
        Goal(
            f"{key}-throughput",
            f"{words}: throughput",
            f"{binding}, lower limit at least 0.98",
            show_ratio(throughput),
            _at_least(throughput, target) and _limit(throughput) >= _LEAST_LIMIT,
            established=_established(throughput, target, lower=False),
        ),
        _ratio_goal(key, words, comparison, "hit_ratio", _LEAST_HIT, lower=False),
        _ttft_goal(key, words, comparison, sticks),
        *(
            _ratio_goal(key, words, comparison, field, _MOST_LATENCY, lower=True)
            for field in ("time_per_output_token_p90_seconds", "e2e_p90_seconds")
        ),
    ]


def overload_goals(
    key: str, words: str, comparison: Comparison, ceiling_ratio: float
) -> list[Goal]:
    """The goals where a region or an engine has more to do than it can.

    `ceiling_ratio` is all that could be served with nothing in the way, over SkyLB's throughput.
    """
    waits = _ratio_goal(key, words, comparison, "ttft_p90_seconds", _MOST_TTFT, lower=True)
    goal = _ratio_goal(key, words, comparison, "throughput_tokens_per_second", _GAIN, lower=False)
    target = f"{goal.target}; the ceiling is {ceiling_ratio:.2f} x"
    return [waits, replace(goal, target=target)]


def ratio_of(comparison: Comparison, field: str) -> RatioEstimate | None:
    """Heliostat's ratio to SkyLB."""
    return comparison.ratio(OURS, measure_named(field))


def _ttft_goal(key: str, words: str, comparison: Comparison, sticks: Yardsticks) -> Goal:
    theirs = means(comparison, "ttft_p90_seconds").get(SKYLB, 0.0)
    goal = _ratio_goal(key, words, comparison, "ttft_p90_seconds", _MOST_TTFT, lower=True)
    if theirs > _QUEUED_RATIO * sticks.unloaded_ttft_seconds:
        return goal
    unloaded, most = duration(sticks.unloaded_ttft_seconds), f"{_QUEUED_RATIO:g}"
    where = f"{goal.target}, where SkyLB's is above {most} x the unloaded {unloaded}: it is not"
    return Goal(goal.key, goal.words, where, goal.reached, met=None, applies=False)


def _ratio_goal(
    key: str, words: str, comparison: Comparison, field: str, target: float, *, lower: bool
) -> Goal:
    measure, estimate = measure_named(field), ratio_of(comparison, field)
    met = _at_most(estimate, target) if lower else _at_least(estimate, target)
    return Goal(
        f"{key}-{field.removesuffix('_seconds').replace('_', '-')}",
        f"{words}: {measure.label}",
        f"at {'most' if lower else 'least'} {target:g} x SkyLB's",
        show_ratio(estimate),
        met if estimate is not None else None,
        established=_established(estimate, target, lower=lower),
    )


def _at_least(estimate: RatioEstimate | None, target: float) -> bool:
    return estimate is not None and estimate.ratio >= target


def _at_most(estimate: RatioEstimate | None, target: float) -> bool:
    return estimate is not None and estimate.ratio <= target


def _established(estimate: RatioEstimate | None, target: float, *, lower: bool) -> bool:
    """Whether the limit nearer to missing the target reaches it too; of one seed, never false."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return True
    return estimate.high <= target if lower else estimate.low >= target


def _limit(estimate: RatioEstimate | None) -> float:
    """The lower limit; of one seed the ratio itself."""
    if estimate is None:
        return 0.0
    return estimate.ratio if estimate.low is None else estimate.low
