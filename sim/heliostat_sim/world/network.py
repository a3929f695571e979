"""How long messages take between regions, and which regions cannot reach each other."""

from collections import Counter
from collections.abc import Mapping, Sequence


class Network:
    """Round trips between regions, and the links that are cut."""

    def __init__(self, round_trips: Mapping[frozenset[str], float], within_seconds: float) -> None:
        self._round_trips = round_trips
        self._within_seconds = within_seconds
        self._cut: Counter[frozenset[str]] = Counter()

    def round_trip_seconds(self, one: str, other: str) -> float:
        """There and back."""
        if one == other:
            return self._within_seconds
        return self._round_trips[frozenset((one, other))]

    def way_seconds(self, one: str, other: str) -> float:
        """There."""
        return self.round_trip_seconds(one, other) / 2

    def partners(self, region: str, others: Sequence[str], most: int) -> set[str]:
        """So many of the other regions: half of them the nearest, the rest over all distances."""
        ranked = sorted(others, key=lambda other: self.round_trip_seconds(region, other))
        near, far = ranked[: most - most // 2], ranked[most - most // 2 :]
        step = max(1.0, len(far) / max(1, most // 2))
        spread = (far[int(number * step)] for number in range(min(most // 2, len(far))))
        return {*near, *spread}

    def reaches(self, one: str, other: str) -> bool:
        """Whether the regions can reach each other."""
        return not self._cut or not self._cut[frozenset((one, other))]

    def cut(self, one: str, other: str) -> None:
        """Drop all that is sent between two regions from now on."""
        self._cut[frozenset((one, other))] += 1

    def mend(self, one: str, other: str) -> None:
        """Let them reach each other again, once for each cut."""
        self._cut[frozenset((one, other))] -= 1
