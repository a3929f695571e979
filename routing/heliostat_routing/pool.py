"""One pool: its settings, its members as a set, its queue, and what was learned of its requests."""

from heliostat_routing.prefill_model import PrefillModel
from heliostat_routing.settings import PoolSettings
from heliostat_routing.token_model import TokenModel
from heliostat_routing.wait_queue import WaitQueue


class Pool:
    """The state of one pool."""

    def __init__(self, name: str, settings: PoolSettings) -> None:
        self.name = name
        self.settings = settings
        self.members = 0
        """Slots of the pool."""
        self.ready = 0
        """Members that are not draining."""
        self.generation = 0
        """Changes whenever the members do."""
        self.retired = False
        """Removed: takes nothing new, still serves what it has queued."""
        self.inflight = 0
        self.queue = WaitQueue()
        self.tokens = TokenModel()
        self.prefill = PrefillModel(settings.prefill_tokens_per_second)

    @property
    def mean_inflight(self) -> float:
        """Requests in flight per member."""
        return self.inflight / max(1, self.members.bit_count())
