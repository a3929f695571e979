"""The options for gateways of others: which go together, and what they mean."""

import argparse

import pytest

from heliostat_cli.envoy_options import (
    OptionError,
    add_envoy_file_options,
    add_picker_options,
    picker_address,
)
from heliostat_cli.tenant_options import add_tenant_options


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_envoy_file_options(parser)
    add_picker_options(parser)
    add_tenant_options(parser)
    return parser.parse_args(arguments)


def test_a_picker_names_as_many_fallbacks_as_it_is_told() -> None:
    """None by default, as there are gateways that can read no list."""
    for arguments, fallbacks in (((), 0), (("--listen-fallbacks", "2"), 2)):
        address = picker_address(parsed("--listen", "[::]:9002", *arguments))
        assert address is not None
        assert address.fallbacks == fallbacks
    assert picker_address(parsed()) is None


@pytest.mark.parametrize(
    "arguments",
    [
        ("--no-envoy",),
        ("--listen", "[::]:9002", "--no-envoy", "--write-envoy-config", "envoy-files"),
        ("--listen", "[::]:9002", "--no-envoy", "--tenants", "tenants.yaml"),
        ("--listen", "[::]:9002", "--listen-fallbacks", "-1"),
        ("--listen-tls",),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments: tuple[str, ...]) -> None:
    """Before anything is started."""
    with pytest.raises(OptionError):
        picker_address(parsed(*arguments))
