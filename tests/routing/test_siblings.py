"""Routers of one region: one view of its endpoints, and who takes a freed one."""

from dataclasses import dataclass, field
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heliostat_routing.commands import Command, Dispatch
from heliostat_routing.events import (
    AttemptFailed,
    AttemptStarted,
    DispatchFailed,
    EndpointLearned,
    Event,
    Outcome,
    PoolLearned,
    RequestArrived,
    RequestFinished,
    RequestMeasured,
    SiblingGone,
    SiblingQueue,
    SiblingQueues,
    SiblingSent,
    SiblingTold,
    Tick,
)
from heliostat_routing.learned import LineSamples, TokenSamples
from heliostat_routing.siblings import (
    TURN_SECONDS,
    SiblingEvent,
    sibling_number,
    sibling_ticket,
)
from tests.routing.playbook import Playbook, keys, target, targets

SLOW = 1280.0
"""Prefill tokens a second: 10 blocks take a second."""
PROMPT = keys(("one", 10))
OTHER = keys(("other", 10))


def sent(
    ticket: int, endpoint: str, prompt: tuple[int, ...] = PROMPT, age_seconds: float = 0.0
) -> SiblingSent:
    """A sibling has sent a request."""
    return SiblingSent("r2", RequestArrived(ticket, "p", prompt, 5120), endpoint, age_seconds)


def waits(
    name: str, oldest_seconds: float | None, held: tuple[tuple[str, float], ...] = ()
) -> SiblingQueues:
    """A sibling has a request queued."""
    return SiblingQueues(name, (SiblingQueue("p", 1, oldest_seconds, held),))


def test_what_a_sibling_sends_keeps_an_endpoint_busy() -> None:
    """A sibling's request counts at its endpoint as an own one does, and in no own account."""
    book = Playbook(2, prefill_tokens_per_second=SLOW)
    assert book.tell(sent(7, "e0")) == []
    assert target(book.arrive(1, OTHER)) == "e1"
    assert book.inflight("e0") == 0
    assert book.router.inflight("e0") == 1
    assert len(book.router.ledger) == 1
    (view,) = book.router.views(book.now)
    assert [endpoint.pending for endpoint in view.endpoints] == [1, 1]
    assert (view.inflight, [endpoint.inflight for endpoint in view.endpoints]) == (1, [0, 1])


def test_a_prefix_that_a_sibling_has_sent_is_known() -> None:
    """A conversation's next turn finds the endpoint to which a sibling has sent the one before."""
    for endpoint in ("e0", "e1"):
        book = Playbook(2)
        book.tell(sent(7, endpoint))
        book.tell(SiblingTold("r2", RequestFinished(7)), after=5.0)
        assert target(book.arrive(1, PROMPT)) == endpoint


def test_a_late_word_counts_from_when_it_was_sent() -> None:
    """Prefill that a sibling has sent half a second ago is done half a second earlier."""
    book = Playbook(1, prefill_tokens_per_second=SLOW, network_seconds=0.0)
    book.tell(sent(7, "e0", age_seconds=0.5), after=1.0)
    assert target(book.arrive(1, OTHER)) is None
    assert target(book.tick(0.4)) is None
    assert target(book.tick(0.101)) == "e0"


def test_events_about_unknown_requests_of_siblings_are_ignored() -> None:
    """What is told of a request that was never sent, or by a stranger, changes nothing."""
    book = Playbook(1, prefill_tokens_per_second=SLOW)
    book.arrive(1, PROMPT)
    for name in ("r2", "stranger"):
        for event in (
            AttemptStarted(1, "e0"),
            RequestMeasured(1, "e0", Outcome.ENGINE_FAILED),
            RequestFinished(1),
        ):
            assert book.tell(SiblingTold(name, event)) == []
    book.tell(SiblingGone("stranger"))
    assert book.router.inflight("e0") == book.inflight("e0") == 1


def test_a_word_that_comes_twice_counts_once() -> None:
    """A request that a sibling tells again is booked once; at another endpoint, it has moved."""
    book = Playbook(2, prefill_tokens_per_second=SLOW)
    book.tell(sent(7, "e0"))
    book.tell(sent(7, "e0"))
    assert book.router.inflight("e0") == 1
    book.tell(sent(7, "e1"))
    assert (book.router.inflight("e0"), book.router.inflight("e1")) == (0, 1)


def test_a_sibling_that_is_gone_frees_what_it_had() -> None:
    """With a sibling go its requests, and what waits here for their endpoint is sent at once."""
    book = Playbook(1, prefill_tokens_per_second=SLOW)
    book.tell(sent(7, "e0"))
    assert target(book.arrive(1, OTHER)) is None
    assert target(book.tell(SiblingGone("r2"))) == "e0"
    assert book.router.inflight("e0") == 1


