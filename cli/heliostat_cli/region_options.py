"""Options that say which region a router is in, and how it proves that to others."""

import argparse
import platform
import time
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from heliostat_cli.envoy_options import OptionError
from heliostat_crds.region_name import RegionName
from heliostat_extproc.discovery.cluster_federation import Home
from heliostat_extproc.discovery.peering import DeclaredSibling
from heliostat_extproc.envoy.addresses import AddressError, parse_address
from heliostat_extproc.envoy.federation import FederationSettings
from heliostat_extproc.federation.region import Region
from heliostat_extproc.federation.region_certificate import (
    CertificateFolder,
    CertificateSource,
    SharedSecret,
)
from heliostat_extproc.membership import MembershipSettings

_NAMES = TypeAdapter[str](RegionName)


def add_region_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of every command that runs a router."""
    group = parser.add_argument_group("federation, with other regions and with routers of this one")
    group.add_argument("--region", metavar="NAME", help="name of the region that this router is in")
    group.add_argument(
        "--region-group",
        action="append",
        default=[],
        metavar="NAME",
        help="a group of regions that it belongs to, which residency rules may name; may be"
        " repeated",
    )
    group.add_argument(
        "--router-name",
        default=platform.node() or "router",
        metavar="NAME",
        help="tells the region's routers apart (default: the host's name)",
    )
    group.add_argument(
        "--federation-port",
        type=int,
        metavar="PORT",
        help="Envoy's port for other regions' gateways and for the region's own; needs --region and"
        " one of the next two",
    )
    group.add_argument(
        "--federation-host",
        default="0.0.0.0",  # noqa: S104 - other regions come from anywhere, with certificates
        metavar="ADDRESS",
        help="address for that port (default: %(default)s)",
    )
    proof = group.add_mutually_exclusive_group()
    proof.add_argument(
        "--region-certificates",
        type=Path,
        metavar="DIR",
        help="folder with tls.crt, tls.key and ca.crt in PEM, as cert-manager writes them; the"
        " certificate holds the region's identity, spiffe://...; read again when it changes",
    )
    proof.add_argument(
        "--region-secret-file",
        type=Path,
        metavar="FILE",
        help="without other regions: a secret that the region's routers share, from which they make"
        " certificates for each other",
    )
    group.add_argument(
        "--sibling",
        type=_parse_sibling,
        action="append",
        default=[],
        metavar="NAME=IP:PORT",
        help="another router of this region, and its federation port, with which to share one view;"
        " may be repeated",
    )
    group.add_argument(
        "--sibling-selector",
        metavar="LABELS",
        help="with --kubernetes: labels of the region's gateway pods, which share one view",
    )
    group.add_argument(
        "--release-namespace",
        metavar="NAME",
        help="with --kubernetes and --region: where the RegionPeers and these pods are",
    )


def parse_region(args: argparse.Namespace) -> Region | None:
    """Translate who the router is; OptionError where the options do not fit."""
    if args.region is None:
        if args.region_group or args.federation_port is not None:
            raise OptionError("--region-group and --federation-port need --region")
        return None
    for name in (args.region, *args.region_group):
        try:
            _NAMES.validate_python(name)
        except ValidationError as error:
            raise OptionError(
                f"{name!r} names no region: 1 to 63 lower-case letters, digits and `-`"
            ) from error
    return Region(
        name=args.region,
        router=args.router_name,
        groups=frozenset(args.region_group),
        epoch=time.time_ns() // 1_000_000,
    )


def parse_membership(
    args: argparse.Namespace, region: Region | None, router_socket: Path
) -> MembershipSettings | None:
    """Translate how the router meets others; None if it does not. OptionError where it cannot."""
    source = _certificate_source(args)
    if args.federation_port is None:
        if source is not None:
            raise OptionError(
                "--region-certificates and --region-secret-file need --federation-port"
            )
        return None
    if region is None or source is None:
        raise OptionError(
            "--federation-port needs --region, and --region-certificates or --region-secret-file"
        )
    envoy = FederationSettings.beside(
        router_socket.absolute(), args.federation_port, args.federation_host
    )
    return MembershipSettings(region, source, envoy, tuple(args.sibling))


def parse_home(args: argparse.Namespace, region: Region | None) -> Home | None:
    """Translate where in its cluster the router is; None without a region."""
    if region is None:
        return None
    if args.release_namespace is None:
        raise OptionError("--kubernetes with --region needs --release-namespace")
    return Home(args.release_namespace, region.name, region.router, args.sibling_selector)


def _parse_sibling(text: str) -> DeclaredSibling:
    name, _, address = text.partition("=")
    try:
        parse_address(address)
    except AddressError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=IP:PORT") from error
    return DeclaredSibling(name, address)


def _certificate_source(args: argparse.Namespace) -> CertificateSource | None:
    if args.region_certificates is not None:
        return CertificateFolder(args.region_certificates)
    if args.region_secret_file is not None:
        return SharedSecret(args.region_secret_file, args.region or "")
    return None
