"""`heliostat gateway`: Envoy and its router, started, supervised and stopped together."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from heliostat_cli.envoy_options import OptionError, add_client_tls_options, client_tls
from heliostat_cli.router import (
    add_router_options,
    router_settings,
    run_until_stopped,
    wait_for_stop,
)
from heliostat_cli.tenant_options import client_identity
from heliostat_extproc.envoy.bootstrap import BootstrapSettings
from heliostat_extproc.envoy.process import EnvoyProcess, EnvoyStartError, ProcessSettings
from heliostat_extproc.observing.access_log_file import access_log_to
from heliostat_extproc.process import RouterProcess, RouterSettings, RouterStartError, run_router
from heliostat_extproc.recorder import record_to
from heliostat_routing.router import Router

_READY_TIMEOUT_SECONDS = 30.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--host", default="127.0.0.1", help="address for clients (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=int, default=8080, help="port for clients (default: %(default)s)"
    )
    add_client_tls_options(parser.add_argument_group("HTTPS"))
    add_router_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run until SIGTERM or ^C."""
    try:
        router_settings(args, Path("router.sock"))
        client_tls(args, Path())
    except OptionError as error:
        print(f"heliostat: {error}", file=sys.stderr)
        return 2
    return run_until_stopped(args, lambda stop: _serve(args, stop))


async def _serve(args: argparse.Namespace, stop: asyncio.Event) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="heliostat-") as directory,
        record_to(args.record) as recorder,
        access_log_to(args.access_log) as access_log,
    ):
        settings = router_settings(args, Path(directory) / "router.sock")
        async with run_router(settings, Router(), recorder, access_log) as router:
            try:
                await _serve_with_envoy(args, settings, router, stop)
            except EnvoyStartError as error:
                raise RouterStartError(str(error)) from error


async def _serve_with_envoy(
    args: argparse.Namespace, settings: RouterSettings, router: RouterProcess, stop: asyncio.Event
) -> None:
    def bootstrap(admin_socket: Path) -> BootstrapSettings:
        return BootstrapSettings(
            router_socket=settings.socket,
            admin=admin_socket,
            listen_address=args.host,
            listen_port=args.port,
            client_tls=client_tls(args, admin_socket.parent),
            body_limit_bytes=settings.body_limit_bytes,
            client_identity=client_identity(args),
            federation=None if settings.membership is None else settings.membership.envoy,
            traces=settings.traces,
        )

    process_settings = ProcessSettings(drain_seconds=args.drain_seconds)
    async with EnvoyProcess(bootstrap, process_settings) as envoy:
        try:
            async with asyncio.timeout(_READY_TIMEOUT_SECONDS):
                await envoy.wait_until_ready()
        except TimeoutError as error:
            raise RouterStartError("Envoy did not become ready in time") from error
        _announce(args, router)
        await wait_for_stop(router, stop)
        await asyncio.gather(envoy.drain(), router.drain())


def _announce(args: argparse.Namespace, router: RouterProcess) -> None:
    url = f"http://{args.host}:{args.port}"
    https = f" and https://{args.host}:{args.gateway_tls_port}" if args.gateway_tls_cert else ""
    print(f"Gateway on {url}{https}, admin on {router.admin_url}")
    models = router.pools.models()
    if models:
        here = f"http://127.0.0.1:{args.port}" if args.host in ("0.0.0.0", "::") else url  # noqa: S104
        print(
            f"Try: curl {here}/v1/chat/completions -H 'content-type: application/json' -d "
            f'\'{{"model": "{models[0].name}", '
            f'"messages": [{{"role": "user", "content": "Hello"}}]}}\''
        )
    else:
        where = "apply one with kubectl" if args.kubernetes else f"put manifests into {args.pools}"
        print(f"No InferencePools yet: {where}", file=sys.stderr)
    sys.stdout.flush()
