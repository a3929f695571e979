"""Options by which tenants alone are let in: what fits together, and what Envoy is told."""

import argparse

import pytest

from heliostat_cli.envoy_options import OptionError
from heliostat_cli.tenant_options import add_tenant_options, client_identity
from heliostat_extproc.envoy.client_identity import ClientIdentity

ISSUER = ["--tenants", "t", "--token-issuer", "i"]


def parse(options: list[str]) -> ClientIdentity | None:
    parser = argparse.ArgumentParser()
    add_tenant_options(parser)
    return client_identity(parser.parse_args(options))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--token-issuer", "i"], "--token-issuer needs --tenants"),
        (["--tenants", "t", "--token-keys-url", "http://k"], "need --token-issuer"),
        (["--tenants", "t", "--token-audience", "a"], "need --token-issuer"),
        (ISSUER, "--token-issuer needs --token-keys-url"),
        ([*ISSUER, "--token-keys-url", "keys.json"], "takes an http or https URL"),
        ([*ISSUER, "--token-keys-url", "https://id:99999/"], "takes an http or https URL"),
        ([*ISSUER, "--token-keys-url", "https://[id/"], "takes an http or https URL"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: list[str], problem: str) -> None:
    """The message names the options."""
    with pytest.raises(OptionError, match=problem):
        parse(options)


def test_tenants_prove_themselves_by_keys_or_tokens() -> None:
    """Nobody has to without the file; with it keys are asked for, or tokens of an issuer."""
    assert parse([]) is None
    assert parse(["--tenants", "t"]) == ClientIdentity()
    identity = parse([*ISSUER, "--token-keys-url", "https://id/keys", "--token-audience", "a"])
    assert identity is not None
    assert identity.tokens is not None
    assert (identity.tokens.issuer, identity.tokens.audiences) == ("i", ("a",))
    assert identity.tokens.tenant_claim == "sub"
