"""Which request goes where and when: decides arrivals, serves queues, keeps deadlines."""

from heapq import heappop, heappush
from math import inf

from heliostat_routing.books import Books
from heliostat_routing.commands import (
    Command,
    Dispatch,
    Enqueue,
    Evict,
    EvictReason,
    Forward,
    Reject,
    RejectReason,
    WakeAt,
)
from heliostat_routing.eligibility import eligible_slots
from heliostat_routing.events import SiblingQueues
from heliostat_routing.explanation import Explanation
from heliostat_routing.flight import Flight
from heliostat_routing.peers import MOST_FORWARDS, Remote
from heliostat_routing.policies.heliostat import HeliostatPolicy
from heliostat_routing.policies.policy import Pick, Policy, World
from heliostat_routing.policies.reference import (
    ConsistentHashPolicy,
    LeastInflightPolicy,
    RoundRobinPolicy,
)
from heliostat_routing.pool import Pool
from heliostat_routing.settings import PolicyName
from heliostat_routing.siblings import TURN_SECONDS
from heliostat_routing.wait_queue import place_of

WINDOW = 8
"""Queued requests that are compared when an endpoint frees."""
RECONSIDERED = 4
"""Requests held for an endpoint that are decided anew when something happens to it."""
ROUNDS = 4
"""Windows that one endpoint is offered in one go; what is left is looked at in the next tick, which
is asked for at once, so that no event takes long."""
SERVED_IN_ONE_GO = 32
OFFER_SECONDS = 0.05
"""Between two offers of what is queued to other regions, however often these say something new."""
MOST_RETURNS = 8
"""Times that a request may come back from endpoints here that do not answer."""
LONGEST_RETRY_AFTER_SECONDS = 60.0


