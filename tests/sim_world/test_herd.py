"""Many ingresses that see the same free places: what they send in vain is bounded."""

from collections import Counter

from heliostat_routing.commands import Command
from heliostat_routing.events import Event
from heliostat_sim.policies.registry import PolicyName, factory
from heliostat_sim.world.heliostat import Observer
from heliostat_sim.world.settings import Fault, FaultKind, RegionSettings
from heliostat_sim.world.world import World
from tests.sim_world.small_world import Once, arrivals, check_books, settings_of


def test_a_region_that_returns_to_long_queues_is_not_overrun() -> None:
    """Eight gateways have queued for a region that comes back: it serves most of
    what they all send there at once, nothing is sent often, and each request is answered."""
    counts: Counter[str] = Counter()

    def observer_of(_name: str) -> Observer:
        def observe(_now: float, event: Event, commands: list[Command]) -> None:
            counts[type(event).__name__] += 1
            counts.update(type(command).__name__ for command in commands)

        return observe

    regions = (
        RegionSettings("us", 1, 4),
        RegionSettings("asia", 1, 4),
        RegionSettings("eu", 4),
    )
    away = Fault(FaultKind.REGION, 0.5, 12.0, "eu")
    settings = settings_of({}, regions=regions, faults=(away,), queue_timeout_seconds=300.0)
    sessions = [Once(number, prompt_tokens=800) for number in range(80)]
    demand = arrivals(
        *((1.0 + 0.25 * n, ("us", "asia")[n % 2], session) for n, session in enumerate(sessions))
    )
    world = World(settings, demand, factory(PolicyName.HELIOSTAT, settings, observer_of), seed=1)
    world.run()
    check_books(world, sessions)
    assert all(session.answers == 1 for session in sessions)
    assert counts["Enqueue"] > 30
    assert counts["Forward"] > 30
    assert counts["ForwardRefused"] < 0.42 * counts["Forward"]
    assert counts["Forward"] < 1.5 * len(sessions)
