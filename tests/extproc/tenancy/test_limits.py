"""How much a tenant may ask for: rates, bursts and what is open at once."""

from hypothesis import given
from hypothesis import strategies as st

from heliostat_crds.tenants import Tenant
from heliostat_extproc.tenancy.limits import LimitReason, TenantLimits

GAPS = st.lists(st.floats(0, 20), min_size=1, max_size=200)


def test_who_is_not_declared_is_refused() -> None:
    """An identity that no tenant has gets nothing, and leaves no account behind."""
    limits = TenantLimits([Tenant(name="acme")])
    refusal = limits.enter("other", 0.0)
    assert refusal is not None
    assert refusal.reason is LimitReason.UNKNOWN_TENANT
    assert limits.outcomes() == {}


def test_without_limits_everything_is_let_in() -> None:
    """A tenant without limits is only counted."""
    limits = TenantLimits([Tenant(name="acme")])
    assert all(limits.enter("acme", 0.0) is None for _ in range(1000))
    assert limits.inflight() == {"acme": 1000}


def test_open_requests_are_limited_and_freed() -> None:
    """One more than the limit is refused until one ends; another tenant is not concerned."""
    limits = TenantLimits([Tenant(name="acme", inflightLimit=2), Tenant(name="other")])
    assert [limits.enter("acme", 0.0) is None for _ in range(3)] == [True, True, False]
    assert limits.enter("other", 0.0) is None
    limits.leave("acme")
    assert limits.enter("acme", 0.0) is None


@given(GAPS, st.integers(1, 20), st.floats(1, 600), st.integers(1, 4))
def test_no_span_has_more_than_rate_and_burst(
    gaps: list[float], burst: int, per_minute: float, gateways: int
) -> None:
    """Between any two requests let in, no more came than the burst and what the rate gives."""
    tenant = Tenant(name="acme", requestsPerMinute=per_minute, burst=burst)
    limits = TenantLimits([tenant])
    now, let_in = 0.0, []
    for gap in gaps:
        now += gap
        refusal = limits.enter("acme", now, gateways=gateways)
        if refusal is None:
            let_in.append(now)
    rate, at_once = per_minute / 60 / gateways, max(1, burst // gateways)
    for first, begin in enumerate(let_in):
        for last in range(first, len(let_in)):
            assert last - first + 1 <= at_once + rate * (let_in[last] - begin) + 1e-6


@given(GAPS, st.integers(1, 20), st.floats(1, 600))
def test_retry_after_is_the_truth(gaps: list[float], burst: int, per_minute: float) -> None:
    """Who comes back when told to is let in, and not a moment earlier."""
    limits = TenantLimits([Tenant(name="acme", requestsPerMinute=per_minute, burst=burst)])
    now = 0.0
    for gap in gaps:
        now += gap / 10
        refusal = limits.enter("acme", now)
        if refusal is not None:
            assert refusal.reason is LimitReason.RATE_LIMITED
            assert refusal.retry_after_seconds is not None
            assert limits.enter("acme", now + 0.99 * refusal.retry_after_seconds) is not None
            now += refusal.retry_after_seconds + 1e-6
            assert limits.enter("acme", now) is None


def test_a_change_of_the_tenants_forgets_nothing_that_is_open() -> None:
    """A tenant that goes and comes back has its open requests; one that has none is forgotten."""
    acme = Tenant(name="acme", inflightLimit=1)
    limits = TenantLimits([acme, Tenant(name="idle")])
    limits.enter("acme", 0.0)
    limits.enter("idle", 0.0)
    limits.leave("idle")
    limits.declare([])
    assert limits.inflight() == {"acme": 1}
    limits.declare([acme])
    assert limits.enter("acme", 0.0) is not None
    limits.declare([])
    limits.leave("acme")
    assert limits.inflight() == {}
