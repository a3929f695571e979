"""Several gateways of one region: they keep one view, and lose nothing but their own streams."""

from dataclasses import replace

import pytest

from heliostat_sim.policies.registry import PolicyName
from heliostat_sim.world.heliostat import HeliostatBalancer
from heliostat_sim.world.request import Ending
from heliostat_sim.world.settings import Fault, FaultKind, RegionSettings, SignalSettings
from heliostat_sim.world.world import World
from tests.sim_world.small_world import Once, arrivals, check_books, settings_of, world_of


def region_of(
    gateways: int, *, faults: tuple[Fault, ...] = (), relays: bool = True
) -> tuple[World, list[Once]]:
    """One region near what its three engines can take, its load in groups of like prompts."""
    sessions = [Once(name % 9, prompt_tokens=400) for name in range(240)]
    settings = settings_of({}, regions=(RegionSettings("us", 3, gateways),), round_trips={})
    settings = replace(settings, faults=faults, signals=SignalSettings(relays=relays))
    demand = arrivals(*((0.2 * n, "us", session) for n, session in enumerate(sessions)))
    return world_of(settings, demand, PolicyName.HELIOSTAT), sessions


def balancers(world: World) -> list[HeliostatBalancer]:
    """The routers that are up."""
    found = [gateway.balancer for gateway in world.all_gateways()]
    return [balancer for balancer in found if isinstance(balancer, HeliostatBalancer)]


def check_one_view(world: World) -> None:
    """A while after the last request, every router counts at each engine what is there: nothing."""
    for balancer in balancers(world):
        for engine in world.known_engines("us"):
            assert balancer.router.inflight(engine.address) == len(engine.requests) == 0


def mean_ttft_seconds(world: World) -> float:
    """The mean time to first token of what was served."""
    found = [r.ttft_seconds for r in world.records.requests if r.ttft_seconds is not None]
    return sum(found) / len(found)


def test_gateways_that_relay_serve_as_one_does() -> None:
    """Four gateways with one view are as fast as one, and faster than four that share nothing."""
    alone, together, apart = region_of(1), region_of(4), region_of(4, relays=False)
    for world, sessions in (alone, together, apart):
        world.run()
        check_books(world, sessions)
        assert all(session.answers for session in sessions)
    check_one_view(together[0])
    assert mean_ttft_seconds(together[0]) < 1.1 * mean_ttft_seconds(alone[0])
    assert mean_ttft_seconds(together[0]) < 0.9 * mean_ttft_seconds(apart[0])


def test_each_engine_is_scraped_by_one_gateway() -> None:
    """Every engine falls to exactly one of a region's gateways, and all hear of it."""
    world, _ = region_of(4)
    world.run()
    scraping = [address for b in balancers(world) for address in b._scraping]
    assert sorted(scraping) == ["us-0", "us-1", "us-2"]
    for balancer in balancers(world):
        (view,) = balancer.router.views(world.loop.now)
        assert all(endpoint.running_requests is not None for endpoint in view.endpoints)


@pytest.mark.parametrize("lasts_seconds", [0.3, 10.0])
def test_a_gateway_that_dies_takes_only_its_own_streams(lasts_seconds: float) -> None:
    """A pod that dies and joins late under load costs the streams through it, which are sent again;
    nothing else breaks, and in the end all routers have the same view again."""
    fault = Fault(FaultKind.POD, 15.0, lasts_seconds, "us", gateway=1)
    world, sessions = region_of(4, faults=(fault,))
    cut: list[int] = []
    gateway = world.all_gateways_of("us")[1]
    world.loop.at(15.0 - 1e-9, lambda: cut.append(len(gateway.open)))
    world.run()
    check_books(world, sessions)
    assert all(session.answers for session in sessions)
    assert {record.ending for record in world.records.requests} == {Ending.SERVED}
    again = sum(record.attempts for record in world.records.requests)
    assert 0 < cut[0] <= again <= cut[0] + 2  # and what was on its way to it
    assert gateway.alive
    assert len(balancers(world)) == 4
    check_one_view(world)


def test_a_gateway_that_joins_late_knows_what_the_others_know() -> None:
    """Soon after it has joined, a router counts at each engine what the others do, and knows the
    prompts that they know."""
    fault = Fault(FaultKind.POD, 15.0, 5.0, "us", gateway=1)
    world, _ = region_of(3, faults=(fault,))
    seen: list[tuple[list[int], list[int]]] = []

    def look() -> None:
        one, other = world.all_gateways_of("us")[:2]
        views = []
        for balancer in (one.balancer, other.balancer):
            assert isinstance(balancer, HeliostatBalancer)
            (view,) = balancer.router.views(world.loop.now)
            counts = [balancer.router.inflight(e.address) for e in view.endpoints]
            views.append((counts, [round(e.indexed_tokens) for e in view.endpoints]))
        seen.append((views[0][0], views[1][0]))
        known = [sum(tokens) for _, tokens in views]
        assert known[1] > 0.5 * known[0] > 0

    world.loop.at(20.02, look)
    world.run()
    ((theirs, own),) = seen
    assert sum(theirs) > 0
    assert sum(abs(a - b) for a, b in zip(theirs, own, strict=True)) <= 1
