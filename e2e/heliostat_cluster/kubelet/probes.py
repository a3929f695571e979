"""Startup, readiness and liveness of one running container."""

import asyncio
from collections.abc import Callable
from enum import StrEnum

from heliostat_cluster.kubelet.actions import ActionError, Actions
from heliostat_cluster.kubelet.container import Container
from heliostat_kube.resource import Json

_DEFAULT_PERIOD_SECONDS = 10
_DEFAULT_TIMEOUT_SECONDS = 1


class ProbeKind(StrEnum):
    """Which probe."""

    STARTUP = "startup"
    READINESS = "readiness"
    LIVENESS = "liveness"


OnVerdict = Callable[[ProbeKind, bool, str], None]
"""Told the kind, whether it succeeds, and why not. Called when a threshold is reached."""


class Probes:
    """Runs a container's probes, from its start to its end, and tells their verdicts."""

    def __init__(
        self, container: Json, running: Container, actions: Actions, on_verdict: OnVerdict
    ) -> None:
        self._container = container
        self._running = running
        self._actions = actions
        self._on_verdict = on_verdict
        self._tasks: dict[ProbeKind, asyncio.Task[None]] = {}
        self._started_at = asyncio.get_running_loop().time()

    def start(self) -> None:
        """Begin with the startup probe; the others come after its success."""
        if "startupProbe" in self._container:
            self._begin(ProbeKind.STARTUP)
        else:
            self._begin_others()

    def stop(self, *kinds: ProbeKind) -> None:
        """End these probes; without any named, all."""
        for kind in kinds or tuple(ProbeKind):
            if (task := self._tasks.pop(kind, None)) is not None:
                task.cancel()

    def _begin(self, kind: ProbeKind) -> None:
        probe = self._container.get(f"{kind.value}Probe")
        if probe is not None:
            self._tasks[kind] = asyncio.create_task(self._repeat(kind, probe))

    def _begin_others(self) -> None:
        self._begin(ProbeKind.READINESS)
        self._begin(ProbeKind.LIVENESS)

    async def _repeat(self, kind: ProbeKind, probe: Json) -> None:
        loop = asyncio.get_running_loop()
        period = probe.get("periodSeconds") or _DEFAULT_PERIOD_SECONDS
        due_at = self._started_at + (probe.get("initialDelaySeconds") or 0)
        due_at = max(due_at, loop.time())
        successes = failures = 0
        while True:
            await asyncio.sleep(due_at - loop.time())
            due_at = max(due_at + period, loop.time())
            problem = await self._probe(probe)
            successes, failures = (successes + 1, 0) if problem is None else (0, failures + 1)
            if problem is None and successes >= (probe.get("successThreshold") or 1):
                self._on_verdict(kind, True, "")
                if kind is ProbeKind.STARTUP:
                    self._begin_others()
                    return
            elif problem is not None and failures >= (probe.get("failureThreshold") or 3):
                self._on_verdict(kind, False, problem)

    async def _probe(self, probe: Json) -> str | None:
        timeout_seconds = float(probe.get("timeoutSeconds") or _DEFAULT_TIMEOUT_SECONDS)
        try:
            await self._actions.run(probe, self._container, self._running, timeout_seconds)
        except ActionError as error:
            return str(error)
        return None
