import json
from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from heliostat_sim.evaluation import (
    Job,
    ParameterSweep,
    Report,
    compare,
    measure_named,
    parameter_jobs,
    sweep_of,
)
from heliostat_sim.evaluation.comparison import show_ratio
from heliostat_sim.evaluation.parameter import numbers_of

P90 = measure_named("ttft_p90_seconds")
MakeReport = Callable[..., Report]


def reports(a_report: MakeReport) -> list[Report]:
    times = {"skylb": (1.0, 2.0), "heliostat": (0.5, 1.0)}
    return [
        a_report(policy, seed, ttft_p90_seconds=seconds, preemptions=4)
        for policy, by_seed in times.items()
        for seed, seconds in enumerate(by_seed)
    ]


def test_policies_stand_side_by_side(a_report: MakeReport) -> None:
    """A comparison shows the mean of each policy, and the others' ratios to the reference."""
    comparison = compare(reports(a_report), "skylb")
    assert comparison.values_table([P90]).rows == (("TTFT p90", "1.50 s", "750 ms"),)
    ratios = comparison.ratios_table([P90, measure_named("messages")])
    assert ratios.header == ("", "heliostat")
    assert ratios.rows == (("TTFT p90", "0.50x (0.50-0.50)"),)


def test_a_comparison_needs_its_reference(a_report: MakeReport) -> None:
    """There is no comparison with a policy that did not run."""
    with pytest.raises(ValueError, match="no report of gke"):
        compare(reports(a_report), "gke")


def test_a_comparison_is_json(a_report: MakeReport) -> None:
    """The JSON of a comparison holds the ratios that have a meaning, and every report."""
    plain = json.loads(json.dumps(compare(reports(a_report), "skylb").to_json()))
    heliostat = plain["policies"]["heliostat"]
    assert heliostat["ratios"]["ttft_p90_seconds"] == {"ratio": 0.5, "low": 0.5, "high": 0.5}
    assert "hit_ratio" not in heliostat["ratios"]
    assert [report["seed"] for report in heliostat["reports"]] == [0, 1]


def test_one_seed_shows_a_bare_ratio(a_report: MakeReport) -> None:
    """Without a second seed a ratio has no limits to show, and without values it is a dash."""
    comparison = compare(reports(a_report)[::2], "skylb")
    assert show_ratio(comparison.ratio("heliostat", P90)) == "0.50x"
    assert show_ratio(None) == "-"
    assert comparison.values_table([P90]).title == "arena, 1 seed"


def sweep_with(a_report: MakeReport, values: list[str]) -> ParameterSweep:
    jobs = [Job("arena", policy, seed) for policy in ("skylb", "heliostat") for seed in (0, 1)]
    results = {
        job: a_report(job.policy, job.seed, ttft_p90_seconds=1.0 + place + job.seed)
        for place, value in enumerate(values)
        for job in parameter_jobs(jobs, "clients", value)
    }
    return sweep_of("clients", values, jobs, results, "skylb")


def test_a_sweep_has_a_row_for_each_value(a_report: MakeReport) -> None:
    """A sweep tells how a measure of each policy follows the parameter."""
    sweep = sweep_with(a_report, ["10", "20"])
    table = sweep.table(P90)
    assert table.header == ("clients", "skylb", "heliostat")
    assert table.rows == (("10", "1.50 s", "1.50 s"), ("20", "2.50 s", "2.50 s"))
    plain = json.loads(json.dumps(sweep.to_json()))
    assert [point["value"] for point in plain["points"]] == ["10", "20"]


@pytest.mark.parametrize(("values", "tag"), [(["10", "20"], "circle"), (["near", "far"], "rect")])
def test_a_sweep_is_lines_or_bars(a_report: MakeReport, values: list[str], tag: str) -> None:
    """Numbers are drawn as lines, names as bars."""
    root = ElementTree.fromstring(sweep_with(a_report, values).chart(P90))  # noqa: S314 - our own
    assert len(list(root.iter(f"{{http://www.w3.org/2000/svg}}{tag}"))) >= 4


def test_numbers_have_one_unit() -> None:
    """Values with a common unit are numbers of that unit, others are names."""
    assert numbers_of(["2.5s", "10s"]) == ([2.5, 10.0], "s")
    assert numbers_of(["1", "-2"]) == ([1.0, -2.0], "")
    assert numbers_of(["1s", "2m"]) is None
    assert numbers_of(["near", "2"]) is None
