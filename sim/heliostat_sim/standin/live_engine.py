"""Drives the engine model by the event loop's clock and hands its tokens to the answers."""

import asyncio
from itertools import count
from typing import Protocol

from heliostat_sim.engine import Engine, EngineRequest, Finished, FirstToken
from heliostat_sim.standin.exposition import EngineExposition
from heliostat_sim.standin.requests import GenerationPlan


class Answer(Protocol):
    """Receives one request's progress, synchronously; it must not block or raise."""

    streams: bool

    def on_tokens(self, output_tokens: int) -> None:
        """Take note that this many output tokens exist; only for answers that stream."""
        ...

    def on_finish(self, event: Finished) -> None:
        """Take the end, with all tokens that were not reported before."""
        ...


class LiveEngine:
    """One engine in real time. It wakes once per step while anyone streams, else per event."""

    def __init__(self, engine: Engine, exposition: EngineExposition) -> None:
        self._engine = engine
        self._exposition = exposition
        self._loop = asyncio.get_running_loop()
        self._ids = count(1)
        self._answers: dict[int, tuple[Answer, float]] = {}
        self._streaming: dict[int, Answer] = {}
        self._adapters: dict[int, str] = {}
        self._timer: asyncio.Handle | None = None
        self._timer_due_at: float | None = None

    def is_full(self) -> bool:
        """Whether the engine holds as many unfinished requests as it may."""
        return self._engine.is_full(self._loop.time())

    @property
    def unfinished_requests(self) -> int:
        """How many requests have been started and not yet answered to the end."""
        return len(self._answers)

    def start(self, plan: GenerationPlan, answer: Answer) -> int:
        """Submit a request; return its id. Raises EngineError."""
        request_id = next(self._ids)
        request = EngineRequest(
            id=request_id,
            prompt_tokens=plan.blocks.prompt_tokens,
            output_tokens=plan.output_tokens,
            block_hashes=plan.blocks,
            finish_reason=plan.finish_reason,
        )
        now = self._loop.time()
        self._engine.submit(request, now)
        self._answers[request_id] = (answer, now)
        if plan.adapter is not None:
            self._adapters[request_id] = plan.adapter
        self._advance()
        self._schedule()
        return request_id

    def abort(self, request_id: int) -> None:
        """Stop a request whose client has gone."""
        self._streaming.pop(request_id, None)
        self._adapters.pop(request_id, None)
        if self._answers.pop(request_id, None) is not None:
            self._engine.abort(request_id, self._loop.time())
            self._advance()
            self._schedule()

    def reset_prefix_cache(self) -> None:
        """Forget every cached prefix that no request holds."""
        self._advance()
        self._engine.pool.clear_idle()

    def render_metrics(self) -> str:
        """Return the metrics page of this instant."""
        self._advance()
        self._exposition.note_adapters(set(self._adapters.values()))
        return self._exposition.render(self._engine.metrics())

    def close(self) -> None:
        """Stop the clock."""
        if self._timer is not None:
            self._timer.cancel()

    def _wake(self) -> None:
        self._timer = None
        self._advance()
        self._schedule()

    def _advance(self) -> None:
        """Hand out what has happened; whatever moves the engine on does so before it schedules."""
        for event in self._engine.advance(self._loop.time()):
            if isinstance(event, FirstToken):
                self._on_first_token(event)
            elif isinstance(event, Finished):
                self._on_finish(event)
        output_tokens = self._engine.output_tokens
        for request_id, answer in self._streaming.items():
            answer.on_tokens(output_tokens(request_id))

    def _on_first_token(self, event: FirstToken) -> None:
        answer, arrived_at = self._answers.get(event.request_id, (None, 0.0))
        if answer is None:
            return
        self._exposition.observe_first_token(event.at - arrived_at)
        if answer.streams:
            self._streaming[event.request_id] = answer

    def _on_finish(self, event: Finished) -> None:
        self._exposition.observe_finish(event)
        self._streaming.pop(event.request_id, None)
        self._adapters.pop(event.request_id, None)
        if event.request_id in self._answers:
            answer, _ = self._answers.pop(event.request_id)
            answer.on_finish(event)

    def _schedule(self) -> None:
        """Set the timer for the next instant at which there is something to hand out.

        The instant is kept beside the timer: uvloop returns a plain Handle for one that is past.
        """
        engine = self._engine
        due_at = engine.next_step_at() if self._streaming else engine.next_event_at()
        if self._timer is not None:
            if self._timer_due_at == due_at:
                return
            self._timer.cancel()
            self._timer = None
        if due_at is not None:
            self._timer_due_at = due_at
            self._timer = self._loop.call_at(due_at, self._wake)
