"""The engine: admits, batches, advances and preempts requests, step by step or in leaps.

A step's batch is fixed at its start: one token for every decoding request, then prompt chunks of
running requests, then waiting requests first come first served, all within the token budget.
Steps that only decode form a run whose times have a closed form, so `advance` may cross thousands
of them at the price of one.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace

from heliostat_sim.engine.block_pool import BlockPool
from heliostat_sim.engine.decode_group import DecodeGroup
from heliostat_sim.engine.errors import EngineOverloadedError, RequestTooLongError
from heliostat_sim.engine.events import EngineEvent, Finished, FirstToken, Preempted
from heliostat_sim.engine.profiles import EngineProfile
from heliostat_sim.engine.request import EngineRequest, SequenceState
from heliostat_sim.engine.run import Run


@dataclass(slots=True)
class EngineTotals:
    """Cumulative counts since the engine's start."""

    prefix_queried_tokens: int = 0
    prefix_hit_tokens: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    generated_tokens: int = 0
    preemptions: int = 0
    aborted_requests: int = 0


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """The engine's state at one instant."""

    running_requests: int
    waiting_requests: int
    kv_cache_utilization: float
    totals: EngineTotals


@dataclass(frozen=True, slots=True)
class Unfinished:
    """One request in the engine at one instant, as an onlooker with full sight sees it."""

    request_id: int
    uncomputed_tokens: int
    """Of prompt and output so far, what must yet be computed; without sight of the cache for a
    request that waits."""
    computed_tokens: int
    remaining_output_tokens: int
    held_blocks: int
    """Blocks that the request holds, those shared with others included."""
    findable_blocks: int
    """Of these, the ones that others may hold too."""
    is_waiting: bool


