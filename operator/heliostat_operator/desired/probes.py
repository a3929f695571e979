"""When an engine counts as started, ready and alive: models take minutes to load."""

import math

from heliostat_crds.duration import parse_duration
from heliostat_crds.engine import Engine
from heliostat_crds.wire_names import ENGINE_PORT_NAME
from heliostat_kube.resource import Json

_STARTUP_PERIOD_SECONDS = 2
"""Half of it is what an engine that has loaded waits, on average, until it gets requests."""
_KILL_SECONDS = 30
"""Grace period of an engine that a probe gives up: it serves nobody, so there is nothing to wait
for, least of all the drain timeout."""


def desired_probes(engine: Engine) -> Json:
    """Give the three probes of the engine's container, all of vLLM's /health.

    Readiness forgives two slow answers in a row, liveness two minutes of them: an engine busy with
    a huge prompt answers late, and to restart it would cost minutes of loading.
    """
    attempts = math.ceil(parse_duration(engine.startup_timeout) / _STARTUP_PERIOD_SECONDS)
    return {
        "startupProbe": {
            **_check(),
            "periodSeconds": _STARTUP_PERIOD_SECONDS,
            "timeoutSeconds": 5,
            "failureThreshold": attempts,
            "terminationGracePeriodSeconds": _KILL_SECONDS,
        },
        "readinessProbe": {
            **_check(),
            "periodSeconds": 5,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "livenessProbe": {
            **_check(),
            "periodSeconds": 10,
            "timeoutSeconds": 10,
            "failureThreshold": 12,
            "terminationGracePeriodSeconds": _KILL_SECONDS,
        },
    }


def _check() -> Json:
    return {"httpGet": {"path": "/health", "port": ENGINE_PORT_NAME}}
