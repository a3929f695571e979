"""What is written down of every request and engine while the world runs."""

from dataclasses import dataclass, field
from typing import NamedTuple

from heliostat_sim.world.request import Ending, Request


class Record(NamedTuple):
    """One request that has ended, as its client saw it. Seconds."""

    region: str
    served_in: str
    """The region of the engine that served it; empty if none did."""
    sent_at: float
    ended_at: float
    ending: Ending
    ttft_seconds: float | None
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    forwarded: bool
    attempts: int
    """How often its client had to send it again."""


class Sample(NamedTuple):
    """The engines at one instant, in the order of the world's engines."""

    at: float
    outstanding: tuple[int, ...]
    """Requests in each engine, waiting or running."""
    queued: int
    """Requests that gateways hold."""


class OpenRequest(NamedTuple):
    """One request that is open at the end. Seconds."""

    region: str
    sent_at: float
    ttft_seconds: float | None
    """None if its first token has not come yet."""


@dataclass(slots=True)
class Records:
    """Everything that a report is made from."""

    sent: int = 0
    """Requests that clients sent, each counted once however often it was sent again."""
    requests: list[Record] = field(default_factory=list)
    still_open: list[OpenRequest] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    preemptions: int = 0
    generated_tokens: int = 0
    """By all engines, also of requests that were cut off later."""
    prefill_tokens: int = 0
    """Prompt tokens that engines computed."""
    messages: int = 0
    """State messages between regions, one for each gateway that they go to."""
    message_bytes: int = 0
    relays: int = 0
    """Messages between the gateways of one region, one for each that they go to."""
    relay_bytes: int = 0
    engine_seconds: float = 0.0
    """Time that engines were up, all together."""

    def note(self, request: Request) -> None:
        """Write down a request that has ended."""
        ended_at = request.sent_at if request.ended_at is None else request.ended_at
        ending = request.ending or Ending.BROKEN
        served = ending is Ending.SERVED and request.engine is not None
        first = request.first_token_at
        self.requests.append(
            Record(
                region=request.region,
                served_in=request.engine.region if served else "",
                sent_at=request.sent_at,
                ended_at=ended_at,
                ending=ending,
                ttft_seconds=None if first is None else first - request.sent_at,
                prompt_tokens=request.prompt_tokens,
                cached_tokens=request.cached_tokens,
                output_tokens=request.output_tokens if served else 0,
                forwarded=request.forwarded,
                attempts=request.attempts,
            )
        )

    def note_open(self, request: Request) -> None:
        """Write down a request that has not ended when the world does."""
        first = None if request.ending is Ending.BROKEN else request.first_token_at
        ttft_seconds = None if first is None else first - request.sent_at
        self.still_open.append(OpenRequest(request.region, request.sent_at, ttft_seconds))
