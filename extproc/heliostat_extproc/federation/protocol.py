"""What both ends of a state stream must agree on, and the bounds of what either believes."""

from heliostat_extproc.federation.region import Region
from heliostat_extproc.federation.state_pb2 import Hello
from heliostat_routing.settings import BLOCK_BYTES

STATE_SERVICE = "heliostat.v1.State"
WATCH_METHOD = "Watch"
WATCH_PATH = f"/{STATE_SERVICE}/{WATCH_METHOD}"
SIGN_PATH = f"/{STATE_SERVICE}/Sign"
"""No router serves it: the Envoy before it says so itself, which tells that the gateway works."""

VERSION = 1
BLOCK_KEY_SCHEME = f"xxh3-64/{BLOCK_BYTES}/2"
"""Regions with different schemes do not know each other's prompts by their keys. The last number
counts the ways in which a prompt's bytes have been read."""

MOST_WRITERS = 64
"""Routers of one region."""
MOST_POOLS = 1000
MOST_ADAPTERS = 5000
"""Names of adapters in one slot, of all pools."""
MOST_HEADS = 64
MOST_ORIGINS = 1000
"""Routers of other regions that one slot counts the requests of."""
LONGEST_NAME = 253
MOST_COUNT = 10**9
"""Requests or tokens; more is not sane."""
LONGEST_MICROSECONDS = 10**12
LARGEST_MESSAGE_BYTES = 4 * 1024 * 1024
LARGEST_REQUEST_BYTES = 2048
"""Of a watcher: its hello, or a ping."""
UNREAD_BYTES = 8192
"""What a watcher may send before it is read."""


def hello_of(region: Region) -> Hello:
    """Introduce a router."""
    return Hello(
        version=VERSION,
        region=region.name,
        router=region.router,
        epoch=region.epoch,
        block_key_scheme=BLOCK_KEY_SCHEME,
    )


def is_name(text: str) -> bool:
    """Whether this can be the name of anything."""
    return 0 < len(text) <= LONGEST_NAME and text.isprintable()
