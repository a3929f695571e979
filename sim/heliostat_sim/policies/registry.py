"""All policies by name: how a scenario says which one its gateways run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from heliostat_sim.policies.availability import BlindPushing, OutstandingPushing, PendingPushing
from heliostat_sim.policies.clairvoyant import Clairvoyant
from heliostat_sim.policies.gke import GkeGateway
from heliostat_sim.policies.gorgo import Gorgo
from heliostat_sim.policies.plain import LeastLoad, RingHash, RoundRobin
from heliostat_sim.policies.sglang import SglangRouter
from heliostat_sim.policies.skylb import SkyLb
from heliostat_sim.policies.skylb_selection import PrefixSelection, RingSelection
from heliostat_sim.policies.sticky import StickyUntilSaturated
from heliostat_sim.world.balancer import Balancer, GatewayPort
from heliostat_sim.world.heliostat import HeliostatBalancer, Observer, pool_settings
from heliostat_sim.world.settings import WorldSettings


class PolicyName(StrEnum):
    """The policies that there are."""

    HELIOSTAT = "heliostat"
    ROUND_ROBIN = "round-robin"
    LEAST_LOAD = "least-load"
    RING_HASH = "ring-hash"
    SGLANG = "sglang"
    GKE = "gke"
    SKYLB = "skylb"
    SKYLB_CH = "skylb-ch"
    BLIND_PUSH = "bp"
    SELECTIVE_PUSH_OUTSTANDING = "sp-o"
    SELECTIVE_PUSH_PENDING = "sp-p"
    GORGO = "gorgo"
    STICKY = "sticky"
    CLAIRVOYANT = "clairvoyant"


class GatewayLayout(StrEnum):
    """Where a policy's gateways are in its source."""

    SINGLE = "single"
    """One gateway places all requests on all engines."""
    PER_REGION = "per-region"
    """One in each region, for its own engines; peers exchange requests or state."""


Factory = Callable[[GatewayPort], Balancer]


ObserverOf = Callable[[str], Observer | None]
"""Who looks on at a new router, by its gateway's name; it is asked again after a restart."""


@dataclass(frozen=True, slots=True)
class Common:
    """What the balancers of one world have in common."""

    settings: WorldSettings
    shared: dict[str, Any] = field(default_factory=dict)
    """What they share, where their source has one mind for all."""
    observer_of: ObserverOf | None = None
    """Who looks on at Heliostat's routers; the other policies have no core to look at."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How to make a policy's balancers."""

    make: Callable[[GatewayPort, Common], Balancer]
    layout: GatewayLayout


def factory(
    name: PolicyName, settings: WorldSettings, observer_of: ObserverOf | None = None
) -> Factory:
    """What makes the balancers of one world; another world needs another factory."""
    make, common = POLICIES[name].make, Common(settings, observer_of=observer_of)
    return lambda port: make(port, common)


def _heliostat(port: GatewayPort, common: Common) -> HeliostatBalancer:
    settings = common.settings
    observe = None if common.observer_of is None else common.observer_of(port.name)
    return HeliostatBalancer(port, pool_settings(settings), settings.signals, observe)


def _skylb(port: GatewayPort) -> SkyLb:
    return SkyLb(port, PrefixSelection(), PendingPushing(port), PrefixSelection())


def _skylb_ch(port: GatewayPort) -> SkyLb:
    return SkyLb(port, RingSelection(), PendingPushing(port), RingSelection())


def _blind_push(port: GatewayPort) -> SkyLb:
    return SkyLb(port, PrefixSelection(rebalances=True), BlindPushing(port))


def _selective_push_outstanding(port: GatewayPort) -> SkyLb:
    selection = PrefixSelection()
    return SkyLb(port, selection, OutstandingPushing(port, selection.load))


def _selective_push_pending(port: GatewayPort) -> SkyLb:
    return SkyLb(port, PrefixSelection(), PendingPushing(port))


def _alone(make: Factory) -> Callable[[GatewayPort, Common], Balancer]:
    """A policy whose balancers share nothing."""
    return lambda port, _common: make(port)


_SINGLE, _PER_REGION = GatewayLayout.SINGLE, GatewayLayout.PER_REGION

POLICIES: Mapping[PolicyName, Policy] = {
    PolicyName.HELIOSTAT: Policy(_heliostat, _PER_REGION),
    PolicyName.ROUND_ROBIN: Policy(_alone(RoundRobin), _SINGLE),
    PolicyName.LEAST_LOAD: Policy(_alone(LeastLoad), _SINGLE),
    PolicyName.RING_HASH: Policy(_alone(RingHash), _SINGLE),
    PolicyName.SGLANG: Policy(_alone(SglangRouter), _SINGLE),
    PolicyName.GKE: Policy(_alone(GkeGateway), _PER_REGION),
    PolicyName.SKYLB: Policy(_alone(_skylb), _PER_REGION),
    PolicyName.SKYLB_CH: Policy(_alone(_skylb_ch), _PER_REGION),
    PolicyName.BLIND_PUSH: Policy(_alone(_blind_push), _PER_REGION),
    PolicyName.SELECTIVE_PUSH_OUTSTANDING: Policy(_alone(_selective_push_outstanding), _PER_REGION),
    PolicyName.SELECTIVE_PUSH_PENDING: Policy(_alone(_selective_push_pending), _PER_REGION),
    PolicyName.GORGO: Policy(_alone(Gorgo), _PER_REGION),
    PolicyName.STICKY: Policy(_alone(StickyUntilSaturated), _SINGLE),
    PolicyName.CLAIRVOYANT: Policy(
        lambda port, common: Clairvoyant(port, common.shared), _PER_REGION
    ),
}
