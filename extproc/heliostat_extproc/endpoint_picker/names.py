"""Every name of the endpoint picker protocol 1.0 in one place, and what llm-d adds to it.

The pick's own names are those that the router's own Envoy goes by, in `envoy.wire`.
"""

SUBSET_NAMESPACE = "envoy.lb.subset_hint"
SUBSET_KEY = "x-gateway-destination-endpoint-subset"
"""Metadata of the request: the endpoints that may be picked, as a list or with commas."""

SERVED_KEY = "x-gateway-destination-endpoint-served"
"""Metadata `envoy.lb` / this key with the response headers: the endpoint that has answered."""

DROPPED_REASON_HEADER = "x-llm-d-request-dropped-reason"
"""With an error: why the request was not served, in llm-d's words."""

LARGEST_CHUNK_BYTES = 62_000
"""Of a body in one message; Envoy takes 64 KiB with all that is around it."""
