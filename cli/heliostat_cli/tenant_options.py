"""Options by which the gateway lets in tenants alone."""

import argparse
from pathlib import Path
from urllib.parse import urlsplit

from heliostat_cli.envoy_options import OptionError
from heliostat_extproc.envoy.client_identity import ClientIdentity, TokenSettings


def add_tenant_options(parser: argparse.ArgumentParser) -> None:
    """Declare them."""
    group = parser.add_argument_group("tenants, which alone are let in")
    group.add_argument(
        "--tenants",
        type=Path,
        metavar="FILE",
        help="file of tenants with their API keys and limits, read again when it changes",
    )
    group.add_argument(
        "--token-issuer",
        metavar="ISSUER",
        help="with --tenants: clients bring tokens (JWT) of this issuer instead of API keys",
    )
    group.add_argument(
        "--token-keys-url",
        metavar="URL",
        help="with --token-issuer: where the issuer's key set (JWKS) is",
    )
    group.add_argument(
        "--token-audience",
        action="append",
        default=[],
        metavar="NAME",
        help="with --token-issuer: a token must be for one of these; may be repeated",
    )
    group.add_argument(
        "--token-tenant-claim",
        default="sub",
        metavar="NAME",
        help="with --token-issuer: the claim that names the tenant (default: %(default)s)",
    )


def client_identity(args: argparse.Namespace) -> ClientIdentity | None:
    """Translate them for Envoy; OptionError where they do not fit."""
    if args.tenants is None:
        if args.token_issuer is not None:
            raise OptionError("--token-issuer needs --tenants")
        return None
    if args.token_issuer is None:
        if args.token_keys_url is not None or args.token_audience:
            raise OptionError("--token-keys-url and --token-audience need --token-issuer")
        return ClientIdentity()
    if args.token_keys_url is None:
        raise OptionError("--token-issuer needs --token-keys-url")
    if not _is_web_url(args.token_keys_url):
        raise OptionError("--token-keys-url takes an http or https URL")
    return ClientIdentity(
        TokenSettings(
            issuer=args.token_issuer,
            keys_url=args.token_keys_url,
            audiences=tuple(args.token_audience),
            tenant_claim=args.token_tenant_claim,
        )
    )


def _is_web_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        return False