@pytest.mark.parametrize("older", [0, 1, 3])
def test_each_older_claim_of_a_sibling_delays_by_a_turn(older: int) -> None:
    """A router takes a freed endpoint after as many turns as siblings have older requests."""
    book = Playbook(1, prefill_tokens_per_second=SLOW, network_seconds=0.0)
    book.arrive(1, PROMPT)
    book.arrive(2, OTHER)
    for number in range(4):
        book.tell(waits(f"r{number}", 9.0 if number < older else 0.0))
    wait = 1.0 + older * TURN_SECONDS
    sent_at = None
    while sent_at is None and book.now < 2.0:
        if 2 in targets(book.tick(0.001)):
            sent_at = book.now
    assert sent_at == pytest.approx(wait, abs=0.0021)


def test_a_request_held_elsewhere_is_no_claim() -> None:
    """A sibling's request that is held for another endpoint delays nobody here."""
    book = Playbook(2, prefill_tokens_per_second=SLOW, network_seconds=0.0)
    book.arrive(1, PROMPT)
    book.arrive(2, OTHER)
    book.arrive(3, keys(("third", 10)), after=0.5)
    book.tell(waits("r2", None, (("nowhere", 9.0),)))
    assert 3 in targets(book.tick(0.501))


def test_a_newcomer_leaves_a_freed_endpoint_to_an_older_request_of_a_sibling() -> None:
    """What has just been freed is not taken by a newcomer while a sibling holds an older request;
    once the sibling has taken nothing for a turn, it is."""
    book = Playbook(1, prefill_tokens_per_second=SLOW, network_seconds=0.0)
    book.arrive(1, PROMPT)
    book.tell(waits("r2", 0.5))
    book.tick(0.9)
    book.tell(RequestFinished(1), after=0.1)
    commands = book.arrive(2, OTHER, after=0.002)
    assert target(commands) is None
    assert target(book.tick(TURN_SECONDS)) == "e0"


def test_a_newcomer_takes_what_has_been_free_for_long() -> None:
    """An endpoint that siblings with queues do not want delays nobody."""
    book = Playbook(2, prefill_tokens_per_second=SLOW)
    book.tell(waits("r2", 5.0))
    assert target(book.arrive(1, PROMPT, after=1.0)) is not None


def test_tickets_of_siblings_are_like_no_own_ticket() -> None:
    """Each request of each sibling has a negative ticket of its own."""
    made = {sibling_ticket(number, ticket) for number in range(5) for ticket in range(50)}
    assert len(made) == 250
    assert max(made) < 0
    assert all(sibling_number(sibling_ticket(n, 10**12)) == n for n in range(5))


@dataclass
class Region:
    """Two routers of one region, whose words reach each other at once, each event in a batch."""

    books: list[Playbook] = field(
        default_factory=lambda: [Playbook(2, prefill_tokens_per_second=SLOW) for _ in range(2)]
    )

    def __post_init__(self) -> None:
        self.relays = [book.router.relay(f"r{n}") for n, book in enumerate(self.books)]
        self.words: list[list[SiblingEvent]] = [[], []]

    def tell(self, number: int, event: Event) -> list[Command]:
        """Tell one of them what happens, and the other what that one says."""
        book = self.books[number]
        commands = book.router.handle(event, book.now)
        words = self.relays[number].told(event, commands, book.now)
        queues = self.relays[number].queues(book.now)
        words += [] if queues is None else [queues]
        self.words[number] += words
        for word in words:
            self.tell(1 - number, word)
        return commands


def test_a_relay_tells_what_the_other_router_needs() -> None:
    """Two routers that relay have the same counts and prefixes, and never send to a busy one."""
    region = Region()
    for ticket in range(3):
        prompt = keys((f"chat {ticket}", 10))
        region.tell(ticket % 2, RequestArrived(ticket, "p", prompt, 5120))
    for book in region.books:
        assert [book.router.inflight(address) for address in ("e0", "e1")] == [1, 1]
        assert book.router._books.siblings.queued("p") == (book is region.books[1])
    assert [type(word).__name__ for word in region.words[0]] == ["SiblingSent", "SiblingQueues"]
    first = region.words[0][0]
    assert isinstance(first, SiblingSent)
    commands = region.tell(0, RequestFinished(0))
    commands += region.tell(
        0, RequestMeasured(0, first.endpoint, Outcome.SERVED, 1.0, 1.0, 1280, 0, 1)
    )
    assert [c.ticket for c in commands if isinstance(c, Dispatch)] == [2]
    assert region.books[1].router._books.siblings.queued("p") == 0
    for book in region.books:
        assert book.router.inflight(first.endpoint) == 1
        depth = book.router._books.index.depth(
            keys(("chat 0", 10)), 0 if "0" in first.endpoint else 1
        )
        assert depth == 10


