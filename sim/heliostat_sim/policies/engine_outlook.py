"""What a clairvoyant knows of one engine: who finishes when, and from when a newcomer fits.

Known exactly: every running request's remaining output, the cache, what waits and what is on its
way. From these the KV demand at every later decode step follows, as long as nobody else comes. A
newcomer is let in where its whole life fits beside the others', so that hardly anybody is
preempted. Blocks that running requests share are counted at their average share, an estimate.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from heliostat_sim.policies.prefix_trie import prompt_blocks
from heliostat_sim.world.engine_host import EngineHost
from heliostat_sim.world.request import Request


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a request would meet on an engine."""

    wait_seconds: float
    """Until it may be let in; 0: now."""
    prefill_seconds: float
    """Of prompts before it and its own, until its first token."""
    decode_seconds: float
    slowdown_seconds: float
    """What it costs all others in the batch together."""

    @property
    def cost_seconds(self) -> float:
        """By how much all requests together get later, without the network."""
        return (
            self.wait_seconds + self.prefill_seconds + self.decode_seconds + self.slowdown_seconds
        )


class EngineOutlook:
    """One engine at one instant."""

    def __init__(self, host: EngineHost, coming: Iterable[Request], now: float) -> None:
        self._host = host
        self._profile = host.profile
        block = self._profile.block_tokens
        engine = host.engine
        members = engine.unfinished(now)
        findable = sum(member.findable_blocks for member in members)
        share = engine.pool.shared_blocks / findable if findable else 1.0
        self._room_tokens = float(engine.available_blocks(now) * block)
        self._soon: set[int] = set()
        """Blocks that will be in the cache before a newcomer is: of prompts that wait or come."""
        self._backlog_tokens = 0
        self._context_tokens = 0
        self._ends: list[tuple[int, float]] = []
        """(decode steps to come, tokens that become available then beyond those of the steps)."""
        for member in members:
            if member.is_waiting:
                request = host.requests.get(member.request_id)
                if request is not None:
                    self._admit(request)
                continue
            own = member.held_blocks - member.findable_blocks * (1.0 - share)
            self._ends.append((member.remaining_output_tokens, own * block))
            self._backlog_tokens += member.uncomputed_tokens
            self._context_tokens += member.computed_tokens
        for request in coming:
            self._admit(request)
        self._ends.sort()

    def forecast(self, request: Request) -> Forecast | None:
        """What the request would meet; None where it never fits."""
        profile = self._profile
        cached, needed = self._prompt_need(request)
        gone = self._first_fit(needed, request.output_tokens)
        if gone is None:
            return None
        batch = len(self._ends) - gone
        steps_before = self._ends[gone - 1][0] if gone else 0
        context = self._context_tokens * batch / len(self._ends) if self._ends else 0.0
        own_context = request.prompt_tokens + request.output_tokens // 2
        step = profile.step_seconds(0, batch + 1, int(context + own_context))
        uncached = request.prompt_tokens - cached
        own_prefill = self._prefill_seconds(uncached, batch)
        backlog = self._prefill_seconds(self._backlog_tokens, batch) if not gone else 0.0
        shared_steps = sum(
            min(end - steps_before, request.output_tokens) for end, _ in self._ends[gone:]
        )
        per_token = profile.context_seconds_per_token / profile.speed_ratio
        chunks = ceil(uncached / profile.max_step_tokens)
        hidden = chunks * profile.step_seconds(0, 1, 0) if batch else 0.0
        return Forecast(
            wait_seconds=steps_before * self._step_now(),
            prefill_seconds=backlog + own_prefill,
            decode_seconds=(request.output_tokens - 1) * step,
            slowdown_seconds=batch * max(own_prefill - hidden, 0.0)
            + shared_steps * own_context * per_token,
        )

    def _admit(self, request: Request) -> None:
        """Count a request that waits or comes as if it ran."""
        cached, needed = self._prompt_need(request)
        self._room_tokens -= needed
        self._ends.append((request.output_tokens, needed))
        self._backlog_tokens += request.prompt_tokens - cached
        self._context_tokens += request.prompt_tokens
        self._soon.update(prompt_blocks(request))

    def _prompt_need(self, request: Request) -> tuple[int, float]:
        """Prompt tokens that are cached, and those that become unavailable for it."""
        pool, block = self._host.engine.pool, self._profile.block_tokens
        hashes = request.chain.between(0, (request.prompt_tokens - 1) // block)
        matched = pool.match(hashes)
        held = len(matched) - pool.count_idle(matched)
        cached = len(matched)
        while cached < len(hashes) and hashes[cached] in self._soon:
            cached += 1
            held += 1
        return cached * block, float(request.prompt_tokens + block - held * block)

    def _first_fit(self, needed_tokens: float, output_tokens: int) -> int | None:
        """After how many finishes the request fits for all its life; None: never."""
        capacity = self._profile.kv_blocks * self._profile.block_tokens
        if len(self._ends) >= self._profile.max_running_requests:
            first = len(self._ends) - self._profile.max_running_requests + 1
        else:
            first = 0
        freed = sum(tokens for _, tokens in self._ends[:first])
        for gone in range(first, len(self._ends) + 1):
            start = self._ends[gone - 1][0] if gone else 0
            if self._fits(gone, start, self._room_tokens + freed, needed_tokens, output_tokens):
                return gone
            if gone < len(self._ends):
                freed += self._ends[gone][1]
        return len(self._ends) if needed_tokens + output_tokens <= capacity else None

    def _fits(self, gone: int, start: int, room: float, needed: float, output: int) -> bool:
        """Whether KV suffices at every finish from `start` on, and at the request's own."""
        ends = self._ends
        members = len(ends) - gone
        stop = start + output
        for end, tokens in ends[gone:]:
            step = min(end, stop)
            if needed + (step - start) + members * step > room:
                return False
            if end >= stop:
                return True
            room += tokens
            members -= 1
        return needed + output <= room

    def _prefill_seconds(self, tokens: int, batch: int) -> float:
        if tokens <= 0:
            return 0.0
        profile = self._profile
        context = self._context_tokens if batch else 0
        whole, rest = divmod(tokens, profile.max_step_tokens)
        seconds = whole * profile.step_seconds(profile.max_step_tokens, batch, context)
        return seconds + (profile.step_seconds(rest, batch, context) if rest else 0.0)

    def _step_now(self) -> float:
        return self._profile.step_seconds(0, len(self._ends), self._context_tokens)
