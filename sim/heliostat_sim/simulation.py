"""Runs a scenario's world with a policy: where settings, demand and balancers meet."""

from heliostat_routing.settings import PolicyName as CorePolicy
from heliostat_routing.settings import PoolSettings
from heliostat_sim.world.gateway import BalancerFactory
from heliostat_sim.world.heliostat import HeliostatBalancer, Observer, pool_settings
from heliostat_sim.world.settings import WorldSettings


def heliostat_factory(settings: WorldSettings, observe: Observer | None = None) -> BalancerFactory:
    """Gateways with the production router, and its own policy."""
    pool = pool_settings(
        PoolSettings(
            policy=CorePolicy.HELIOSTAT,
            network_seconds=settings.within_seconds / 2,
            queue_timeout_seconds=settings.queue_timeout_seconds,
            kv_capacity_tokens=settings.profile.kv_tokens,
        ),
        settings.profile.prefill_seconds_per_token,
        settings.signals.assumed_prefill_ratio,
    )
    return lambda port: HeliostatBalancer(port, pool, settings.signals, observe)
