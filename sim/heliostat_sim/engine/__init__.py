"""A model of one inference engine on a virtual clock.

It exists once, and pure, so that the stand-in server (real time) and the simulator (simulated
time) run the same scheduler: continuous batching with a token budget per step, a paged KV cache
shared by prefix cache and running requests, preemption by recompute. Nothing here does I/O, reads
a clock or draws random numbers: every instant is an argument.
"""

from heliostat_sim.engine.block_pool import BlockPool
from heliostat_sim.engine.errors import EngineError, EngineOverloadedError, RequestTooLongError
from heliostat_sim.engine.events import EngineEvent, Finished, FirstToken, Preempted
from heliostat_sim.engine.profiles import PROFILES, EngineProfile
from heliostat_sim.engine.request import BlockHashes, EngineRequest, FinishReason
from heliostat_sim.engine.scheduler import Engine, EngineMetrics, EngineTotals, Unfinished

__all__ = [
    "PROFILES",
    "BlockHashes",
    "BlockPool",
    "Engine",
    "EngineError",
    "EngineEvent",
    "EngineMetrics",
    "EngineOverloadedError",
    "EngineProfile",
    "EngineRequest",
    "EngineTotals",
    "FinishReason",
    "Finished",
    "FirstToken",
    "Preempted",
    "RequestTooLongError",
    "Unfinished",
]
