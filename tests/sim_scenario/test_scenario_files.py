from itertools import islice
from pathlib import Path

import pytest

from heliostat_sim.scenario.scenario import load_scenario, scenario_names
from heliostat_sim.scenario.workload_spec import TraceWorkload
from heliostat_sim.workload.session import WorkloadError

EXPECTED = {
    "arena", "azure", "bursts", "diurnal", "engine-lost", "hot-prefix-storm", "link-cut",
    "mixed-tree", "mooncake", "paper-diurnal", "pushing", "region-lost", "scale", "skew",
    "slow-engine", "tree-of-thoughts", "wildchat",
}  # fmt: skip
NAMES = scenario_names()


def test_all_scenarios_come_with_the_package() -> None:
    """The files are found as the package's data."""
    assert set(NAMES) >= EXPECTED


@pytest.mark.parametrize("name", NAMES)
def test_scenarios_make_a_world(name: str) -> None:
    """Each file is right, its short form too, and both make settings."""
    scenario = load_scenario(name)
    short = scenario.shortened()
    assert scenario.description
    assert short.settings().duration_seconds <= 30 < scenario.settings().duration_seconds
    for settings in (scenario.settings(), short.settings()):
        pairs = len(settings.regions) * (len(settings.regions) - 1) // 2
        assert len(settings.round_trips) == pairs
        assert all(fault.at_seconds < settings.duration_seconds for fault in settings.faults)


@pytest.mark.parametrize("name", NAMES)
def test_short_forms_ask_for_something(name: str) -> None:
    """Every region of a short form asks for something, in blocks of the engines' size."""
    scenario = load_scenario(name).shortened()
    if isinstance(scenario.spec.workload, TraceWorkload):
        with pytest.raises(WorkloadError, match=r"give the folder .* --traces"):
            scenario.demand(1)
        return
    settings, demand = scenario.settings(), scenario.demand(1)
    regions = {client.region for client in demand.closed}
    sessions = [next(client.sessions) for client in demand.closed]
    for arrival in islice(demand.arrivals, 2000):
        regions.add(arrival.region)
        sessions.append(arrival.session)
    assert regions == {region.name for region in settings.regions}
    for session in sessions[:20]:
        (ask,) = session.start()
        assert ask.chain.block_tokens == settings.profile.block_tokens
        assert ask.prompt_tokens + ask.output_tokens < settings.profile.kv_tokens


def test_published_scenarios_have_the_published_clients() -> None:
    """Clients and engines are those of SkyLB's evaluation."""
    published = {
        "arena": ([80, 80, 80], 8),
        "wildchat": ([40, 30, 30], 8),
        "tree-of-thoughts": ([40, 20, 20], 12),
        "mixed-tree": ([2, 20, 20], 12),
        "pushing": ([30], 4),
        "paper-diurnal": ([120, 40, 40], 9),
    }
    for name, (clients, engines) in published.items():
        spec = load_scenario(name).spec
        assert [region.clients for region in spec.regions.values()] == clients
        assert sum(spec.engines_by_region().values()) == engines


def test_scale_has_all_its_regions() -> None:
    """Fifty regions of two hundred engines, none further apart than the circle allows."""
    settings = load_scenario("scale").settings()
    assert len(settings.regions) == 50
    assert sum(region.engines for region in settings.regions) == 10_000
    assert settings.regions[0].name == "r-01"
    assert max(settings.round_trips.values()) == pytest.approx(0.2)
    assert settings.round_trips[frozenset(("r-01", "r-50"))] == pytest.approx(0.008)


def test_traces_are_played_from_the_folder(tmp_path: Path) -> None:
    """A trace comes from the folder that is given, at the scenario's pace and up to its end."""
    (tmp_path / "azure2023_conv.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46,374,44\n2023-11-16 18:15:56,396,109\n2023-11-16 18:16:46,10,10\n"
    )
    scenario = load_scenario("azure").with_changes({"workload.timeScale": 2.0, "duration": "20s"})
    assert [arrival.at for arrival in scenario.demand(1, tmp_path).arrivals] == [0.0, 5.0]
    with pytest.raises(WorkloadError, match="mooncake_conversation"):
        load_scenario("mooncake").demand(1, tmp_path)
