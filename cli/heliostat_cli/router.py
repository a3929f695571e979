"""`heliostat router`: the router alone, for an Envoy that the user runs."""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from heliostat_cli.envoy_options import (
    OptionError,
    add_envoy_file_options,
    add_picker_options,
    picker_address,
    sidecar_settings,
)
from heliostat_cli.observing_options import (
    add_observing_options,
    keep_settings,
    trace_settings,
)
from heliostat_cli.region_options import (
    add_region_options,
    parse_home,
    parse_membership,
    parse_region,
)
from heliostat_cli.service import add_log_options, run_service
from heliostat_cli.tenant_options import add_tenant_options, client_identity
from heliostat_extproc.discovery.cluster import ClusterSettings, KubernetesDiscovery
from heliostat_extproc.discovery.discovery import Discovery
from heliostat_extproc.discovery.folder import FolderDiscovery
from heliostat_extproc.driver import Recorder
from heliostat_extproc.envoy.federation import FederationSettings
from heliostat_extproc.envoy.sidecar import SidecarSettings
from heliostat_extproc.ext_proc import DEFAULT_BODY_LIMIT_BYTES
from heliostat_extproc.federation.region import Region
from heliostat_extproc.observing.access_log_file import AccessLogFile, access_log_to
from heliostat_extproc.process import RouterProcess, RouterSettings, RouterStartError, run_router
from heliostat_extproc.recorder import record_to
from heliostat_kube.errors import ConfigurationError
from heliostat_routing.router import Router
from heliostat_routing.settings import PolicyName

