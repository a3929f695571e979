"""A gateway that claims room for a thousand requests and refuses each one that a peer sends.

`heliostat` with a test double of the router's state; its pool is to be of the mode `Send`. With
`--old-protocol` first, it does not lie: it speaks a version of the protocol that says less.
"""

import sys
from dataclasses import replace

from heliostat_cli.main import main
from heliostat_extproc.federation import protocol
from heliostat_extproc.federation.core_state import CoreState
from heliostat_extproc.federation.slots import OwnState, PoolState
from heliostat_federation.region import MODEL
from heliostat_routing.capacity import PoolCapacity

_CLAIM = PoolCapacity(
    free=1000,
    room=1000,
    queued=0,
    start_seconds=0.001,
    finish_seconds=0.001,
    load=0.0,
    prefill_tokens_per_second=1e6,
    kv_capacity_tokens=10**7,
)
_tell = CoreState.state


def _lie(state: CoreState) -> OwnState:
    return replace(_tell(state), pools={MODEL: PoolState(_CLAIM)})


def _say_less(state: CoreState) -> OwnState:
    return replace(_tell(state), heads=())


if __name__ == "__main__":
    if sys.argv[1] == "--old-protocol":
        del sys.argv[1]
        protocol.VERSION = 0
        protocol.BLOCK_KEY_SCHEME = ""
        CoreState.state = _say_less  # type: ignore[method-assign, assignment]
    else:
        CoreState.state = _lie  # type: ignore[method-assign, assignment]
    sys.exit(main())
