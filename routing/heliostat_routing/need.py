"""What a request will take of an endpoint, predicted: the same for scoring and for sending."""

from heliostat_routing.endpoint import Endpoint
from heliostat_routing.flight import Flight


def predict_need(flight: Flight, endpoint: Endpoint, depth: int) -> tuple[float, float, float]:
    """Predict for an endpoint that holds this many leading blocks of the prompt.

    Returns the prompt tokens that it has cached and those that it has not, and the tokens for which
    it must find KV room. An engine takes no prompt beyond its KV cache, so no more prefill is
    expected of it.
    """
    tokens, prompt = flight.pool.tokens, flight.prompt_tokens
    cached = min(depth * tokens.block_tokens, prompt)
    missing = prompt - cached
    uncached = min(missing, endpoint.kv_capacity_tokens or missing)
    output = tokens.expected_output(flight.request.max_output_tokens)
    return cached, uncached, missing + output
