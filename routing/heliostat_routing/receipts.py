"""How many requests have come from each router of other regions: what ends their reservations.

A region's routers are named by that region alone, so each region has so many names, and none can
push another's counts out by inventing more.
"""

MOST_ROUTERS = 64
"""Of one region: those heard from last."""
MOST_REGIONS = 1000


class Receipts:
    """Counts by origin: a region and its router, with a slash between."""

    __slots__ = ("_by_region",)

    def __init__(self) -> None:
        self._by_region: dict[str, dict[str, int]] = {}

    def count(self, origin: str) -> None:
        """Count a request from this router."""
        region = origin.partition("/")[0]
        counts = self._by_region[region] = self._by_region.pop(region, {})
        counts[origin] = counts.pop(origin, 0) + 1
        _drop_first(counts, MOST_ROUTERS)
        _drop_first(self._by_region, MOST_REGIONS)

    def by_origin(self) -> dict[str, int]:
        """All counts; where not all can be told, those of regions with few routers come first."""
        counts = sorted(self._by_region.values(), key=len)
        return {origin: n for of_region in counts for origin, n in of_region.items()}


def _drop_first(known: dict[str, int] | dict[str, dict[str, int]], most: int) -> None:
    if len(known) > most:
        del known[next(iter(known))]
