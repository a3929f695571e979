"""One pool: its settings, its members as a set, its queue, and what was learned of its requests."""

from heliostat_routing.events import PoolLearned, PoolUpdated
from heliostat_routing.learned import GREATEST
from heliostat_routing.pace_model import PaceModel
from heliostat_routing.prefill_model import PrefillModel
from heliostat_routing.room import Room
from heliostat_routing.settings import EndpointPhase, PoolSettings
from heliostat_routing.token_model import TokenModel
from heliostat_routing.wait_queue import WaitQueue

NEED_WEIGHT = 0.05
"""What the latest request weighs in what is usual: about 20 count."""


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
        """Requests at its endpoints, those that siblings have sent among them."""
        self.siblings_inflight = 0
        self.queue = WaitQueue()
        self.tokens = TokenModel()
        self.pace = PaceModel()
        self.prefill = PrefillModel(settings.prefill_tokens_per_second)
        self.usual_work_seconds = 0.1
        """Prefill that a request brings: a running mean."""
        self.usual_kv_tokens = 1000.0
        """KV room that a request takes: a running mean."""
        self.phases: dict[int, EndpointPhase] = {}
        """What the discovery says of each member."""
        self.room = Room()
        self._any_adapter = 0
        self._adapters: dict[str, int] = {}
        self._held_adapters: tuple[int, frozenset[str]] | None = None

    @property
    def mean_inflight(self) -> float:
        """Requests in flight per member."""
        return self.inflight / max(1, self.members.bit_count())

    def decode_seconds(self, max_output_tokens: int | None) -> float:
        """What a request and each other in its batch slow each other down, all in all."""
        return 2 * self.tokens.expected_output(max_output_tokens) * self.pace.growth_seconds

    def spare_tokens(self, load: float) -> float:
        """KV room that is left free beside so many requests, which grow: 0 on an idle engine.

        One usual request's, or half an expected answer for each, whichever is less. A request that
        is preempted for want of room is computed twice.
        """
        return min(self.usual_kv_tokens, load * self.growth_tokens)

    @property
    def growth_tokens(self) -> float:
        """KV room that a request in flight is expected to take yet: half a mean output."""
        return self.tokens.mean_output_tokens / 2

    def observe_need(self, work_seconds: float, kv_tokens: float) -> None:
        """Learn from a request that is sent what a usual one needs."""
        self.usual_work_seconds += (work_seconds - self.usual_work_seconds) * NEED_WEIGHT
        self.usual_kv_tokens += (max(1.0, kv_tokens) - self.usual_kv_tokens) * NEED_WEIGHT

    @property
    def learned(self) -> PoolLearned:
        """What a router that comes late is told of it."""
        return PoolLearned(
            self.name,
            self.prefill.samples,
            self.pace.samples,
            self.tokens.samples,
            self.usual_work_seconds,
            self.usual_kv_tokens,
        )

    def learn_from(self, told: PoolLearned) -> None:
        """Know what a sibling has learned, where that is more."""
        self.prefill.take_over(told.prefill)
        self.pace.take_over(told.pace)
        usual = told.usual_work_seconds, told.usual_kv_tokens
        if self.tokens.take_over(told.tokens) and all(0 <= it <= GREATEST for it in usual):
            self.usual_work_seconds, self.usual_kv_tokens = usual[0], max(1.0, usual[1])

    def take_over(self, event: PoolUpdated, slot_of: dict[str, int]) -> None:
        """Take over the whole truth: settings, members, who is ready and holds which adapter."""
        before = self.members
        self.settings = event.settings
        self.retired = False
        self.members = self.ready = self._any_adapter = 0
        self._adapters = {}
        self._held_adapters = None
        self.phases = {slot_of[endpoint.address]: endpoint.phase for endpoint in event.endpoints}
        for endpoint in event.endpoints:
            bit = 1 << slot_of[endpoint.address]
            self.members |= bit
            if endpoint.phase is EndpointPhase.READY:
                self.ready |= bit
            if endpoint.adapters is None:
                self._any_adapter |= bit
            for name in endpoint.adapters or ():
                self._adapters[name] = self._adapters.get(name, 0) | bit
        self.generation += before != self.members

    def holding(self, adapter: str | None) -> int:
        """The ready slots that can serve a request for this LoRA adapter, or for none."""
        if adapter is None:
            return self.ready
        return self.ready & (self._adapters.get(adapter, 0) | self._any_adapter)

    def adapters(self, among: int) -> frozenset[str] | None:
        """The LoRA adapters that these slots can serve; None: any."""
        if self._any_adapter & among:
            return None
        if self._held_adapters is None or self._held_adapters[0] != among:
            names = frozenset(name for name, holders in self._adapters.items() if holders & among)
            self._held_adapters = among, names
        return self._held_adapters[1]
