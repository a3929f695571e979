"""What siblings are told of a core: each of its steps, and its queues once for each batch."""

from dataclasses import dataclass, field

from heliostat_extproc.federation.core_state import CoreState, SiblingRecorder
from heliostat_extproc.federation.slots import RelayedEvent
from heliostat_routing.events import (
    PoolUpdated,
    RequestArrived,
    RequestFinished,
    SiblingQueues,
    SiblingSent,
)
from heliostat_routing.router import Router
from heliostat_routing.settings import EndpointSettings, PoolSettings


@dataclass
class FakeLink:
    """The way to the siblings: keeps what it is given."""

    is_relaying: bool = True
    words: list[RelayedEvent] = field(default_factory=list)
    batches: int = 0
    """How often a batch was asked for, for the queues alone."""

    def relay(self, event: RelayedEvent) -> None:
        self.words.append(event)

    def relay_queues(self) -> None:
        self.batches += 1

    def live_routers(self) -> tuple[str, ...]:
        return ("a",)


def test_queues_wait_for_the_batch_and_are_not_among_the_steps() -> None:
    """A batch is asked for where they may have changed, and they are made when it goes."""
    router, link = Router(), FakeLink()
    state = CoreState(router, "a", clock=lambda: 1.0, model_of_pool=lambda pool: pool)
    recorder = SiblingRecorder(state.relay, link)
    settings = PoolSettings(prefill_tokens_per_second=100.0)
    events = [
        PoolUpdated("p", settings, (EndpointSettings("e0"),)),
        *(RequestArrived(ticket, "p", (ticket,), 10_000) for ticket in range(4)),
    ]
    for event in events:
        recorder.record(1.0, event, router.handle(event, 1.0))
    assert [type(word) for word in link.words] == [SiblingSent]
    assert link.batches == 3
    queues = state.queues()
    assert isinstance(queues, SiblingQueues)
    assert queues.queues[0].queued == 3
    assert state.queues() is None
    link.is_relaying = False
    recorder.record(1.0, RequestFinished(1), router.handle(RequestFinished(1), 1.0))
    assert link.batches == 3
