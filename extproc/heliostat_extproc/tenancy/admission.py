"""Lets requests of tenants in, or says why not: the limits beside the clock and the errors."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from heliostat_crds.tenants import Tenant
from heliostat_extproc.errors import InputError, Reason
from heliostat_extproc.tenancy.limits import TenantLimits


@dataclass(frozen=True, slots=True)
class TenantReport:
    """One tenant as this router has seen it."""

    tenant: str
    inflight: int
    outcomes: Counter[str]
    """Its requests so far: `admitted`, or the reason why not."""


class Admission:
    """Asked about each request of a client before anything else.

    `now` is a monotonic clock; `gateways` counts the region's live gateways, this one among them,
    which share each tenant's limits.
    """

    def __init__(
        self,
        tenants: Iterable[Tenant],
        now: Callable[[], float],
        gateways: Callable[[], int] = lambda: 1,
    ) -> None:
        self._limits = TenantLimits(tenants)
        self._now = now
        self._gateways = gateways

    def declare(self, tenants: Iterable[Tenant]) -> None:
        """Make these the tenants."""
        self._limits.declare(tenants)

    def check(self, tenant: str) -> None:
        """Raise InputError where there is no such tenant."""
        if self._limits.find(tenant) is None:
            raise InputError(Reason.UNKNOWN_TENANT, "")

    def enter(self, tenant: str) -> frozenset[str] | None:
        """Let a request begin, which `leave` ends; give where it may be served (None: anywhere).

        Raises InputError where it may not begin.
        """
        refusal = self._limits.enter(tenant, self._now(), gateways=max(1, self._gateways()))
        if refusal is not None:
            raise InputError(
                Reason(refusal.reason), "", retry_after_seconds=refusal.retry_after_seconds
            )
        found = self._limits.find(tenant)
        names = None if found is None else found.residency
        return None if names is None else frozenset(names)

    def leave(self, tenant: str) -> None:
        """A request that was let in has ended."""
        self._limits.leave(tenant)

    def reports(self) -> list[TenantReport]:
        """Tell of every tenant that has asked."""
        inflight, outcomes = self._limits.inflight(), self._limits.outcomes()
        return [TenantReport(name, inflight[name], outcomes[name]) for name in inflight]