DEFAULT_ADMIN_PORT = 9090
_MIB = 1024 * 1024
_LARGEST_BODY_LIMIT_MIB = 255
"""A message of Envoy's with a body must stay within 256 MiB."""
"""HTTP/2 has no window for two gibibytes."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--socket",
        type=Path,
        default=Path("/tmp/heliostat/router.sock"),  # noqa: S108 - documented, and a user's choice
        help="Unix socket for Envoy (default: %(default)s)",
    )
    add_router_options(parser)
    add_envoy_file_options(parser)
    add_picker_options(parser)


def add_router_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of every command that runs a router."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--pools", type=Path, metavar="DIR", help="folder of InferencePool manifests"
    )
    source.add_argument(
        "--kubernetes",
        action="store_true",
        help="follow InferencePools and pods of a cluster: the one this runs in, else KUBECONFIG",
    )
    parser.add_argument(
        "--namespace",
        action="append",
        default=[],
        metavar="NAME",
        help="with --kubernetes: follow this namespace only; may be repeated (default: all)",
    )
    parser.add_argument(
        "--picker-service",
        metavar="NAME",
        help="with --kubernetes: also serve pools of the Gateway API whose endpointPickerRef names"
        " this Service",
    )
    parser.add_argument(
        "--policy",
        choices=[policy.value for policy in PolicyName],
        help="use this policy for all pools",
    )
    parser.add_argument(
        "--admin-host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address for the admin port (default: %(default)s)",
    )
    parser.add_argument(
        "--admin-port",
        type=int,
        default=DEFAULT_ADMIN_PORT,
        metavar="PORT",
        help="port for /metrics, /pools, /endpoints, /peers, /requests, /healthz, /readyz; 0 takes"
        " a free one (default: %(default)s)",
    )
    parser.add_argument(
        "--engine-api-key-file",
        type=Path,
        metavar="FILE",
        help="file with the key that engines were given as --api-key: requests go to them with it,"
        " whatever the client sent; read again when it changes",
    )
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="log every event and command, for replay"
    )
    parser.add_argument(
        "--max-body-mib",
        type=_body_limit_mib,
        default=DEFAULT_BODY_LIMIT_BYTES // _MIB,
        metavar="MIB",
        help="largest request body; a larger one is answered 413 (default: %(default)s)",
    )
    parser.add_argument(
        "--drain-seconds",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="how long requests may take to end on SIGTERM (default: %(default)s)",
    )
    add_tenant_options(parser)
    add_region_options(parser)
    add_observing_options(parser)
    add_log_options(parser)


def body_limit_bytes(args: argparse.Namespace) -> int:
    """Give the largest request body, for router and Envoy alike."""
    return int(args.max_body_mib * _MIB)


def _body_limit_mib(text: str) -> int:
    limit_mib = int(text)
    if not 1 <= limit_mib <= _LARGEST_BODY_LIMIT_MIB:
        raise argparse.ArgumentTypeError(f"must be 1 to {_LARGEST_BODY_LIMIT_MIB}")
    return limit_mib


def run(args: argparse.Namespace) -> int:
    """Run until SIGTERM or ^C."""
    try:
        settings = router_settings(args, args.socket)
        federation = None if settings.membership is None else settings.membership.envoy
        settings = replace(
            settings,
            picker=picker_address(args),
            own_envoy=not args.no_envoy,
            envoy_files=_envoy_files(args, federation, settings.body_limit_bytes),
        )
    except OptionError as error:
        print(f"heliostat: {error}", file=sys.stderr)
        return 2
    return run_until_stopped(args, lambda stop: _serve(args, _with_traces(settings), stop))


def _with_traces(settings: RouterSettings) -> RouterSettings:
    """Have Envoy take part in the traces that the router takes part in."""
    files = settings.envoy_files
    if files is None:
        return settings
    return replace(settings, envoy_files=replace(files, traces=settings.traces))


def _envoy_files(
    args: argparse.Namespace, federation: FederationSettings | None, body_limit_bytes: int
) -> SidecarSettings | None:
    files = sidecar_settings(args, federation, body_limit_bytes)
    return None if files is None else replace(files, client_identity=client_identity(args))


def run_until_stopped(
    args: argparse.Namespace, serve: Callable[[asyncio.Event], Awaitable[None]]
) -> int:
    """Run `serve` as a service, once the folder of pools is there."""
    if args.pools is not None and not args.pools.is_dir():
        print(f"heliostat: no such folder: {args.pools}", file=sys.stderr)
        return 1
    return run_service(args, serve, RouterStartError, ConfigurationError)


async def wait_for_stop(router: RouterProcess, stop: asyncio.Event) -> None:
    """Wait for the signal to stop; raise where a part of the router fails before."""
    parts = asyncio.ensure_future(router.run())
    signalled = asyncio.ensure_future(stop.wait())
    try:
        done, _ = await asyncio.wait((parts, signalled), return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        parts.cancel()
        signalled.cancel()


def router_settings(args: argparse.Namespace, socket: Path) -> RouterSettings:
    """Translate the options of `add_router_options`; OptionError where they do not fit."""
    region = parse_region(args)
    identity = client_identity(args)
    return RouterSettings(
        discovery=_discovery(args, region),
        membership=parse_membership(args, region, socket),
        socket=socket,
        admin_host=args.admin_host,
        admin_port=args.admin_port,
        body_limit_bytes=body_limit_bytes(args),
        policy=None if args.policy is None else PolicyName(args.policy),
        drain_seconds=args.drain_seconds,
        engine_key_file=args.engine_api_key_file,
        keep=keep_settings(args),
        traces=trace_settings(args),
        tenants_file=args.tenants,
        tokens=identity is not None and identity.tokens is not None,
    )


def _discovery(args: argparse.Namespace, region: Region | None) -> Discovery:
    if args.kubernetes:
        home = parse_home(args, region)
        return KubernetesDiscovery(
            ClusterSettings(tuple(args.namespace), args.picker_service, home)
        )
    return FolderDiscovery(args.pools, own_region=None if region is None else region.name)


async def _serve(args: argparse.Namespace, settings: RouterSettings, stop: asyncio.Event) -> None:
    with record_to(args.record) as recorder, access_log_to(args.access_log) as access_log:
        await _run_router(settings, recorder, access_log, stop)


async def _run_router(
    settings: RouterSettings,
    recorder: Recorder | None,
    access_log: AccessLogFile | None,
    stop: asyncio.Event,
) -> None:
    async with run_router(settings, Router(), recorder, access_log) as router:
        print(f"Router on {settings.socket}, admin on {router.admin_url}", flush=True)
        await wait_for_stop(router, stop)
        await router.drain()
