"""The tables of policies, and the flag above the bound."""

from dataclasses import replace

from heliostat_sim.engine import PROFILES
from heliostat_sim.evaluation import Comparison, Report, Terms, compare, make_report
from heliostat_sim.findings.rivals import policies_table
from heliostat_sim.findings.versus import above_bound
from heliostat_sim.policies.bound import Bound
from heliostat_sim.world.records import Records
from heliostat_sim.world.settings import RegionSettings, WorldSettings

SETTINGS = WorldSettings((RegionSettings("us", 1),), PROFILES["l4-llama-8b"], {})


def report(policy: str, seed: int, throughput: float) -> Report:
    """A report of a throughput alone."""
    empty = make_report(
        Records(), SETTINGS, scenario="arena", policy=policy, seed=seed, terms=Terms()
    )
    return replace(empty, throughput_tokens_per_second=throughput)


def comparison() -> Comparison:
    """SkyLB with two seeds, the clairvoyant with one."""
    reports = [report("skylb", 0, 90.0), report("skylb", 1, 120.0), report("clairvoyant", 0, 105.0)]
    return compare(reports, "skylb")


def test_fewer_seeds_are_told_in_the_row() -> None:
    """Only a contender with fewer seeds than the table has their number by its name."""
    table = policies_table(comparison(), "Arena", more_fields=("still_open",))
    assert [row[0] for row in table.rows] == ["skylb", "clairvoyant (1 seed)"]
    assert table.header[-1] == "open at the end"


def test_who_exceeds_the_bound_is_named() -> None:
    """The seed that the bound is computed for counts, and no other."""
    assert above_bound(comparison(), Bound(1.0, 100.0, 10.0, 1.0, 1.0, 1.0)) == "clairvoyant 1.050x"
    assert above_bound(comparison(), Bound(1.0, 105.0, 10.0, 1.0, 1.0, 1.0)) == ""
