"""What a request will take of an endpoint, predicted: the same for scoring and for sending."""

from typing import NamedTuple

from heliostat_routing.endpoint import Endpoint
from heliostat_routing.flight import Flight


class Need(NamedTuple):
    """Prompt tokens by where they come from, and the KV room to be found for the rest."""

    cached_tokens: float
    uncached_tokens: float
    kv_tokens: float


def predict_need(flight: Flight, endpoint: Endpoint, depth: int) -> Need:
    """Predict for an endpoint that holds this many leading blocks of the prompt.

    An engine takes no prompt beyond its KV cache, so no more prefill is expected of it.
    """
    tokens = flight.pool.tokens
    cached = min(depth * tokens.block_tokens, flight.prompt_tokens)
    missing = flight.prompt_tokens - cached
    uncached = min(missing, endpoint.kv_capacity_tokens or missing)
    output = tokens.expected_output(flight.request.max_output_tokens)
    return Need(cached, uncached, missing + output)
