"""Keeps one container of a pod as its specification wants: starts, watches, restarts, ends it."""

import asyncio
import contextlib
import signal
from collections.abc import Sequence

from heliostat_cluster.images.table import Image
from heliostat_cluster.kubelet.actions import ActionError
from heliostat_cluster.kubelet.container import (
    CANNOT_RUN_STATUS,
    Container,
    ContainerStartError,
)
from heliostat_cluster.kubelet.instants import now_text
from heliostat_cluster.kubelet.pod_status import ContainerRecord, Role
from heliostat_cluster.kubelet.pod_surroundings import Surroundings
from heliostat_cluster.kubelet.probes import ProbeKind, Probes
from heliostat_cluster.kubelet.references import ConfigError
from heliostat_kube.errors import KubeError

_LEAST_GRACE_SECONDS = 2.0
_CONFIG_RETRY_SECONDS = 1.0


class ContainerKeeper:
    """One container through all of its restarts."""

    def __init__(self, record: ContainerRecord, surroundings: Surroundings) -> None:
        self.record = record
        self._pod = surroundings
        self._container: Container | None = None
        self._probes: Probes | None = None
        self._ending = asyncio.Event()
        self._finished = asyncio.Event()
        self._finished.set()
        self._exited = asyncio.Event()
        self._starting = asyncio.Lock()
        self._kill: asyncio.Task[None] | None = None
        self.began = asyncio.Event()
        """Set once the container has started, its startup probe included."""

    async def run(self) -> None:
        """Return when the container will not run again."""
        self._finished.clear()
        try:
            await self._run()
        finally:
            self._finished.set()

    async def end(self, deadline: float, first: Sequence[asyncio.Task[None]] = ()) -> None:
        """End the container by a deadline on the loop's clock, after others, and wait for it."""
        self._ending.set()
        async with self._starting:
            pass
        if self._probes is not None:
            self._probes.stop(ProbeKind.STARTUP, ProbeKind.LIVENESS)
        if self._container is not None:
            await self._terminate(self._container, deadline, first)
        await self._finished.wait()

    def kill(self) -> None:
        """End the container at once."""
        if self._container is not None:
            self._container.send_signal(signal.SIGKILL)

    async def _run(self) -> None:
        timing = self._pod.timing
        image_wait = config_wait = timing.crash_backoff_seconds
        crash_wait = 0.0
        while not self._ending.is_set():
            image = self._pod.images.find(self.record.spec["image"])
            if image is None:
                await self._wait_for_image(image_wait)
                image_wait = min(2 * image_wait, timing.most_backoff_seconds)
                continue
            began_at = asyncio.get_running_loop().time()
            try:
                await self._run_once(image)
            except (ConfigError, KubeError) as error:
                self._wait_state("CreateContainerConfigError", str(error))
                await self._pause(min(config_wait, _CONFIG_RETRY_SECONDS))
                continue
            if not self._is_to_restart():
                return
            if asyncio.get_running_loop().time() - began_at > timing.stable_seconds:
                crash_wait = 0.0
            await self._back_off(crash_wait)
            self.record.restarts += 1
            crash_wait = min(
                2 * crash_wait or timing.crash_backoff_seconds, timing.most_backoff_seconds
            )

    async def _wait_for_image(self, wait_seconds: float) -> None:
        name = self.record.spec["image"]
        self._wait_state("ErrImagePull", f'failed to pull image "{name}": not found')
        if not await self._pause(min(0.5, wait_seconds)):
            self._wait_state("ImagePullBackOff", f'Back-off pulling image "{name}": not found')
            await self._pause(wait_seconds)

    async def _back_off(self, wait_seconds: float) -> None:
        ended = self.record.state
        if not wait_seconds:
            self.record.last_state = ended
            return
        pod = self._pod.facts.pod["metadata"]
        self._wait_state(
            "CrashLoopBackOff",
            f"back-off {wait_seconds:g}s restarting failed container={self.record.name} "
            f"pod={pod['name']}_{pod['namespace']}({pod['uid']})",
            last_state=ended,
        )
        if await self._pause(wait_seconds):
            self.record.state = ended
            self._pod.on_change()

    async def _run_once(self, image: Image) -> None:
        """Run the container to its end, and record it."""
        async with self._starting:
            if self._ending.is_set():
                return
            container = await self._pod.make(self.record.spec, image, self.record.restarts)
            self.record.container_id = f"containerd://{container.id}"
            self.record.image_id = f"e2e/{self.record.spec['image']}"
            started_at = now_text()
            try:
                await container.start()
            except ContainerStartError as error:
                self._record_end(CANNOT_RUN_STATUS, started_at, "StartError", str(error))
                return
            self._container = container
            self._exited.clear()
        attendance = asyncio.create_task(self._attend(container, started_at))
        try:
            code = await container.wait()
        finally:
            attendance.cancel()
            if self._probes is not None:
                self._probes.stop()
                self._probes = None
            self._container = None
            self._exited.set()
        reason = "Completed" if code == 0 else "Error"
        self._record_end(code, started_at, reason, _termination_message(container, self.record))

    async def _attend(self, container: Container, started_at: str) -> None:
        """Run the postStart hook, then the probes."""
        spec = self.record.spec
        self.record.state = {"running": {"startedAt": started_at}}
        hook = (spec.get("lifecycle") or {}).get("postStart")
        if hook is not None:
            try:
                await self._pod.actions.run(hook, spec, container, self._grace_seconds())
            except ActionError:
                self._begin_kill(container)
                return
        self.record.started = "startupProbe" not in spec
        self.record.ready = self.record.started and "readinessProbe" not in spec
        if self.record.started:
            self.began.set()
        self._pod.on_change()
        self._probes = Probes(spec, container, self._pod.actions, self._on_verdict)
        if not self._ending.is_set():
            self._probes.start()

    def _on_verdict(self, kind: ProbeKind, good: bool, why: str) -> None:
        record = self.record
        if kind is ProbeKind.READINESS:
            changed = record.ready != good
            record.ready = good
        elif good:
            changed = kind is ProbeKind.STARTUP
            if changed:
                record.started = True
                record.ready = "readinessProbe" not in record.spec
                self.began.set()
        else:
            changed = False
            if self._container is not None:
                self._begin_kill(self._container, kind)
        if changed:
            self._pod.on_change()

    def _begin_kill(self, container: Container, kind: ProbeKind | None = None) -> None:
        """Replace a container that does not do what it should."""
        if self._kill is None or self._kill.done():
            probe = self.record.spec.get(f"{kind.value}Probe") if kind else None
            grace = (probe or {}).get("terminationGracePeriodSeconds") or self._grace_seconds()
            if self._probes is not None:
                self._probes.stop()
            deadline = asyncio.get_running_loop().time() + grace
            self._kill = asyncio.create_task(self._terminate(container, deadline, ()))

    async def _terminate(
        self, container: Container, deadline: float, first: Sequence[asyncio.Task[None]]
    ) -> None:
        """PreStop hook, the others' end, SIGTERM, SIGKILL: in this order, within the deadline."""
        loop = asyncio.get_running_loop()
        hook = (self.record.spec.get("lifecycle") or {}).get("preStop")
        if hook is not None and deadline > loop.time():
            with contextlib.suppress(ActionError):
                await self._pod.actions.run(
                    hook, self.record.spec, container, deadline - loop.time()
                )
        if first:
            await asyncio.wait(first, timeout=max(0.0, deadline - loop.time()))
        container.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout_at(max(deadline, loop.time() + _LEAST_GRACE_SECONDS)):
                await self._exited.wait()
        except TimeoutError:
            container.send_signal(signal.SIGKILL)
            await self._exited.wait()

    def _is_to_restart(self) -> bool:
        if self._ending.is_set():
            return False
        policy = self._pod.facts.pod["spec"].get("restartPolicy") or "Always"
        failed = self.record.exit_code != 0
        match self.record.role:
            case Role.SIDECAR:
                return True
            case Role.INIT:
                return failed and policy != "Never"
            case Role.MAIN:
                return policy == "Always" or (policy == "OnFailure" and failed)

    def _record_end(self, code: int, started_at: str, reason: str, message: str) -> None:
        ended = {
            "exitCode": code,
            "reason": reason,
            "startedAt": started_at,
            "finishedAt": now_text(),
            "containerID": self.record.container_id,
        }
        if message:
            ended["message"] = message
        self.record.state = {"terminated": ended}
        self.record.ready = self.record.started = False
        self._pod.on_change()

    def _wait_state(self, reason: str, message: str, last_state: object = None) -> None:
        self.record.state = {"waiting": {"reason": reason, "message": message}}
        if isinstance(last_state, dict):
            self.record.last_state = last_state
        self._pod.on_change()

    async def _pause(self, seconds: float) -> bool:
        """Wait; return early, and true, if the container is to end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ending.wait()
        return self._ending.is_set()

    def _grace_seconds(self) -> float:
        return float(self._pod.facts.pod["spec"].get("terminationGracePeriodSeconds", 30))


def _termination_message(container: Container, record: ContainerRecord) -> str:
    """Return what the container left to say; its log's end where that is wanted instead."""
    message = container.termination_message()
    failed = record.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError"
    return message or (container.log_end() if failed else "")
