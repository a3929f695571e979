"""Who exchanges states with whom, where there are many regions."""

from heliostat_sim.scenario.scenario import load_scenario
from heliostat_sim.simulation import run_world
from heliostat_sim.world.network import Network


def messages(most: int | None) -> int:
    """State messages of a short run of 18 regions that have about so many peers each."""
    changes: dict[str, object] = {"regions.hot.count": 6, "regions.cool.count": 12}
    if most is not None:
        changes["signals.mostPeers"] = most
    scenario = load_scenario("many-regions").shortened().with_changes(changes)
    records = run_world(scenario.settings(), scenario.demand(1), "heliostat", 1)
    return records.messages


def test_few_peers_for_each_are_few_messages() -> None:
    """With fewer peers a region tells less, however many regions there are."""
    assert messages(4) < 0.7 * messages(None)


def test_partners_are_the_nearest_and_some_of_all_distances() -> None:
    """Half of a region's partners are its nearest, the rest lie at all distances."""
    names = [f"r{number}" for number in range(41)]
    trips = {
        frozenset((one, other)): 0.01 * (j - i)
        for i, one in enumerate(names)
        for j, other in enumerate(names)
        if j > i
    }
    chosen = Network(trips, 0.003).partners("r0", names[1:], 8)
    assert chosen == {"r1", "r2", "r3", "r4", "r5", "r14", "r23", "r32"}
    assert Network(trips, 0.003).partners("r0", names[1:], 1) == {"r1"}
    assert Network(trips, 0.003).partners("r0", names[1:3], 8) == {"r1", "r2"}
