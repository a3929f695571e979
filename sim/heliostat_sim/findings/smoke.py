"""A quick guard: Heliostat's ratios to SkyLB in a few reduced scenarios, against recorded ones.

The runs are deterministic, so the tolerance is not for noise. It leaves room for changes that cost
a little here and bring more elsewhere; whoever needs more room records anew, and shows it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from heliostat_sim.evaluation import Comparison, Table, measure_named
from heliostat_sim.evaluation.measures import Better
from heliostat_sim.findings.campaign import Campaign, Study
from heliostat_sim.findings.rivals import OURS, PAIR

FILE_NAME = "ratios.json"
SEEDS = 3
_TOLERANCES = {
    "throughput_tokens_per_second": 0.02,
    "hit_ratio": 0.03,
    "ttft_p90_seconds": 0.15,
    "e2e_p90_seconds": 0.05,
}
"""What is watched, and how far it may fall behind when it is recorded."""
_SCENARIOS: Mapping[str, tuple[str, ...]] = {
    "arena": ("duration=180s",),
    "wildchat": ("duration=200s",),
    "tree-of-thoughts": ("duration=150s",),
    "skew": ("duration=180s",),
    "hot-prefix-storm": (
        *("duration=180s", "workload.storms.0.at=40s", "workload.storms.1.at=110s"),
    ),
}

Ratios = dict[str, dict[str, float]]
"""By scenario and field of the report: Heliostat's value over SkyLB's."""


class RatiosError(Exception):
    """The recorded ratios cannot be read."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded ratio."""

    ratio: float
    tolerance_ratio: float

    def behind(self, field: str, ratio: float) -> bool:
        """Whether a ratio is worse than the recorded one by more than the tolerance."""
        if measure_named(field).better is Better.LOWER:
            return ratio > self.ratio * (1 + self.tolerance_ratio)
        return ratio < self.ratio * (1 - self.tolerance_ratio)


def measured_ratios(campaign: Campaign) -> Ratios:
    """Run the reduced scenarios."""
    studies = [Study(name, PAIR, changes, seeds=SEEDS) for name, changes in _SCENARIOS.items()]
    found = campaign.compare_all(studies)
    return {name: _ratios(comparison) for name, comparison in zip(_SCENARIOS, found, strict=True)}


def record(ratios: Ratios, path: Path) -> None:
    """Write ratios down as those to hold."""
    plain = {
        name: {
            field: {"ratio": round(ratio, 4), "tolerance": _TOLERANCES[field]}
            for field, ratio in by_field.items()
        }
        for name, by_field in ratios.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")


def problems(ratios: Ratios, path: Path) -> list[str]:
    """Where Heliostat has fallen behind, a line each. Raises RatiosError."""
    recorded = read_recorded(path)
    lines = []
    for name, by_field in recorded.items():
        for field, known in by_field.items():
            ratio = ratios.get(name, {}).get(field)
            where = f"{name}: {measure_named(field).label}"
            if ratio is None:
                lines.append(f"{where}: not measured, {known.ratio:.3f} x SkyLB's recorded")
            elif known.behind(field, ratio):
                lines.append(
                    f"{where}: {ratio:.3f} x SkyLB's, recorded {known.ratio:.3f}"
                    f" with a tolerance of {known.tolerance_ratio:.0%}"
                )
    return lines


def held_table(ratios: Ratios, path: Path) -> Table:
    """Each recorded ratio beside the one now. Raises RatiosError."""
    rows = tuple(
        (
            f"{name}: {measure_named(field).label}",
            f"{ratios[name][field]:.3f}",
            f"{known.ratio:.3f}",
            f"{known.tolerance_ratio:.0%}",
        )
        for name, by_field in read_recorded(path).items()
        for field, known in by_field.items()
    )
    return Table(("times SkyLB's", "now", "recorded", "tolerance"), rows)


def read_recorded(path: Path) -> dict[str, dict[str, Recorded]]:
    """The recorded ratios, by scenario and field. Raises RatiosError."""
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: {
                measure_named(field).field: Recorded(entry["ratio"], entry["tolerance"])
                for field, entry in by_field.items()
            }
            for name, by_field in plain.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RatiosError(f"{path}: {error}") from error


def _ratios(comparison: Comparison) -> dict[str, float]:
    estimates = {field: comparison.ratio(OURS, measure_named(field)) for field in _TOLERANCES}
    return {field: estimate.ratio for field, estimate in estimates.items() if estimate}
