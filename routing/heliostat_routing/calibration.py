"""What one measured request teaches: rates, sizes, and which blocks the engine no longer had."""

from heliostat_routing.books import capacity_blocks
from heliostat_routing.endpoint import Endpoint
from heliostat_routing.events import RequestMeasured
from heliostat_routing.flight import Flight
from heliostat_routing.prefix_index import PrefixIndex, former_stamp
from heliostat_routing.settings import BLOCK_BYTES

PROMPT_WAIT_SECONDS = 0.001
"""A request that was predicted to wait longer than this says nothing clean about prefill."""
SHORTFALL_TOLERANCE_RATIO = 0.1
FEWEST_PACED_TOKENS = 8
"""A shorter answer tells little about the time per token."""
SETTLE_SECONDS = 0.25
"""A block recorded this shortly before the dispatch may not have been computed yet."""


def calibrate(
    event: RequestMeasured, flight: Flight, endpoint: Endpoint, index: PrefixIndex, stamp: float
) -> None:
    """Learn from a request that this endpoint, the one picked last, has served.

    What an engine says of itself is not taken on trust: counts that cannot be are passed over.
    """
    tokens = flight.pool.tokens
    if event.prompt_tokens:
        tokens.observe_prompt(flight.request.prompt_bytes, event.prompt_tokens)
    output = event.output_tokens or 0
    if 0 < output <= endpoint.kv_capacity_tokens and event.duration_seconds is not None:
        tokens.observe_output(output, event.duration_seconds)
        _learn_pace(event, flight, endpoint, output)
        blocks = round(output / tokens.block_tokens)
        index.charge(endpoint.slot, blocks, stamp, capacity_blocks(endpoint, flight.pool))
    _learn_prefill(event, flight, endpoint)
    _correct_index(event, flight, endpoint, index)


def _learn_pace(
    event: RequestMeasured, flight: Flight, endpoint: Endpoint, output_tokens: int
) -> None:
    """The load while the answer was made is taken to be the mean of those at its two ends."""
    if event.ttft_seconds is None or event.duration_seconds is None or flight.failed_at:
        return
    decoding_seconds = event.duration_seconds - event.ttft_seconds
    if output_tokens >= FEWEST_PACED_TOKENS and decoding_seconds > 0:
        load = (flight.load + endpoint.load) / 2
        endpoint.observe_step(decoding_seconds / (output_tokens - 1))
        flight.pool.pace.observe(load, decoding_seconds / (output_tokens - 1))


def _learn_prefill(event: RequestMeasured, flight: Flight, endpoint: Endpoint) -> None:
    if event.ttft_seconds is None or flight.failed_at or flight.wait_seconds > PROMPT_WAIT_SECONDS:
        return
    uncached = flight.uncached_tokens
    if event.prompt_tokens is not None and event.cached_tokens is not None:
        uncached = float(event.prompt_tokens - event.cached_tokens)
    if 0 <= uncached <= endpoint.kv_capacity_tokens:
        endpoint.prefill.observe(uncached, event.ttft_seconds)
        flight.pool.prefill.observe(uncached, event.ttft_seconds)


def _correct_index(
    event: RequestMeasured, flight: Flight, endpoint: Endpoint, index: PrefixIndex
) -> None:
    """Move the eviction watermark up to the first block that was predicted and not there.

    The request's own blocks stay: the engine has just computed them anew.
    """
    if not event.prompt_tokens or event.cached_tokens is None or flight.depth == 0:
        return
    block_tokens = event.prompt_tokens * BLOCK_BYTES / flight.request.prompt_bytes
    predicted = flight.depth * block_tokens
    slack = max(block_tokens, predicted * SHORTFALL_TOLERANCE_RATIO)
    if event.cached_tokens + slack >= predicted or flight.wait_seconds > PROMPT_WAIT_SECONDS:
        return
    stamp = former_stamp(flight.runs, int(event.cached_tokens / block_tokens))
    if stamp is not None and stamp < flight.dispatched_at - SETTLE_SECONDS:
        index.evict_through(endpoint.slot, stamp)
