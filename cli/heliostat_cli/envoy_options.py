"""Options about Envoy: our own, one that someone else starts, and those of other gateways."""

import argparse
from pathlib import Path

from heliostat_extproc.certificates import CertificateFiles
from heliostat_extproc.envoy.client_tls import ClientTls
from heliostat_extproc.envoy.federation import FederationSettings
from heliostat_extproc.envoy.sidecar import SidecarSettings
from heliostat_extproc.listeners import PickerAddress


class OptionError(ValueError):
    """Options that do not go together."""


def add_picker_options(parser: argparse.ArgumentParser) -> None:
    """Declare where other gateways may ask for an endpoint."""
    group = parser.add_argument_group("endpoint picker for other gateways")
    group.add_argument(
        "--listen", metavar="HOST:PORT", help="serve ext_proc over TCP too, for their Envoys"
    )
    group.add_argument(
        "--no-envoy",
        action="store_true",
        help="with --listen: other gateways alone ask, no Envoy comes to --socket",
    )
    group.add_argument(
        "--listen-fallbacks",
        type=int,
        default=0,
        metavar="N",
        help="with --listen: how many endpoints to name for retries, after the one that is picked;"
        " 0 for gateways that can read no list, as Envoy AI Gateway (default: %(default)s)",
    )
    group.add_argument(
        "--listen-tls", action="store_true", help="with --listen: over TLS, as most gateways ask"
    )
    group.add_argument(
        "--tls-cert",
        type=Path,
        metavar="FILE",
        help="with --listen-tls: certificate chain in PEM, read again when it changes (default: a"
        " self-signed one made at the start)",
    )
    group.add_argument(
        "--tls-key", type=Path, metavar="FILE", help="with --tls-cert: its private key in PEM"
    )


def add_envoy_file_options(parser: argparse.ArgumentParser) -> None:
    """Declare what is written for an Envoy that someone else starts."""
    group = parser.add_argument_group("Envoy's configuration")
    group.add_argument(
        "--write-envoy-config",
        type=Path,
        metavar="DIR",
        help="write envoy.json (for `envoy -c`) and drain.sh (to run before Envoy stops) there",
    )
    group.add_argument(
        "--gateway-host",
        default="0.0.0.0",  # noqa: S104 - a gateway listens for everyone
        metavar="ADDRESS",
        help="where Envoy listens for clients (default: %(default)s)",
    )
    _add_port(group, "--gateway-port", 8080, "Envoy's port for HTTP")
    add_client_tls_options(group)
    _add_port(
        group, "--envoy-ready-port", 15001, "port where Envoy answers /ready, for a readiness probe"
    )
    _add_port(group, "--envoy-admin-port", 15000, "port of Envoy's admin interface, on loopback")


def add_client_tls_options(group: argparse._ActionsContainer) -> None:
    """Declare where clients get TLS, and with which certificate."""
    group.add_argument(
        "--gateway-tls-cert",
        type=Path,
        metavar="FILE",
        help="serve HTTPS too, with this certificate chain in PEM, as Envoy sees the file; a file"
        " moved into its place is taken without restart",
    )
    group.add_argument(
        "--gateway-tls-key",
        type=Path,
        metavar="FILE",
        help="with --gateway-tls-cert: its private key in PEM",
    )
    _add_port(group, "--gateway-tls-port", 8443, "Envoy's port for HTTPS")


def picker_address(args: argparse.Namespace) -> PickerAddress | None:
    """Translate the options of `add_picker_options`; OptionError where they do not fit."""
    files = _key_pair(args.tls_cert, args.tls_key, "--tls-cert", "--tls-key")
    if files is not None and not args.listen_tls:
        raise OptionError("--tls-cert needs --listen-tls")
    if args.listen_tls and args.listen is None:
        raise OptionError("--listen-tls needs --listen")
    if args.no_envoy and args.listen is None:
        raise OptionError("--no-envoy needs --listen")
    if args.no_envoy and args.write_envoy_config is not None:
        raise OptionError("--no-envoy and --write-envoy-config exclude each other")
    if args.no_envoy and args.tenants is not None:
        raise OptionError("--no-envoy and --tenants exclude each other")
    if args.listen_fallbacks < 0:
        raise OptionError("--listen-fallbacks must not be negative")
    if args.listen is None:
        return None
    certificate = None if files is None else CertificateFiles(*files)
    return PickerAddress(args.listen, args.listen_tls, certificate, args.listen_fallbacks)


def sidecar_settings(
    args: argparse.Namespace, federation: FederationSettings | None, body_limit_bytes: int
) -> SidecarSettings | None:
    """Translate the options of `add_envoy_file_options`; OptionError where they do not fit."""
    files = _client_tls_files(args)
    if args.write_envoy_config is None:
        if files is not None:
            raise OptionError("--gateway-tls-cert needs --write-envoy-config")
        return None
    certificate, key = files or (None, None)
    return SidecarSettings(
        folder=args.write_envoy_config,
        router_socket=args.socket.absolute(),
        listen_address=args.gateway_host,
        listen_port=args.gateway_port,
        admin_port=args.envoy_admin_port,
        ready_port=args.envoy_ready_port,
        tls_certificate=certificate,
        tls_key=key,
        tls_port=args.gateway_tls_port,
        drain_seconds=args.drain_seconds,
        body_limit_bytes=body_limit_bytes,
        federation=federation,
    )


def client_tls(args: argparse.Namespace, folder: Path) -> ClientTls | None:
    """Translate the options of `add_client_tls_options` for an Envoy that may use this folder.

    OptionError where they do not fit, or a file cannot be read.
    """
    files = _client_tls_files(args)
    if files is None:
        return None
    for path in files:
        try:
            path.open("rb").close()
        except OSError as error:
            raise OptionError(f"cannot read {path}: {error.strerror}") from error
    certificate, key = (path.absolute() for path in files)
    return ClientTls(certificate, key, folder / "envoy-tls.json", args.gateway_tls_port)


def _client_tls_files(args: argparse.Namespace) -> tuple[Path, Path] | None:
    return _key_pair(
        args.gateway_tls_cert, args.gateway_tls_key, "--gateway-tls-cert", "--gateway-tls-key"
    )


def _key_pair(
    certificate: Path | None, key: Path | None, certificate_option: str, key_option: str
) -> tuple[Path, Path] | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise OptionError(f"{certificate_option} and {key_option} go together")
    return certificate, key


def _add_port(group: argparse._ActionsContainer, name: str, default: int, text: str) -> None:
    group.add_argument(
        name, type=int, default=default, metavar="PORT", help=f"{text} (default: %(default)s)"
    )
