"""Prompt tokens on their way to their first token, by target: what GORGO and llm-d weigh."""

from collections import defaultdict

from heliostat_sim.world.request import Request


class PrefillBooks:
    """Tokens sent to each target whose first token has not come."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[str, int]] = {}
        self._tokens: defaultdict[str, int] = defaultdict(int)

    def add(self, request: Request, target: str, tokens: int) -> None:
        """Note tokens on their way."""
        self.release(request)
        self._entries[request.id] = (target, tokens)
        self._tokens[target] += tokens

    def release(self, request: Request) -> None:
        """The first token has come, or never will."""
        entry = self._entries.pop(request.id, None)
        if entry is not None:
            self._tokens[entry[0]] -= entry[1]

    def tokens(self, target: str) -> int:
        """Tokens on their way to a target."""
        return self._tokens[target]
