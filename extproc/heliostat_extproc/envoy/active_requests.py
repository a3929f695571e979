"""How many requests an Envoy has accepted and not yet answered to the end, by its statistics."""

from heliostat_extproc.envoy.control_plane import STATE_CLUSTER
from heliostat_extproc.envoy.wire import Entrance

STAT_PREFIXES = {
    Entrance.CLIENTS: "gateway",
    Entrance.FEDERATION: "federation",
    Entrance.RETURN: "return",
}
REQUEST_STATS = tuple(
    f"http.{STAT_PREFIXES[entrance]}.downstream_rq_active"
    for entrance in (Entrance.CLIENTS, Entrance.FEDERATION)
)
"""What has come back is still the same request of its client."""
STATE_STREAMS_STAT = f"cluster.{STATE_CLUSTER}.upstream_rq_active"
"""Other gateways' state streams: they come in as requests, and never end by themselves."""
STATS_FILTER = f"^({'|'.join((*REQUEST_STATS, STATE_STREAMS_STAT))})$"


def count_active_requests(text: str) -> int:
    """Count from what Envoy says to `STATS_FILTER`."""
    values = {
        name: int(value)
        for name, _, value in (it.partition(": ") for it in text.split("\n"))
        if value.isdecimal()
    }
    open_requests = sum(values.get(name, 0) for name in REQUEST_STATS)
    return max(0, open_requests - values.get(STATE_STREAMS_STAT, 0))
