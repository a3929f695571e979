"""Policies side by side: means over seeds, and ratios to a reference paired by seed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from heliostat_sim.evaluation.measures import ABSENT, HEADLINES, MEASURES, Better, Measure
from heliostat_sim.evaluation.report import Report
from heliostat_sim.evaluation.statistics import RatioEstimate, Spread, paired_ratio, spread
from heliostat_sim.evaluation.table import Table


@dataclass(frozen=True, slots=True)
class Comparison:
    """Reports of one scenario by policy and seed, and the policy that others are held against."""

    scenario: str
    reference: str
    reports: Mapping[str, Mapping[int, Report]]
    """Policy -> seed -> report, in the order of the columns."""

    def spread(self, policy: str, measure: Measure) -> Spread | None:
        """What a measure came to over the seeds."""
        return spread(list(self._values(policy, measure).values()))

    def ratio(self, policy: str, measure: Measure) -> RatioEstimate | None:
        """How many times the reference's value the policy's is; None if that has no meaning."""
        return paired_ratio(self._values(policy, measure), self._values(self.reference, measure))

    def values_table(self, measures: Sequence[Measure] = MEASURES) -> Table:
        """A row for each measure, a column for each policy: means over the seeds."""
        rows = []
        for measure in measures:
            spreads = [self.spread(policy, measure) for policy in self.reports]
            rows.append((measure.label, *(measure.show(s.mean if s else None) for s in spreads)))
        return Table(("", *self.reports), tuple(rows), f"{self.scenario}, {self._seeds()}")

    def ratios_table(self, measures: Sequence[Measure] = HEADLINES) -> Table:
        """A row for each measure that can be better or worse, a column for each other policy."""
        others = [policy for policy in self.reports if policy != self.reference]
        rows = [
            (measure.label, *(show_ratio(self.ratio(policy, measure)) for policy in others))
            for measure in measures
            if measure.better is not Better.NEITHER
        ]
        return Table(
            ("", *others), tuple(rows), f"Times {self.reference}'s value, with 95 % limits"
        )

    def to_json(self) -> dict[str, object]:
        """All reports and ratios as plain data."""
        return {
            "scenario": self.scenario,
            "reference": self.reference,
            "policies": {
                policy: {
                    "ratios": self._ratios_json(policy),
                    "reports": [report.to_json() for report in by_seed.values()],
                }
                for policy, by_seed in self.reports.items()
            },
        }

    def _ratios_json(self, policy: str) -> dict[str, object]:
        compared = [measure for measure in MEASURES if measure.better is not Better.NEITHER]
        ratios = {measure.field: self.ratio(policy, measure) for measure in compared}
        return {name: _ratio_json(ratio) for name, ratio in ratios.items() if ratio}

    def _values(self, policy: str, measure: Measure) -> dict[int, float | None]:
        return {seed: measure.value(report) for seed, report in self.reports[policy].items()}

    def _seeds(self) -> str:
        count = len(next(iter(self.reports.values()), {}))
        return "1 seed" if count == 1 else f"mean of {count} seeds"


def compare(reports: Iterable[Report], reference: str) -> Comparison:
    """Put reports of one scenario side by side, policies in the order in which they come."""
    by_policy: dict[str, dict[int, Report]] = {}
    scenario = ""
    for report in reports:
        by_policy.setdefault(report.policy, {})[report.seed] = report
        scenario = report.scenario
    if reference not in by_policy:
        raise ValueError(f"there is no report of {reference} to compare with")
    return Comparison(scenario, reference, by_policy)


def show_ratio(estimate: RatioEstimate | None) -> str:
    """A ratio with its limits, as in `1.23x (1.20-1.26)`."""
    if estimate is None:
        return ABSENT
    text = f"{_digits(estimate.ratio)}x"
    if estimate.low is None or estimate.high is None:
        return text
    return f"{text} ({_digits(estimate.low)}-{_digits(estimate.high)})"


def _digits(ratio: float) -> str:
    return f"{ratio:.2f}" if 0.1 <= ratio < 100 else f"{ratio:.2g}"


def _ratio_json(estimate: RatioEstimate) -> dict[str, float | None]:
    limits = (estimate.low, estimate.high)
    low, high = (None if limit is None else round(limit, 6) for limit in limits)
    return {"ratio": round(estimate.ratio, 6), "low": low, "high": high}
