"""What a discovery tells the router: the whole truth at one instant, never a difference."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from heliostat_extproc.discovery.catalog import Catalog
from heliostat_extproc.discovery.peering import DeclaredPeer, DeclaredSibling
from heliostat_routing.settings import EndpointSettings, PoolSettings


@dataclass(frozen=True, slots=True)
class ServedPool:
    """The endpoints that requests for a model choose from; `key` is that of its oldest pool."""

    key: str
    settings: PoolSettings
    endpoints: tuple[EndpointSettings, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All pools and peers in force, who serves which name, and what is wrong, a sentence each."""

    pools: tuple[ServedPool, ...] = ()
    catalog: Catalog = field(default_factory=Catalog)
    problems: tuple[str, ...] = ()
    peers: tuple[DeclaredPeer, ...] = ()
    siblings: tuple[DeclaredSibling, ...] = ()
    priorities: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """By pool and name of an objective."""
