"""How much each tenant may ask for: at which rate, and how much at once. Pure: time comes in.

The rate is held by the generic cell rate algorithm (ITU-T I.371): one instant per tenant, at which
its next request would be due if all came evenly; how far that may lie ahead is its burst.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from heliostat_crds.tenants import Tenant

INFLIGHT_RETRY_SECONDS = 1.0


class LimitReason(StrEnum):
    """Why a tenant's request is refused."""

    UNKNOWN_TENANT = "unknown-tenant"
    RATE_LIMITED = "rate-limited"
    INFLIGHT_LIMITED = "inflight-limited"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that may not begin now."""

    reason: LimitReason
    retry_after_seconds: float | None = None


@dataclass(slots=True)
class _Account:
    """What one tenant has used."""

    due_at: float = 0.0
    inflight: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)


class TenantLimits:
    """The accounts of the tenants that are declared; those of others are not kept.

    `gateways` of a region share each limit evenly, so each grants its part of it: at least one
    request at once.
    """

    def __init__(self, tenants: Iterable[Tenant] = ()) -> None:
        self._tenants: dict[str, Tenant] = {}
        self._accounts: dict[str, _Account] = {}
        self.declare(tenants)

    def declare(self, tenants: Iterable[Tenant]) -> None:
        """Make these the tenants; what is open of one that has gone counts while it is away too."""
        self._tenants = {tenant.name: tenant for tenant in tenants}
        for name in [it for it in self._accounts if it not in self._tenants]:
            if not self._accounts[name].inflight:
                del self._accounts[name]

    def find(self, name: str) -> Tenant | None:
        """Give the tenant of this name."""
        return self._tenants.get(name)

    def enter(self, name: str, now: float, *, gateways: int = 1) -> Refusal | None:
        """Let a request begin, which `leave` ends; or say why it may not."""
        tenant = self._tenants.get(name)
        if tenant is None:
            return Refusal(LimitReason.UNKNOWN_TENANT)
        account = self._accounts.setdefault(name, _Account())
        refusal = _refusal(tenant, account, now, gateways)
        account.outcomes["admitted" if refusal is None else refusal.reason] += 1
        if refusal is None:
            account.inflight += 1
            if tenant.requests_per_minute is not None:
                spacing = 60.0 * gateways / tenant.requests_per_minute
                account.due_at = max(account.due_at, now) + spacing
        return refusal

    def leave(self, name: str) -> None:
        """A request that was let in has ended."""
        account = self._accounts.get(name)
        if account is None or not account.inflight:
            return
        account.inflight -= 1
        if not account.inflight and name not in self._tenants:
            del self._accounts[name]

    def inflight(self) -> dict[str, int]:
        """Count what each tenant has open here."""
        return {name: account.inflight for name, account in self._accounts.items()}

    def outcomes(self) -> dict[str, Counter[str]]:
        """Count what has come of each tenant's requests so far: `admitted`, or a reason."""
        return {name: account.outcomes for name, account in self._accounts.items()}


def _refusal(tenant: Tenant, account: _Account, now: float, gateways: int) -> Refusal | None:
    limit = tenant.inflight_limit
    if limit is not None and account.inflight >= max(1, limit // gateways):
        return Refusal(LimitReason.INFLIGHT_LIMITED, INFLIGHT_RETRY_SECONDS)
    if tenant.requests_per_minute is None:
        return None
    spacing = 60.0 * gateways / tenant.requests_per_minute
    tolerated = (max(1, tenant.burst // gateways) - 1) * spacing
    early = account.due_at - now - tolerated
    return Refusal(LimitReason.RATE_LIMITED, early) if early > 1e-9 else None
