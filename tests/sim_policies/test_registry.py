"""Every policy in a small world whose engines, regions, links and gateways break."""

import pytest

from heliostat_sim.policies.registry import POLICIES, GatewayLayout, PolicyName, factory
from heliostat_sim.world.chain import TokenChain
from heliostat_sim.world.demand import Arrival, Ask, Demand
from heliostat_sim.world.settings import Fault, FaultKind, RegionSettings, WorldSettings
from heliostat_sim.world.world import World

from .fake_port import PROFILE

ROUND_TRIPS = {
    frozenset(("us", "eu")): 0.1,
    frozenset(("us", "asia")): 0.13,
    frozenset(("eu", "asia")): 0.22,
}
FAULTS = (
    Fault(FaultKind.ENGINE, 10.0, 10.0, "us"),
    Fault(FaultKind.REGION, 15.0, 10.0, "eu"),
    Fault(FaultKind.LINK, 25.0, 10.0, "us", other_region="asia"),
)


class Once:
    """A session of one request."""

    def __init__(self, number: int) -> None:
        self.user = number % 7
        self._chain = TokenChain()
        self._chain.add(self.user, 400)
        self._chain.add(1000 + number, 200)

    def start(self) -> list[Ask]:
        prompt_tokens = self._chain.tokens
        self._chain.add(5000 + self.user, 60)
        return [Ask(self._chain, prompt_tokens, 60)]

    def on_answer(self, ask: Ask) -> list[Ask]:
        return []


def test_every_name_has_a_policy() -> None:
    """The registry is complete."""
    assert set(POLICIES) == set(PolicyName)


@pytest.mark.parametrize("name", PolicyName)
def test_every_policy_loses_no_request_to_faults(name: PolicyName) -> None:
    """Whatever breaks and is mended, each client gets an answer in the end."""
    layout = POLICIES[name].layout
    settings = WorldSettings(
        regions=(RegionSettings("us", 2), RegionSettings("eu", 2), RegionSettings("asia", 1)),
        profile=PROFILE,
        round_trips=ROUND_TRIPS,
        duration_seconds=200.0,
        single_gateway="us" if layout is GatewayLayout.SINGLE else None,
        faults=FAULTS,
    )
    arrivals = (Arrival(n * 0.4, ("us", "eu", "asia")[n % 3], Once(n)) for n in range(100))
    world = World(settings, Demand(arrivals=arrivals), factory(name, settings), seed=1)
    records = world.run()
    assert not world.open
    assert len({r.sent_at for r in records.requests if r.served_in}) >= 95