def test_a_snapshot_brings_a_late_router_to_the_same_view() -> None:
    """Open requests, queues and prefixes are known to one that comes late, and told twice alike."""
    region = Region()
    for ticket in range(3):
        region.tell(0, RequestArrived(ticket, "p", keys((f"chat {ticket}", 10)), 5120))
    early = region.books[0]
    late = Playbook(2, prefill_tokens_per_second=SLOW)
    early.now = late.now = 0.25
    for _ in range(2):
        for word in region.relays[0].snapshot(early.now):
            late.tell(word)
    assert [late.router.inflight(address) for address in ("e0", "e1")] == [1, 1]
    assert late.router._books.siblings.queued("p") == 1
    for book in (early, late):
        index = book.router._books.index
        held = [index.depth(keys((f"chat {n}", 10)), slot) for n in range(3) for slot in range(2)]
        assert sorted(held) == [0, 0, 0, 0, 10, 10]
    late.tell(SiblingGone("r0"))
    assert [late.router.inflight(address) for address in ("e0", "e1")] == [0, 0]


def teach(book: Playbook, ticket: int, blocks: int, step_seconds: float = 0.01) -> None:
    """An engine of half the assumed speed serves a request, with 20 output tokens."""
    tokens = blocks * 256
    book.arrive(ticket, keys((f"own {ticket}", blocks)))
    ttft_seconds = 2 * tokens / SLOW
    duration_seconds = ttft_seconds + 19 * step_seconds
    measured = RequestMeasured(
        ticket, "e0", Outcome.SERVED, ttft_seconds, duration_seconds, tokens, 0, 20, 80
    )
    book.tell(RequestFinished(ticket), after=duration_seconds)
    book.tell(measured)


def learned_of(book: Playbook) -> list[float]:
    """What a router believes of its pool and endpoint."""
    books = book.router._books
    pool, endpoint = books.pools["p"], books.fleet.by_address["e0"]
    return [
        pool.prefill.tokens_per_second,
        pool.decode_seconds(None),
        pool.tokens.bytes_per_token,
        pool.tokens.mean_duration_seconds,
        pool.usual_work_seconds,
        pool.usual_kv_tokens,
        endpoint.prefill.tokens_per_second,
        endpoint.step_seconds,
    ]


def test_a_late_router_knows_what_the_others_have_learned() -> None:
    """Rates, paces and sizes come with the snapshot; one that has learned more keeps its own."""
    early, late = (Playbook(1, prefill_tokens_per_second=SLOW) for _ in range(2))
    for ticket in range(30):
        teach(early, ticket, blocks=10 + ticket % 7)
    for ticket in range(30, 40):  # more stay each time, and the engine gets slower
        early.arrive(100 + ticket, keys(("that stays", 1)))
        teach(early, ticket, blocks=10, step_seconds=0.01 * (ticket - 28))
    known = learned_of(early)
    assert known[-2] < 0.8 * SLOW
    assert all(a != b for a, b in zip(known, learned_of(late), strict=True))
    for word in early.router.relay("r0").snapshot(early.now):
        if not isinstance(word, SiblingSent):
            late.tell(word)
    assert learned_of(late) == pytest.approx(known)
    for word in Playbook(1, prefill_tokens_per_second=SLOW).router.relay("r2").snapshot(0.0):
        early.tell(word)
    assert learned_of(early) == known


ODD = st.sampled_from([0.0, 1e-9, 1.0, 20.0, 33.0, 1e6, 1e14, 1e300])
LINES = st.builds(LineSamples, ODD, ODD, ODD, ODD, ODD)
TOKENS = st.builds(TokenSamples, ODD, ODD, ODD, ODD, ODD)


@given(st.lists(st.tuples(LINES, LINES, TOKENS, ODD, ODD, ODD), max_size=4))
def test_whatever_a_sibling_has_learned_predictions_stay_sane(
    told: list[tuple[LineSamples, LineSamples, TokenSamples, float, float, float]],
) -> None:
    """Sums that cannot be are passed over; what can be leaves rates above zero, and learning."""
    book = Playbook(1, prefill_tokens_per_second=SLOW)
    for line, pace, tokens, one, two, three in told:
        book.tell(PoolLearned("p", line, pace, tokens, one, two))
        book.tell(EndpointLearned("e0", line, three))
    for event in (
        PoolLearned("none", line, pace, tokens, 0.0, 0.0) for line, pace, tokens, *_ in told
    ):
        book.tell(event)
    teach(book, 1, blocks=10)
    beliefs = learned_of(book)
    assert all(0 <= belief < inf for belief in beliefs)
    assert SLOW / 100 <= beliefs[0] <= SLOW * 100
    assert 0.5 <= beliefs[2] <= 16


