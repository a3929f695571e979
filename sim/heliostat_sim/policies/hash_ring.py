"""A consistent hash ring: keys stay where they are when targets come and go."""

from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator

from xxhash import xxh3_64_intdigest

POINTS_PER_TARGET = 100


class HashRing:
    """Virtual points of targets on a circle of 64-bit hashes."""

    def __init__(self, points_per_target: int = POINTS_PER_TARGET) -> None:
        self._points_per_target = points_per_target
        self._targets: frozenset[str] = frozenset()
        self._points: list[tuple[int, str]] = []

    def set_targets(self, targets: Iterable[str]) -> None:
        """Place the points of these targets, if they are others than before."""
        wanted = frozenset(targets)
        if wanted == self._targets:
            return
        self._targets = wanted
        self._points = sorted(
            (xxh3_64_intdigest(f"{target}/{point}".encode()), target)
            for target in wanted
            for point in range(self._points_per_target)
        )

    def walk(self, key: str) -> Iterator[str]:
        """The targets of the points from the key's place on, once around."""
        points = self._points
        start = bisect_left(points, (xxh3_64_intdigest(key.encode()), ""))
        for at in range(len(points)):
            yield points[(start + at) % len(points)][1]

    def pick(self, key: str, available: Container[str]) -> str | None:
        """The first available target from the key's place on."""
        return next((target for target in self.walk(key) if target in available), None)
