"""The command line of vLLM."""

import json
import re

from heliostat_crds.engine import DEFAULT_MAX_ADAPTERS, KV_EVENTS_PORTS, Engine, KvEvents
from heliostat_crds.inference_pool import InferencePool

SHUTDOWN_SECONDS = 15
"""What vLLM gets to end requests after SIGTERM; nearly all have ended before it comes."""

KV_EVENTS_PORT, KV_REPLAY_PORT = KV_EVENTS_PORTS

_PARALLELISM = re.compile(
    r"--(tensor|pipeline|data)[-_]parallel[-_]size([=.].*)?|-(tp|pp|dp)(=.*)?", re.DOTALL
)


def serves_adapters(engine: Engine) -> bool:
    """Whether the engines can load LoRA adapters while they run."""
    return bool(engine.adapters) or engine.max_adapters is not None


def desired_args(pool: InferencePool) -> list[str]:
    """Give the arguments; the user's come last and so win where vLLM takes the last one.

    Which adapters there are is not told: they are loaded live. So a change of adapters changes
    nothing here.
    """
    engine = pool.spec.engine
    return [
        *("--model", pool.spec.model.source),
        *("--served-model-name", pool.spec.model.name),
        *("--port", str(engine.port)),
        *("--shutdown-timeout", str(SHUTDOWN_SECONDS)),
        # Answers tell how much of a prompt was cached: the router's index learns from it.
        "--enable-prompt-tokens-details",
        *_parallelism(pool),
        *_adapters(engine),
        *_kv_events(engine),
        *engine.args,
    ]


def _parallelism(pool: InferencePool) -> tuple[str, ...]:
    """Split the model over the accelerators, unless the user has chosen how to use them."""
    count = pool.spec.accelerator.count
    if count < 2 or any(_PARALLELISM.fullmatch(arg) for arg in pool.spec.engine.args):
        return ()
    return ("--tensor-parallel-size", str(count))


def _adapters(engine: Engine) -> tuple[str, ...]:
    if not serves_adapters(engine):
        return ()
    return ("--enable-lora", "--max-loras", str(engine.max_adapters or DEFAULT_MAX_ADAPTERS))


def _kv_events(engine: Engine) -> tuple[str, ...]:
    """Switch on what tells routers of the KV cache; vLLM listens only where the host is `*`."""
    if engine.kv_events is KvEvents.DISABLED:
        return ()
    config = {
        "enable_kv_cache_events": True,
        "publisher": "zmq",
        "endpoint": f"tcp://*:{KV_EVENTS_PORT}",
        "replay_endpoint": f"tcp://*:{KV_REPLAY_PORT}",
    }
    return ("--kv-events-config", json.dumps(config, separators=(",", ":")))
