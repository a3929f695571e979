"""The file of tenants: what it may say, and that no message about it shows a key."""

import pytest

from heliostat_crds.tenants import TenantsError, parse_tenants

KEY = "sk-0123456789abcdef"


def test_a_tenant_has_keys_limits_and_a_residency() -> None:
    """All that can be said of a tenant is read, and its keys do not show in its text."""
    tenants = parse_tenants(
        f"tenants: [{{name: acme, keys: [{KEY}], requestsPerMinute: 60, burst: 3,"
        " inflightLimit: 5, residency: [eu]}]"
    )
    [acme] = tenants.tenants
    assert (acme.requests_per_minute, acme.burst, acme.inflight_limit) == (60, 3, 5)
    assert acme.residency == ("eu",)
    assert tenants.credentials == ((KEY, "acme"),)
    assert KEY not in repr(tenants)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x: [", "line 2 is no YAML"),
        ("tenants: []\nsk-secret: a\nsk-secret: b", "line 3 is no YAML"),
        ("tenants: " + "[" * 100_000, "line 1 is no YAML"),
        ("tenants: []\n---\ntenants: []", "more than one document"),
        ("[]", "the file: expected a mapping"),
        ("tenants: 3", "tenants: expected a list"),
        ("tenants: sk-secret", "tenants: expected a list"),
        ("tenants: []\nsk-secret: acme", "the file: unknown field"),
        ("tenants: [{name: A}]", r"tenants\[0\].name"),
        ("tenants: [{name: a}, {name: a}]", r"tenants\[1\].name: another tenant"),
        ("tenants: [{name: a, keys: [sk-secret]}]", r"tenants\[0\].keys\[0\]: a key is 16"),
        ("tenants: [{name: a, keys: ['sk-secret with a space']}]", "without spaces"),
        ("tenants: [{name: a, keys: [sk-secret-secret-secret-ä]}]", "visible ASCII"),
        ("tenants: [{name: a, keys: sk-secret-secret-secret}]", "expected a list of keys"),
        ("tenants: [{name: a, keys: [[sk-secret-secret-secret]]}]", "a key is text"),
        ("tenants: [{name: a, keys: [12345678901234567890]}]", "a key is text"),
        ("tenants: [{name: a, key: sk-secret-secret-secret}]", "unknown field"),
        ("tenants: [{name: a, requestsPerMinute: 0}]", "requestsPerMinute"),
        ("tenants: [{name: a, inflightLimit: 0}]", "inflightLimit"),
        (
            f"tenants: [{{name: a, keys: [{KEY}]}}, {{name: b, keys: [{KEY}]}}]",
            r"tenants\[1\].keys\[0\]: tenant a has the same key",
        ),
    ],
)
def test_what_is_wrong_is_told_without_the_key(text: str, problem: str) -> None:
    """The message names the place; whatever may be a key stays out of it."""
    with pytest.raises(TenantsError, match=problem) as raised:
        parse_tenants(text)
    assert "sk-" not in str(raised.value)
    assert "1234567890" not in str(raised.value)
