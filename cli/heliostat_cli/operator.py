"""`heliostat operator`: keeps a cluster's engines as its InferencePools declare them."""

import argparse
import os
import socket
import uuid

from heliostat_cli.service import add_log_options, run_service
from heliostat_crds.wire_names import LEASE_NAME
from heliostat_kube.connection import SERVICE_ACCOUNT_FOLDER
from heliostat_kube.errors import ConfigurationError
from heliostat_operator.desired.settings import SecretKey
from heliostat_operator.process import run_operator
from heliostat_operator.settings import (
    DEFAULT_HEALTH_PORT,
    DEFAULT_PICKER_PORT,
    DEFAULT_ROUTER_ADMIN_PORT,
    DEFAULT_ROUTER_SELECTOR,
    OperatorSettings,
    PickerService,
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = (
        "The cluster is the one of $KUBECONFIG; in a pod that of its service account; else that of"
        " ~/.kube/config. Several replicas may run: the one that holds the Lease works."
    )
    parser.add_argument(
        "--namespace",
        action="append",
        default=[],
        metavar="NAME",
        help="keep the pools of this namespace; may be given again (default: all namespaces)",
    )
    parser.add_argument(
        "--own-namespace",
        metavar="NAME",
        help="namespace of the Lease and of the gateway's pods (default: the pod's own, else"
        " default)",
    )
    parser.add_argument(
        "--lease-name",
        default=LEASE_NAME,
        metavar="NAME",
        help="Lease that the leading replica holds (default: %(default)s)",
    )
    parser.add_argument(
        "--gateway-url",
        default="",
        metavar="URL",
        help="where clients reach the pools; shown in each pool's status.url",
    )
    parser.add_argument(
        "--router-selector",
        type=_selector,
        default=DEFAULT_ROUTER_SELECTOR,
        metavar="LABELS",
        help="label selector of the pods that hold a router (default: %(default)s)",
    )
    parser.add_argument(
        "--router-admin-port",
        type=int,
        default=DEFAULT_ROUTER_ADMIN_PORT,
        metavar="PORT",
        help="their admin port, asked for requests in flight (default: %(default)s)",
    )
    parser.add_argument(
        "--picker-service",
        metavar="NAME",
        help="Service of the routers, in the own namespace: each pool is then exported as an"
        " inference.networking.k8s.io/v1 InferencePool that names it, where that kind is served",
    )
    parser.add_argument(
        "--picker-port",
        type=int,
        default=DEFAULT_PICKER_PORT,
        metavar="PORT",
        help="that Service's port (default: %(default)s)",
    )
    parser.add_argument(
        "--picker-target-port",
        type=int,
        metavar="PORT",
        help="the port of the routers' pods behind it (default: as --picker-port)",
    )
    parser.add_argument(
        "--engine-api-key-secret",
        type=_secret_key,
        metavar="NAME:KEY",
        help="Secret in each pool's namespace whose KEY engines ask of their callers",
    )
    parser.add_argument(
        "--health-host",
        default="127.0.0.1",
        metavar="HOST",
        help="address for /healthz, /readyz and /metrics (default: %(default)s)",
    )
    parser.add_argument(
        "--health-port",
        type=int,
        default=DEFAULT_HEALTH_PORT,
        metavar="PORT",
        help="port for them; 0 takes a free one (default: %(default)s)",
    )
    add_log_options(parser)


def run(args: argparse.Namespace) -> int:
    """Run until SIGTERM or ^C."""
    settings = operator_settings(args)
    return run_service(args, lambda stop: run_operator(settings, stop), ConfigurationError)


def operator_settings(args: argparse.Namespace) -> OperatorSettings:
    """Translate the options."""
    picker = None
    if args.picker_service is not None:
        target_port = args.picker_target_port or args.picker_port
        picker = PickerService(args.picker_service, args.picker_port, target_port)
    return OperatorSettings(
        namespaces=tuple(dict.fromkeys(args.namespace)),
        own_namespace=args.own_namespace or _pod_namespace(),
        identity=f"{os.environ.get('HOSTNAME') or socket.gethostname()}_{uuid.uuid4().hex[:8]}",
        lease_name=args.lease_name,
        gateway_url=args.gateway_url,
        router_selector=args.router_selector,
        router_admin_port=args.router_admin_port,
        picker=picker,
        engine_api_key=args.engine_api_key_secret,
        health_host=args.health_host,
        health_port=args.health_port,
    )


def _pod_namespace() -> str:
    try:
        return (SERVICE_ACCOUNT_FOLDER / "namespace").read_text().strip()
    except OSError:
        return "default"


def _selector(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("a label selector must not be empty")
    return text


def _secret_key(text: str) -> SecretKey:
    name, separator, key = text.partition(":")
    if not (name and separator and key):
        raise argparse.ArgumentTypeError(f'"{text}" is not NAME:KEY of a Secret')
    return SecretKey(name, key)
