"""Which region a router is in, and which of its routers it is."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Region:
    """One router's place."""

    name: str
    router: str
    """Tells the region's routers apart: the name of its pod."""
    groups: frozenset[str] = frozenset()
    """Groups of regions that residency rules name."""
    epoch: int = 0
    """Grows with every start of the router."""


def origin_name(region: str, router: str) -> str:
    """Name a router among those of all regions."""
    return f"{region}/{router}"