class Dispatcher:
    """Moves requests from arrival or queue to endpoints; commands collect in `out`."""

    def __init__(self, books: Books) -> None:
        self.out: list[Command] = []
        self._books = books
        self._timers: list[tuple[float, int]] = []
        self._wake_at = inf
        self._offered_at = -inf
        self._offer_due = False
        """Whether other regions have said something since what is queued was offered to them."""
        self._turns: dict[int, float] = {}
        """When it is this router's turn to take a slot that siblings with older claims see too."""
        world = World(books.fleet, books.index, books.peers)
        self._policies: dict[PolicyName, Policy] = {
            PolicyName.HELIOSTAT: HeliostatPolicy(world),
            PolicyName.ROUND_ROBIN: RoundRobinPolicy(world),
            PolicyName.LEAST_INFLIGHT: LeastInflightPolicy(world),
            PolicyName.CONSISTENT_HASH: ConsistentHashPolicy(world),
        }

    def decide(self, flight: Flight, now: float) -> None:
        """Send a request that waits nowhere to where it is served, or queue it, or turn it away.

        Without endpoints it waits only while another region may soon serve it.
        """
        pool, fleet = flight.pool, self._books.fleet
        eligible = self._untried(flight)
        free = eligible & ~self._reserved(flight, now)
        why_not = None
        if not eligible:
            why_not = "none-serving"
        elif not free:
            why_not = "behind-older"
        elif _holds(pool) and not free & fleet.available:
            why_not = "all-busy"
        if not eligible and flight.request.subset is not None:
            self._reject(flight, RejectReason.NO_ENDPOINTS, 1.0, now)
        elif why_not is None:
            pick = self._pick(flight, pool, free, now)
            if not self._go(flight, pick, now):
                self._enqueue(flight, pick.explanation, now, pick)
        elif (gain := self._gain(flight, self._queued(pool), now)) is not None:
            self._go(flight, gain[1], now)
        elif pool.members or (_holds(pool) and self._may_wait_without(flight, now)):
            self._enqueue(flight, _unscored(pool, why_not, eligible), now)
        else:
            self._reject(flight, RejectReason.NO_ENDPOINTS, 1.0, now)

    def decide_anew(self, flight: Flight, now: float) -> None:
        """Decide on a request that has come back, in the pool as it is now.

        Endpoints that have failed with it are asked again only once it has waited.
        """
        if flight.returns > MOST_RETURNS:
            self._reject(flight, RejectReason.NO_ENDPOINTS, 1.0, now)
            return
        pool = self._books.pools.get(flight.pool.name)
        if pool is None:
            self._reject(flight, RejectReason.UNKNOWN_POOL, 1.0, now)
            return
        flight.pool = pool
        self.decide(flight, now)

    def on_region_state(self) -> None:
        """Other regions may now be the better place for what is queued."""
        self._offer_due = self._books.ledger.queued > 0

    def _offer_to_peers(self, now: float) -> None:
        """Let queued requests go to other regions, those first that gain most."""
        self._offered_at, self._offer_due = now, False
        books = self._books
        for pool in books.pools.values():
            for _ in range(WINDOW):
                if not len(pool.queue):
                    break
                longest_seconds = inf
                if pool.ready & books.fleet.serving:
                    queued = self._queued(pool)
                    longest_seconds = books.capacity(pool, now).wait_seconds(queued)
                if longest_seconds <= books.peers.nearest_seconds():
                    break
                if not self._send_one_away(pool, now):
                    break

    def _send_one_away(self, pool: Pool, now: float) -> bool:
        queue = pool.queue
        last = len(queue) - 1
        oldest, newest = queue.oldest(WINDOW), queue.newest(WINDOW)
        placed = {flight.ticket: (ahead, flight) for ahead, flight in enumerate(oldest)}
        for behind, flight in enumerate(newest):
            placed.setdefault(flight.ticket, (last - behind, flight))
        best: tuple[float, Flight, Pick] | None = None
        siblings = self._queued(pool) / len(queue)
        for position, flight in placed.values():
            ahead = round(position * siblings)
            gain = self._gain(flight, ahead, now)
            if gain is not None and (best is None or gain[0] > best[0]):
                best = gain[0], flight, gain[1]
        return best is not None and self._go(best[1], best[2], now)

    def _gain(self, flight: Flight, ahead: int, now: float) -> tuple[float, Pick] | None:
        """What a request would gain in another region, behind so many others here."""
        pool = flight.pool
        if not self._books.peers.may_leave(flight, pool):
            return None
        queue_seconds = self._books.capacity(pool, now).wait_seconds(ahead)
        policy = self._policies[pool.settings.policy]
        return policy.leave(flight, pool, self._untried(flight), queue_seconds, now)

    def _go(self, flight: Flight, pick: Pick, now: float) -> bool:
        """Do what was picked, if it is not to wait."""
        if pick.slots:
            self._dispatch(flight, pick, now)
        elif pick.remote is not None:
            self._forward(flight, pick.remote, pick.explanation, now)
        else:
            return False
        return True

    def _queued(self, pool: Pool) -> int:
        """Requests that wait for the pool, here and at siblings."""
        return len(pool.queue) + self._books.siblings.queued(pool.name)

    def settle(self, now: float) -> None:
        """Serve the queues until nothing more can move, drop the late, ask for the next tick."""
        books = self._books
        if now >= self._wake_at:
            self._wake_at = inf
        if self._offer_due and now >= self._offer_at:
            self._offer_to_peers(now)
        self._fire_timers(now)
        freed = books.fleet.take_freed()
        if self._turns:
            self._take_turns(now)
        if books.ledger.queued:
            self._concern(freed, now)
            self._serve_queues([pool for pool in books.pools.values() if len(pool.queue)], now)
        else:
            books.concerned.clear()
        self._ask_for_tick(now)

    def _may_wait_without(self, flight: Flight, now: float) -> bool:
        """Whether a request is held though the pool has no endpoints.

        For a region that may soon serve it; or until its deadline, if it has been to so many that
        it goes to none any more.
        """
        return flight.forwards >= MOST_FORWARDS or self._books.peers.expected(flight, now)

    def _eligible(self, flight: Flight) -> int:
        """The slots that work and can serve the request."""
        return eligible_slots(flight, self._books.fleet)

    def _untried(self, flight: Flight) -> int:
        """Of those, the slots that have not failed with it."""
        eligible = self._eligible(flight)
        if flight.failed_at:
            eligible &= ~self._books.fleet.slots_of(flight.failed_at)
        return eligible

    def _enqueue(
        self, flight: Flight, why: Explanation, now: float, pick: Pick | None = None
    ) -> None:
        pool = flight.pool
        if now >= flight.deadline:
            self._evict(flight, now)
            return
        if flight.request.priority < 0 or not self._make_place(flight, now):
            self._reject(flight, RejectReason.QUEUE_FULL, _retry_after_seconds(pool), now)
            return
        if pick is None:
            pool.queue.add(flight, None)
        else:
            pool.queue.add(flight, pick.hold_for, pick.held_seconds)
        for at in {flight.aged_at, flight.unheld_at, flight.overdue_at, flight.deadline}:
            heappush(self._timers, (at, flight.ticket))
        self.out.append(Enqueue(flight.ticket, flight.deadline, why))

    def _make_place(self, flight: Flight, now: float) -> bool:
        """Whether the queue has a place: a full one gives up its last for a higher priority."""
        pool, priority = flight.pool, flight.request.priority
        if len(pool.queue) < pool.settings.queue_limit:
            return True
        last = pool.queue.last() if priority > 0 else None
        if last is None or last.request.priority >= priority:
            return False
        self._evict(last, now, EvictReason.DISPLACED)
        return True

    def _reject(
        self, flight: Flight, reason: RejectReason, retry_after_seconds: float, now: float
    ) -> None:
        self._books.close(flight, now)
        self.out.append(Reject(flight.ticket, reason, retry_after_seconds))

    def _evict(self, flight: Flight, now: float, reason: EvictReason | None = None) -> None:
        pool = flight.pool
        self._books.close(flight, now)
        if reason is None:
            reason = EvictReason.DEADLINE_PASSED if pool.members else EvictReason.NO_ENDPOINTS
        self.out.append(Evict(flight.ticket, reason, _retry_after_seconds(pool)))

    def _dispatch(self, flight: Flight, pick: Pick, now: float) -> None:
        fleet = self._books.fleet
        if flight.queued:
            flight.pool.queue.remove(flight)
        self._books.send(flight, fleet[pick.slots[0]], now)
        addresses = tuple(fleet[slot].address for slot in pick.slots)
        self.out.append(Dispatch(flight.ticket, addresses, pick.explanation))

    def _forward(self, flight: Flight, remote: Remote, why: Explanation, now: float) -> None:
        if flight.queued:
            flight.pool.queue.remove(flight)
        self._books.forward(flight, remote, now)
        self.out.append(Forward(flight.ticket, remote.region, remote.hold_seconds, why))

    # Queues

    def _serve_queues(self, queues: list[Pool], now: float) -> None:
        """Offer the endpoints to which something happened to every queue."""
        books = self._books
        for _ in range(SERVED_IN_ONE_GO):
            if not books.concerned:
                return
            slot = next(iter(books.concerned))
            del books.concerned[slot]
            for pool in queues:
                if pool.queue.has_any_for(slot) and pool.members >> slot & 1:
                    self._serve(slot, pool, now)
            self._concern(books.fleet.take_freed(), now)

    def _concern(self, freed: list[int], now: float) -> None:
        """Let the queues look at these slots too, which have just become available."""
        self._books.open_to_all(freed, now)
        for slot in freed:
            self._books.concerned[slot] = None

    def _serve(self, slot: int, pool: Pool, now: float) -> None:
        """Let one endpoint take from one queue, and those that wait for it think again."""
        if not pool.ready & self._books.fleet.serving & (1 << slot):
            pool.queue.unhold(slot)
            self._reconsider(pool.queue.oldest(WINDOW), now)
            return
        if self._books.siblings.queueing and self._leaves(slot, pool, now):
            return
        for _ in range(ROUNDS):
            window = self._window(slot, pool)
            if not window:
                break
            if not self._offer(slot, pool, window, now) and window == self._window(slot, pool):
                break
        else:
            self._books.concerned[slot] = None
        self._reconsider(pool.queue.held(slot, RECONSIDERED), now)

    def _window(self, slot: int, pool: Pool) -> list[Flight]:
        """The queued requests that this endpoint could take now."""
        fleet = self._books.fleet
        if not fleet.available >> slot & 1:
            return []

        def takes(flight: Flight) -> bool:
            return bool(eligible_slots(flight, fleet) >> slot & 1)

        return pool.queue.window(slot, takes, WINDOW)

    def _reserved(self, flight: Flight, now: float) -> int:
        """The slots that are kept for a request that goes before this one.

        All that could serve one of a higher priority, or the one whose room is kept for an older
        one that has aged: requests that need little KV would for ever overtake one that needs much.
        """
        oldest = next(iter(flight.pool.queue.oldest(1)), flight)
        if oldest.request.priority > flight.request.priority:
            return self._eligible(oldest)
        if oldest.reserves is None or now >= oldest.overdue_at:
            return 0
        if place_of(oldest) >= place_of(flight):
            return 0
        return 1 << oldest.reserves

    def _offer(self, slot: int, pool: Pool, window: list[Flight], now: float) -> bool:
        """Dispatch the one that the endpoint should take; return whether there was one."""
        choice = self._policies[pool.settings.policy].choose(window, pool, slot, now)
        if choice.taken is None:
            self._reconsider(choice.reluctant, now)
            return False
        self._dispatch(*choice.taken, now)
        return True

    def _reconsider(self, flights: list[Flight], now: float) -> None:
        """Decide queued requests anew: each goes, or waits for what is best for it now."""
        for flight in flights:
            pool = flight.pool
            free = self._eligible(flight) & ~self._reserved(flight, now)
            if not free or (_holds(pool) and not free & self._books.fleet.available):
                pool.queue.move(flight, None)
                continue
            pick = self._pick(flight, pool, free, now)
            if self._go(flight, pick, now):
                continue
            if now >= flight.aged_at:
                flight.reserves = pick.hold_for
                pool.queue.move(flight, None)
            elif now >= flight.unheld_at:
                pool.queue.move(flight, None)
            else:
                pool.queue.move(flight, pick.hold_for, pick.held_seconds)

    # Siblings

    def on_sibling_queues(self, event: SiblingQueues, now: float) -> None:
        """Take over what a sibling has queued: others may have to be let go first, or no more."""
        self._books.siblings.update_queues(event, now)
        self.on_turns_changed()

    def on_turns_changed(self) -> None:
        """Look again at the slots that were left to siblings."""
        self._books.concerned.update(dict.fromkeys(self._turns))
        self._turns.clear()

    def _pick(self, flight: Flight, pool: Pool, free: int, now: float) -> Pick:
        """What the policy picks; an endpoint that is another's to take first is waited for."""
        pick = self._policies[pool.settings.policy].pick(flight, pool, free, now)
        if pick.slots and self._books.siblings.queueing:
            slot = pick.slots[0]
            if self._leaves(slot, pool, now, flight.arrived_at):
                return Pick((), _unscored(pool, "behind-older", free), slot)
        return pick

    def _leaves(self, slot: int, pool: Pool, now: float, since: float = inf) -> bool:
        """Whether siblings with older claims may still take this slot; if so, ask for a turn.

        `since` is when the request has arrived that would take it, if it is in no queue.
        """
        books = self._books
        opened_at = books.opened.get(slot)
        if opened_at is None or not _holds(pool) or not books.fleet.available >> slot & 1:
            return False
        for flight in (*pool.queue.oldest(1), *pool.queue.held(slot, 1)):
            since = min(since, flight.arrived_at)
        rank = books.siblings.rank(pool.name, books.fleet[slot].address, since)
        turn_at = opened_at + rank * TURN_SECONDS
        if now >= turn_at:
            return False
        self._turns[slot] = min(turn_at, self._turns.get(slot, inf))
        return True

    def _take_turns(self, now: float) -> None:
        for slot in [slot for slot, at in self._turns.items() if at <= now]:
            del self._turns[slot]
            self._books.concerned[slot] = None

    # Time

    def _fire_timers(self, now: float) -> None:
        """Let the aged and the overdue have their way; evict those past their deadline."""
        while self._timers and self._timers[0][0] <= now:
            flight = self._books.flights.get(heappop(self._timers)[1])
            if flight is None or not flight.queued:
                continue
            self._reconsider([flight], now)
            if flight.queued and now >= flight.deadline:
                self._evict(flight, now)

    @property
    def _offer_at(self) -> float:
        return self._offered_at + OFFER_SECONDS

    def _ask_for_tick(self, now: float) -> None:
        """Ask to be woken for the next deadline, or when time alone frees an endpoint."""
        while self._timers and not self._is_queued(self._timers[0][1]):
            heappop(self._timers)
        if not self._timers:
            return
        at = min(self._timers[0][0], self._books.fleet.next_timer() or inf)
        if self._turns:
            at = min(at, *self._turns.values())
        if self._offer_due:
            at = min(at, self._offer_at)
        if self._books.concerned:
            at = now
        if at < self._wake_at:
            self._wake_at = at
            self.out.append(WakeAt(at))

    def _is_queued(self, ticket: int) -> bool:
        flight = self._books.flights.get(ticket)
        return flight is not None and flight.queued


def _holds(pool: Pool) -> bool:
    """Whether the pool's policy lets requests wait for an endpoint; the others send at once."""
    return pool.settings.policy is PolicyName.HELIOSTAT


def _retry_after_seconds(pool: Pool) -> float:
    """When the queue will have drained, at the rate at which requests end now (Little's law)."""
    rate = pool.inflight / pool.tokens.mean_duration_seconds
    drained_in = len(pool.queue) / rate if rate > 0 else LONGEST_RETRY_AFTER_SECONDS
    return min(max(1.0, drained_in), LONGEST_RETRY_AFTER_SECONDS)


def _unscored(pool: Pool, rule: str, eligible: int) -> Explanation:
    return Explanation(pool.settings.policy, rule, None, eligible.bit_count())
