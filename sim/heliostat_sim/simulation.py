"""Runs a world with a policy: where settings, demand and balancers meet."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from heliostat_sim.policies.registry import POLICIES, GatewayLayout, ObserverOf, PolicyName, factory
from heliostat_sim.world.demand import Demand
from heliostat_sim.world.records import Records
from heliostat_sim.world.settings import WorldSettings
from heliostat_sim.world.world import World


def run_world(
    settings: WorldSettings,
    demand: Demand,
    policy: PolicyName | str,
    seed: int,
    layout: GatewayLayout | None = None,
    observer_of: ObserverOf | None = None,
) -> Records:
    """Run to the end. Without a layout the gateways stand where the policy's source has them.

    A single gateway stands in the first region, if the settings name none. `observer_of` lets
    others see what Heliostat's routers are told and what they answer.
    Raises ValueError for an unknown policy.
    """
    name = PolicyName(policy)
    settings = laid_out(settings, layout or POLICIES[name].layout)
    with _without_collector():
        return World(settings, demand, factory(name, settings, observer_of), seed).run()


def laid_out(settings: WorldSettings, layout: GatewayLayout) -> WorldSettings:
    """The settings with one gateway for all regions, or with one in each."""
    single = settings.single_gateway or settings.regions[0].name
    return replace(settings, single_gateway=single if layout is GatewayLayout.SINGLE else None)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Requests make no cycles, and looking for some among millions of records takes long."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
