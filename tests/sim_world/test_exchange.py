"""What regions tell each other: with whom, what of their prefixes, and when one is lost."""

from dataclasses import replace

import pytest

from heliostat_routing.commands import Command
from heliostat_routing.events import Event, PeerLost
from heliostat_sim.policies.registry import PolicyName, factory
from heliostat_sim.scenario.scenario import load_scenario
from heliostat_sim.simulation import run_world
from heliostat_sim.world.heliostat import HeliostatBalancer, Observer
from heliostat_sim.world.network import Network
from heliostat_sim.world.settings import Fault, FaultKind, RegionSettings, SignalSettings
from heliostat_sim.world.world import World
from tests.sim_world.small_world import Once, arrivals, settings_of


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


def watched(
    faults: tuple[Fault, ...] = (), gateways: int = 1, *, heads: bool = False
) -> tuple[World, list[tuple[float, str, PeerLost]]]:
    """Two regions, of which one asks for the same prompts again, and who lost whom at what time."""
    lost: list[tuple[float, str, PeerLost]] = []

    def observer_of(name: str) -> Observer:
        def observe(now: float, event: Event, _commands: list[Command]) -> None:
            if isinstance(event, PeerLost):
                lost.append((now, name, event))

        return observe

    regions = tuple(RegionSettings(name, 1, gateways) for name in ("us", "eu"))
    settings = settings_of({}, regions=regions, faults=faults, duration_seconds=30.0)
    settings = replace(settings, signals=SignalSettings(heads=heads))
    demand = arrivals(*((1.0 + n, "us", Once(n % 2, prompt_tokens=400)) for n in range(8)))
    made = factory(PolicyName.HELIOSTAT, settings, observer_of)
    return World(settings, demand, made, seed=1), lost


def test_a_peer_that_is_cut_off_is_lost_and_found_again() -> None:
    """Each end of a cut link loses the other within 0.8 s, once, and not when it is back."""
    world, lost = watched((Fault(FaultKind.LINK, 10.0, 5.0, "us", other_region="eu"),))
    world.run()
    assert sorted(event.region for _, _, event in lost) == ["eu", "us"]
    assert all(10.5 < at <= 10.8 for at, _, _ in lost)
    for gateway in world.all_gateways():
        assert isinstance(gateway.balancer, HeliostatBalancer)
        (view,) = gateway.balancer.router.peer_views(world.loop.now)
        assert view.usable


@pytest.mark.parametrize("gateways", [1, 2])
def test_peers_that_are_heard_are_never_lost(gateways: int) -> None:
    """Without a fault no peer is lost, nor is one of whose two gateways one dies."""
    died = Fault(FaultKind.POD, 10.0, 5.0, "eu", gateway=1)
    world, lost = watched((died,) if gateways > 1 else (), gateways)
    world.run()
    assert lost == []


def test_peers_know_the_hot_prefixes_of_a_region() -> None:
    """Where states tell heads, what is asked for again in one region is known in the other."""
    world, _ = watched(heads=True)
    world.run()
    us, eu = (gateway.balancer for gateway in world.all_gateways())
    assert isinstance(us, HeliostatBalancer)
    assert isinstance(eu, HeliostatBalancer)
    heads = us.router.heads()
    assert heads
    assert eu.router._books.peers.by_region["us"].heads == frozenset(heads)
