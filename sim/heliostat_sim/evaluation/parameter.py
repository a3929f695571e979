"""One parameter of a scenario over several values: how each measure follows it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from heliostat_sim.evaluation.comparison import Comparison, compare
from heliostat_sim.evaluation.measures import ABSENT, Measure
from heliostat_sim.evaluation.plot import Axis, Bars, Line, bar_chart, line_chart
from heliostat_sim.evaluation.report import Report
from heliostat_sim.evaluation.sweep import Job
from heliostat_sim.evaluation.table import Table

_NUMBER = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?)(ms|s|m|h|%|/s|/m|/h|)")
_LOGARITHMIC_FROM = 30.0
"""Values that span more than this factor get a logarithmic axis."""


@dataclass(frozen=True, slots=True)
class ParameterSweep:
    """A comparison of policies for each value of one parameter."""

    scenario: str
    parameter: str
    """Its dotted name."""
    values: tuple[str, ...]
    """As in a scenario file, with their units."""
    comparisons: tuple[Comparison, ...]
    """One for each value."""

    @property
    def policies(self) -> tuple[str, ...]:
        """In the order of the columns."""
        return tuple(self.comparisons[0].reports)

    def table(self, measure: Measure) -> Table:
        """A row for each value, a column for each policy: means over the seeds."""
        rows = []
        for value, comparison in zip(self.values, self.comparisons, strict=True):
            spreads = [comparison.spread(policy, measure) for policy in self.policies]
            shown = [measure.show(s.mean) if s else ABSENT for s in spreads]
            rows.append((value, *shown))
        return Table((self.parameter, *self.policies), tuple(rows), measure.label)

    def chart(self, measure: Measure, title: str = "", x_label: str = "") -> str:
        """SVG: lines with the spread over seeds as bands, or bars where values are no numbers."""
        title = title or f"{self.scenario}: {measure.label}"
        y = Axis(measure.axis, logarithmic=_wide(self._means(measure)))
        numbers = numbers_of(self.values)
        if numbers is None:
            bars = [self._bars(policy, measure) for policy in self.policies]
            return bar_chart(title, y, self.values, bars)
        places, unit = numbers
        label = f"{self.parameter} ({unit})" if unit else self.parameter
        x = Axis(x_label or label, logarithmic=_wide(places))
        lines = [self._line(policy, measure, places) for policy in self.policies]
        return line_chart(title, x, y, lines)

    def to_json(self) -> dict[str, object]:
        """All reports and ratios as plain data."""
        return {
            "scenario": self.scenario,
            "parameter": self.parameter,
            "points": [
                {"value": value, **comparison.to_json()}
                for value, comparison in zip(self.values, self.comparisons, strict=True)
            ],
        }

    def _line(self, policy: str, measure: Measure, places: Sequence[float]) -> Line:
        found = [
            (place, spread)
            for place, comparison in zip(places, self.comparisons, strict=True)
            if (spread := comparison.spread(policy, measure)) is not None
        ]
        found.sort(key=lambda point: point[0])
        points = tuple((x, spread.mean) for x, spread in found)
        band = tuple((x, spread.least, spread.greatest) for x, spread in found)
        return Line(policy, points, band)

    def _bars(self, policy: str, measure: Measure) -> Bars:
        spreads = [comparison.spread(policy, measure) for comparison in self.comparisons]
        return Bars(
            policy,
            tuple(spread.mean if spread else None for spread in spreads),
            tuple((spread.least, spread.greatest) if spread else None for spread in spreads),
        )

    def _means(self, measure: Measure) -> list[float]:
        spreads = [c.spread(policy, measure) for c in self.comparisons for policy in self.policies]
        return [spread.mean for spread in spreads if spread is not None]


def parameter_jobs(jobs: Iterable[Job], parameter: str, value: str) -> list[Job]:
    """The same jobs with one parameter set."""
    return [replace(job, changes=(*job.changes, f"{parameter}={value}")) for job in jobs]


def sweep_of(
    parameter: str,
    values: Sequence[str],
    jobs: Iterable[Job],
    results: Mapping[Job, Report],
    reference: str,
) -> ParameterSweep:
    """Put the results of `parameter_jobs(jobs, parameter, value)` for all values in order."""
    jobs = list(jobs)
    comparisons = tuple(
        compare((results[job] for job in parameter_jobs(jobs, parameter, value)), reference)
        for value in values
    )
    return ParameterSweep(comparisons[0].scenario, parameter, tuple(values), comparisons)


def numbers_of(values: Iterable[str]) -> tuple[list[float], str] | None:
    """The numbers and their common unit; None if they are no numbers, or of several units."""
    matches = [_NUMBER.fullmatch(value) for value in values]
    numbers = [float(match[1]) for match in matches if match]
    units = {match[2] for match in matches if match}
    return (numbers, units.pop()) if len(numbers) == len(matches) and len(units) == 1 else None


def _wide(values: Sequence[float]) -> bool:
    return bool(values) and min(values) > 0 and max(values) / min(values) > _LOGARITHMIC_FROM
