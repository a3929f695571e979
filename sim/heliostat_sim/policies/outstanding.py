"""What a balancer has sent and not seen the end of: the only load that all policies know."""

from collections import Counter
from collections.abc import Iterable

from heliostat_sim.world.request import Request


class Outstanding:
    """Open requests by target."""

    def __init__(self) -> None:
        self._targets: dict[int, str] = {}
        self._counts: Counter[str] = Counter()

    def add(self, request: Request, target: str) -> None:
        """Note that a request goes to a target."""
        self.release(request)
        self._targets[request.id] = target
        self._counts[target] += 1

    def release(self, request: Request) -> None:
        """Note that a request is over, or did not get there."""
        target = self._targets.pop(request.id, None)
        if target is not None:
            self._counts[target] -= 1

    def count(self, target: str) -> int:
        """Open requests at a target."""
        return self._counts[target]

    def least(self, targets: Iterable[str]) -> str:
        """The target with the fewest open requests, the first of equals. There must be one."""
        return min(targets, key=self._counts.__getitem__)