@dataclass
class Told:
    """A router of one slow endpoint, and what it has told its siblings of its queues."""

    book: Playbook = field(default_factory=lambda: Playbook(1, prefill_tokens_per_second=SLOW))

    def __post_init__(self) -> None:
        self.relay = self.book.router.relay("r1")

    def handle(self, event: Event, *, watched: bool = True) -> None:
        """Something happens, while siblings watch or do not."""
        commands = self.book.router.handle(event, self.book.now)
        if watched:
            words = self.relay.told(event, commands, self.book.now)
            assert not [word for word in words if isinstance(word, SiblingQueues)]

    def arrive(self, ticket: int) -> None:
        """A request arrives."""
        self.handle(RequestArrived(ticket, "p", keys((f"chat {ticket}", 10)), 5120))

    def batch(self) -> int | None:
        """A batch goes: return how many are queued, None where it does not say so."""
        return queued_in(self.relay.queues(self.book.now))

    def snapshot(self) -> int | None:
        """A sibling comes late: return how many it is told are queued."""
        (found,) = [w for w in self.relay.snapshot(self.book.now) if isinstance(w, SiblingQueues)]
        return queued_in(found)


def queued_in(event: SiblingQueues | None) -> int | None:
    """How many requests are queued, as a sibling is told."""
    return None if event is None else sum(queue.queued for queue in event.queues)


def test_queues_are_told_once_for_a_batch_and_only_if_they_have_changed() -> None:
    """Whatever happens in between, and a batch is asked for only where they may be others."""
    told = Told()
    told.arrive(0)
    assert (told.relay.queues_due, told.batch()) == (False, None)
    for ticket in range(1, 21):
        told.arrive(ticket)
    assert told.relay.queues_due
    assert (told.batch(), told.batch(), told.relay.queues_due) == (20, None, False)
    told.handle(AttemptStarted(0, "e0"))
    assert not told.relay.queues_due
    for ticket in range(1, 21):
        told.handle(RequestFinished(ticket))
    assert (told.batch(), told.batch()) == (0, None)


def test_a_snapshot_has_the_queues_as_they_are() -> None:
    """Also where nobody was told of them meanwhile; the others are then told again."""
    told = Told()
    for ticket in range(3):
        told.arrive(ticket)
    assert told.batch() == 2
    told.handle(RequestFinished(1), watched=False)
    assert told.snapshot() == 1
    told.handle(AttemptStarted(0, "e0"))
    assert told.batch() == 1
    for ticket in (2, 0):
        told.handle(RequestFinished(ticket), watched=False)
    assert told.snapshot() == 0


def test_a_sibling_that_came_within_a_batch_hears_that_the_queue_is_as_before() -> None:
    """It was told otherwise than those who have been there."""
    told = Told()
    told.arrive(0)
    assert told.batch() is None
    told.arrive(1)
    assert told.snapshot() == 1
    told.handle(RequestFinished(1))
    assert told.batch() == 0


def test_siblings_know_a_request_that_has_come_back_where_it_is() -> None:
    """While it waits it is at no endpoint to them either, and then where it is sent again."""
    here, there = Playbook(1), Playbook(1)
    relay = here.router.relay("r1")

    def happen(event: Event, after: float = 0.0) -> list[Command]:
        there.now += after
        commands = here.tell(event, after)
        for word in relay.told(event, commands, here.now):
            there.tell(word)
        return commands

    endpoint = there.router._books.fleet.by_address["e0"]
    happen(RequestArrived(1, "p", keys(("chat", 10)), 5120))
    assert there.router.inflight("e0") == 1
    happen(DispatchFailed(1, ("e0",)))
    assert here.router.ledger.queued == 1
    assert there.router.inflight("e0") == 0
    while not any(isinstance(it, Dispatch) for it in happen(Tick(), after=0.5)):
        assert here.now < 60.0
    assert there.router.inflight("e0") == 1
    happen(AttemptFailed(1, "e0"))
    assert endpoint._dispatched == 1, "a late word of the first attempt is none of the second"
    happen(RequestMeasured(1, "e0", Outcome.SERVED))
    happen(RequestFinished(1))
    assert there.router.inflight("e0") == 0
    there.tick(60.0)
    assert endpoint._dispatched == here.router._books.fleet.by_address["e0"]._dispatched