class Engine:
    """One engine. Instants passed in must never decrease; any origin will do (seconds)."""

    def __init__(self, profile: EngineProfile) -> None:
        self.profile = profile
        self.pool = BlockPool(profile.kv_blocks)
        self._decoding = DecodeGroup(profile.block_tokens)
        self._running: dict[int, SequenceState] = {}
        self._waiting: OrderedDict[int, SequenceState] = OrderedDict()
        self._chunks: list[tuple[SequenceState, int]] = []
        self._prefilling: dict[int, SequenceState] = {}
        self._run: Run | None = None
        self._events: list[EngineEvent] = []
        self._totals = EngineTotals()
        self._refused_at_version: int | None = None

    def is_full(self, now: float) -> bool:
        """Return whether `submit` would raise EngineOverloadedError."""
        self._synchronize(now)
        limit = self.profile.max_unfinished_requests
        return limit is not None and len(self._running) + len(self._waiting) >= limit

    def submit(self, request: EngineRequest, now: float) -> None:
        """Queue a request; it may start at once.

        Raises EngineOverloadedError and RequestTooLongError, both without effect.
        """
        if self.is_full(now):
            limit = self.profile.max_unfinished_requests
            raise EngineOverloadedError(f"{limit} requests are unfinished already")
        kept_tokens = request.prompt_tokens + request.output_tokens - 1
        if self._blocks(kept_tokens) > self.pool.capacity_blocks:
            raise RequestTooLongError(
                f"{kept_tokens} tokens exceed the KV cache of {self.profile.kv_tokens}"
            )
        self._waiting[request.id] = SequenceState(request, arrived_at=now)
        if self._run is None:
            self._begin_step(now)
        else:
            self._run.cut()

    def abort(self, request_id: int, now: float) -> bool:
        """Forget a request and free its blocks; False if it has finished or never was."""
        self._synchronize(now)
        sequence = self._waiting.pop(request_id, None)
        if sequence is not None:
            self._refused_at_version = None
        else:
            sequence = self._running.get(request_id)
            if sequence is None:
                return False
            self._leave(sequence, in_step=True)
        if self._run is not None:
            self._run.cut()
        self._totals.aborted_requests += 1
        return True

    def advance(self, now: float) -> list[EngineEvent]:
        """Run every step that ends by `now`; return all that happened since the last call."""
        self._synchronize(now)
        events, self._events = self._events, []
        return events

    def next_event_at(self) -> float | None:
        """Return when something may happen that `advance` reports; None while idle."""
        return None if self._run is None else self._run.end_of(self._run.steps)

    def next_step_at(self) -> float | None:
        """Return when the step in progress ends, and new tokens exist; None while idle."""
        return None if self._run is None else self._run.end_of(self._run.done + 1)

    def output_tokens(self, request_id: int) -> int:
        """Output tokens of an unfinished request as of the last advance. Raises KeyError."""
        sequence = self._running.get(request_id) or self._waiting[request_id]
        return self._decoding.output_tokens(sequence)

    def metrics(self) -> EngineMetrics:
        """Return the state as of the last advance."""
        pool = self.pool
        used = pool.capacity_blocks - pool.available_blocks
        return EngineMetrics(
            running_requests=len(self._running),
            waiting_requests=len(self._waiting),
            kv_cache_utilization=used / pool.capacity_blocks,
            totals=replace(self._totals),
        )

    def unfinished(self, now: float) -> list[Unfinished]:
        """Return the requests in the engine, running ones first. Changes nothing.

        now: not before the last advance, and not after `next_event_at`.
        """
        ahead = self._steps_ahead(now)
        return [
            self._describe(sequence, ahead, is_waiting=False) for sequence in self._running.values()
        ] + [self._describe(sequence, 0, is_waiting=True) for sequence in self._waiting.values()]

    def available_blocks(self, now: float) -> int:
        """Return the blocks that can be taken at this instant; as with `unfinished`."""
        ahead = self._steps_ahead(now)
        taken = self._decoding.blocks_for(self._decoding.steps + 1, ahead) if ahead else 0
        return self.pool.available_blocks - taken

    def _steps_ahead(self, now: float) -> int:
        return 0 if self._run is None else self._run.completed_by(now) - self._run.done

    def _describe(self, sequence: SequenceState, ahead: int, *, is_waiting: bool) -> Unfinished:
        output, computed = sequence.output_tokens, sequence.computed_tokens
        uncomputed = sequence.target_tokens - computed
        held = 0 if is_waiting else self._blocks(sequence.target_tokens)
        if sequence.joined_step is not None:
            gained = self._decoding.steps - sequence.joined_step + ahead
            output, computed = output + gained, computed + gained
            uncomputed = 0
            held = self._blocks(computed)
        return Unfinished(
            request_id=sequence.request.id,
            uncomputed_tokens=uncomputed,
            computed_tokens=computed,
            remaining_output_tokens=sequence.request.output_tokens - output,
            held_blocks=held,
            findable_blocks=len(sequence.held_hashes),
            is_waiting=is_waiting,
        )

    def _synchronize(self, now: float) -> None:
        while (run := self._run) is not None:
            steps = run.completed_by(now) - run.done
            if not steps:
                return
            self._complete_steps(run, steps)
            if run.done < run.steps:
                return
            ended_at = run.end_of(run.done)
            self._finish_chunks(ended_at)
            for sequence in self._decoding.pop_finished():
                self._finish(sequence, ended_at)
            self._begin_step(ended_at)

    def _complete_steps(self, run: Run, steps: int) -> None:
        """Account for steps that have ended, and for the blocks of those that they led to."""
        decoding = self._decoding
        first = decoding.steps + 1
        decoding.advance(steps)
        self._totals.generated_tokens += decoding.members * steps
        run.done += steps
        begun = steps if run.done < run.steps else steps - 1
        self.pool.take(decoding.blocks_for(first, begun))

    def _begin_step(self, now: float) -> None:
        """Form the next batch; leave the engine idle if there is none."""
        decoding = self._decoding
        preempted = self._make_room(now)
        self.pool.take(decoding.blocks_for(decoding.steps, 1))
        budget = self.profile.max_step_tokens - decoding.members
        prefill_tokens = 0
        for sequence in self._prefilling.values():
            prefill_tokens += self._schedule_chunk(sequence, budget - prefill_tokens)
        if not preempted:
            prefill_tokens += self._admit(budget - prefill_tokens, now)
        if not prefill_tokens and not decoding.members:
            self._run = None
            return
        steps = 1 if prefill_tokens else self._uniform_steps()
        growth = self.profile.context_seconds_per_token * decoding.members
        self._run = Run(
            started_at=now,
            steps=steps,
            first_seconds=self.profile.step_seconds(
                prefill_tokens, decoding.members, decoding.context_tokens
            ),
            growth_seconds=growth / self.profile.speed_ratio,
        )

    def _uniform_steps(self) -> int:
        """Count the steps that surely change nothing but positions: no finish, no preemption."""
        decoding = self._decoding
        with_room = 1 + decoding.steps_within(decoding.steps + 1, self.pool.available_blocks)
        return min(decoding.steps_to_next_finish(), with_room)

    def _make_room(self, now: float) -> bool:
        """Preempt the latest admitted until every decoding request can have its next token."""
        decoding = self._decoding
        preempted = False
        while decoding.blocks_for(decoding.steps, 1) > self.pool.available_blocks:
            sequence = next(reversed(self._running.values()))
            self._leave(sequence, in_step=False)
            sequence.computed_tokens = 0
            self._waiting[sequence.request.id] = sequence
            self._waiting.move_to_end(sequence.request.id, last=False)
            self._totals.preemptions += 1
            self._events.append(Preempted(sequence.request.id, now))
            preempted = True
        return preempted

    def _schedule_chunk(self, sequence: SequenceState, budget_tokens: int) -> int:
        """Put as much of the prompt into the step as the budget allows; return the tokens."""
        tokens = min(budget_tokens, sequence.target_tokens - sequence.computed_tokens)
        if tokens <= 0:
            return 0
        self._chunks.append((sequence, tokens))
        filled = (sequence.computed_tokens + tokens) // self.profile.block_tokens
        hashes = sequence.request.block_hashes.between(sequence.registered_blocks, filled)
        stored = self.pool.register(hashes)
        sequence.held_hashes += stored
        if sequence.first_token_at is None:
            sequence.stored_blocks += len(stored)
        sequence.registered_blocks = filled
        return tokens

    def _admit(self, budget_tokens: int, now: float) -> int:
        """Move waiting requests into the batch while budget, places and blocks last.

        Returns the tokens of their first chunks.
        """
        admitted_tokens = 0
        while (
            self._waiting
            and budget_tokens > admitted_tokens
            and len(self._running) < self.profile.max_running_requests
        ):
            sequence = next(iter(self._waiting.values()))
            if not self._allocate(sequence):
                break
            self._waiting.popitem(last=False)
            self._running[sequence.request.id] = sequence
            self._prefilling[sequence.request.id] = sequence
            if sequence.admitted_at is None:
                self._count_admission(sequence, now)
            admitted_tokens += self._schedule_chunk(sequence, budget_tokens - admitted_tokens)
        return admitted_tokens

    def _allocate(self, sequence: SequenceState) -> bool:
        """Give a waiting request the blocks of its whole prompt, cached ones first, if it fits."""
        pool = self.pool
        if self._refused_at_version == pool.version:
            return False
        cached = self._match_prefix(sequence)
        needed = self._blocks(sequence.target_tokens) - len(cached)
        if needed > pool.available_blocks - pool.count_idle(cached):
            self._refused_at_version = pool.version
            return False
        self._refused_at_version = None
        pool.hold(cached)
        pool.take(needed)
        sequence.held_hashes = cached
        sequence.registered_blocks = len(cached)
        sequence.computed_tokens = len(cached) * self.profile.block_tokens
        return True

    def _match_prefix(self, sequence: SequenceState) -> list[int]:
        """Return the longest cached chain; at least one token is always left to compute."""
        blocks = (sequence.target_tokens - 1) // self.profile.block_tokens
        return self.pool.match(sequence.request.block_hashes.between(0, blocks))

    def _count_admission(self, sequence: SequenceState, now: float) -> None:
        sequence.admitted_at = now
        sequence.cached_tokens = sequence.computed_tokens
        self._totals.prefix_queried_tokens += sequence.request.prompt_tokens
        self._totals.prefix_hit_tokens += sequence.cached_tokens

    def _finish_chunks(self, now: float) -> None:
        """Advance the prompts of the step that ended; whole ones yield a token and decode on."""
        chunks, self._chunks = self._chunks, []
        for sequence, tokens in chunks:
            if sequence.request.id not in self._prefilling:
                continue
            sequence.computed_tokens += tokens
            if sequence.computed_tokens < sequence.target_tokens:
                continue
            del self._prefilling[sequence.request.id]
            sequence.output_tokens += 1
            self._totals.generated_tokens += 1
            if sequence.first_token_at is None:
                sequence.first_token_at = now
                self._totals.prompt_tokens += sequence.request.prompt_tokens
                self._totals.cached_prompt_tokens += sequence.cached_tokens
                self._events.append(FirstToken(sequence.request.id, now, sequence.cached_tokens))
            if sequence.output_tokens == sequence.request.output_tokens:
                self._finish(sequence, now)
            else:
                self._decoding.join(sequence)

    def _finish(self, sequence: SequenceState, now: float) -> None:
        self._leave(sequence, in_step=False)
        request = sequence.request
        arrived_at = sequence.arrived_at
        self._events.append(
            Finished(
                request_id=request.id,
                at=now,
                reason=request.finish_reason,
                prompt_tokens=request.prompt_tokens,
                output_tokens=sequence.output_tokens,
                cached_tokens=sequence.cached_tokens,
                stored_tokens=sequence.stored_blocks * self.profile.block_tokens,
                arrived_at=arrived_at,
                admitted_at=arrived_at if sequence.admitted_at is None else sequence.admitted_at,
                first_token_at=now if sequence.first_token_at is None else sequence.first_token_at,
            )
        )

    def _leave(self, sequence: SequenceState, *, in_step: bool) -> None:
        """Take a request out of the batch; its filled blocks stay cached, its tail goes first.

        in_step: a step is in progress, so a decoding request has room for that step's token.
        """
        request_id = sequence.request.id
        del self._running[request_id]
        if sequence.joined_step is None:
            blocks = self._blocks(sequence.target_tokens)
            if self._prefilling.pop(request_id, None) is None:
                blocks = self._blocks(sequence.computed_tokens)
        else:
            self._decoding.leave(sequence)
            blocks = self._blocks(sequence.computed_tokens + in_step)
        self._free(sequence, blocks)

    def _free(self, sequence: SequenceState, blocks: int) -> None:
        pool = self.pool
        anonymous = blocks - len(sequence.held_hashes)
        filled = sequence.computed_tokens // self.profile.block_tokens
        hashes = sequence.request.block_hashes.between(sequence.registered_blocks, filled)
        pool.free_anonymous(anonymous - pool.retire(reversed(hashes)))
        pool.release(reversed(sequence.held_hashes))
        sequence.held_hashes = []
        sequence.registered_blocks = 0

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.profile.block_tokens)
