"""Which replica leads: one Lease in the API server, changed only by whoever saw its last state.

Clocks of different machines are never compared. A replica measures on its own clock for how long
the Lease has not changed; only that makes a Lease stale.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from heliostat_kube.api import KubeApi
from heliostat_kube.errors import ConflictError, KubeError, NotFoundError
from heliostat_kube.resource import LEASES, Json
from heliostat_operator.settings import LeaseTiming

Clock = Callable[[], float]
"""Seconds that only ever grow."""

log = structlog.get_logger("heliostat.operator")


class LeaseLostError(Exception):
    """Another replica leads, or may soon: stop at once."""


class Leadership:
    """One replica's part in the election."""

    def __init__(
        self,
        api: KubeApi,
        *,
        namespace: str,
        name: str,
        identity: str,
        timing: LeaseTiming,
        clock: Clock | None = None,
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._timing = timing
        self._clock = clock or asyncio.get_running_loop().time
        self._seen_version: str | None = None
        self._seen_at = 0.0
        self._lease: Json | None = None
        self._renewed_at = 0.0

    async def acquire(self) -> None:
        """Wait until this replica leads."""
        while True:
            try:
                if await self._try_acquire():
                    return
            except ConflictError:
                pass  # another was quicker
            except KubeError as error:
                log.warning("lease-unreachable", error=error.message)
            await asyncio.sleep(self._timing.retry_seconds)

    async def hold(self) -> None:
        """Renew until another leads or renewing has failed for too long: LeaseLostError."""
        while True:
            await asyncio.sleep(self._timing.retry_seconds)
            deadline = self._renewed_at + self._timing.renew_deadline_seconds
            try:
                async with asyncio.timeout(max(0.0, deadline - self._clock())):
                    await self._renew()
            except TimeoutError as error:
                raise LeaseLostError("the Lease could not be renewed in time") from error
            except KubeError as error:
                if self._clock() >= deadline:
                    raise LeaseLostError(f"cannot renew the Lease: {error.message}") from error

    async def release(self) -> None:
        """Let the next replica lead at once; failing is no harm, the Lease then expires."""
        if self._lease is None:
            return
        lease, self._lease = self._lease, None
        spec = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
        try:
            await self._write({**lease, "spec": spec})
        except KubeError as error:
            log.warning("lease-not-released", error=error.message)

    async def _try_acquire(self) -> bool:
        lease = await self._api.get(LEASES, self._name, self._namespace)
        asked_at = self._clock()
        if lease is None:
            metadata = {"name": self._name, "namespace": self._namespace}
            created = {
                "apiVersion": LEASES.api_version,
                "kind": LEASES.kind,
                "metadata": metadata,
                "spec": self._spec({}),
            }
            self._lease = await self._api.create(LEASES, created, self._namespace)
        elif self._is_free(lease, asked_at):
            self._lease = await self._write({**lease, "spec": self._spec(lease.get("spec") or {})})
        else:
            return False
        self._renewed_at = asked_at
        return True

    def _is_free(self, lease: Json, now: float) -> bool:
        spec = lease.get("spec") or {}
        version = lease["metadata"]["resourceVersion"]
        if version != self._seen_version:
            self._seen_version, self._seen_at = version, now
        if spec.get("holderIdentity") in (None, "", self._identity):
            return True
        duration = float(spec.get("leaseDurationSeconds") or self._timing.duration_seconds)
        return now - self._seen_at >= duration

    async def _renew(self) -> None:
        if self._lease is None:
            raise LeaseLostError("the Lease is not held")
        asked_at = self._clock()
        renewed = {**self._lease, "spec": self._spec(self._lease["spec"])}
        try:
            self._lease = await self._write(renewed)
        except (ConflictError, NotFoundError) as error:
            await self._confirm(error)
        else:
            self._renewed_at = asked_at

    async def _confirm(self, error: KubeError) -> None:
        """The Lease is not as we left it: go on only if it still names us."""
        lease = await self._api.get(LEASES, self._name, self._namespace)
        holder = ((lease or {}).get("spec") or {}).get("holderIdentity")
        if lease is None or holder != self._identity:
            raise LeaseLostError(f"the Lease is held by {holder or 'nobody'}") from error
        self._lease = lease

    async def _write(self, lease: Json) -> Json:
        return await self._api.replace(LEASES, self._name, lease, self._namespace)

    def _spec(self, previous: Json) -> Json:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        same = previous.get("holderIdentity") == self._identity
        transitions = int(previous.get("leaseTransitions") or 0)
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": max(1, round(self._timing.duration_seconds)),
            "acquireTime": previous.get("acquireTime", now) if same else now,
            "renewTime": now,
            "leaseTransitions": transitions if same or not previous else transitions + 1,
        }
