"""Where the API server is and how we prove who we are: a service account, or a kubeconfig.

In a pod, the two files of the service account are read directly: the `kubernetes` package takes
tens of megabytes. For a kubeconfig, with its many ways to sign in, that package is used.
"""

import asyncio
import os
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heliostat_kube.errors import ConfigurationError

SERVICE_ACCOUNT_FOLDER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
DEFAULT_KUBECONFIG = os.path.expanduser("~/.kube/config")
TOKEN_REFRESH_SECONDS = 60.0
"""How long a token that was read is used before it is read again; the kubelet renews it at 80% of
its life, an hour as a rule."""

Authorize = Callable[[], Awaitable[str | None]]
"""The current `authorization` header, or None where a client certificate says who we are."""


async def _no_authorization() -> str | None:
    return None


@dataclass(frozen=True)
class TlsFiles:
    """What a TLS context is made of, for those who make their own."""

    authority: str | None = None
    certificate: str | None = None
    key: str | None = None
    verify: bool = True


@dataclass(frozen=True)
class Connection:
    """One API server and our credentials for it.

    server -- URL without a slash at its end
    tls, tls_files -- the same twice; None where the server is plain HTTP
    namespace -- the one we run in, or the kubeconfig's; None where neither says
    """

    server: str
    tls: ssl.SSLContext | None = None
    authorize: Authorize = _no_authorization
    namespace: str | None = None
    proxy: str | None = None
    server_name: str | None = None
    tls_files: TlsFiles | None = None


async def find_connection(kubeconfig: Path | None = None) -> Connection:
    """Take the kubeconfig given, else $KUBECONFIG, the pod's service account, ~/.kube/config.

    ConfigurationError says what is missing.
    """
    if kubeconfig is not None:
        return await connection_of_kubeconfig(str(kubeconfig))
    named = os.environ.get("KUBECONFIG")
    if named:
        return await connection_of_kubeconfig(named)
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return connection_of_service_account()
    if os.path.isfile(DEFAULT_KUBECONFIG):  # noqa: ASYNC240 - once, at the start
        return await connection_of_kubeconfig(DEFAULT_KUBECONFIG)
    raise ConfigurationError(
        "no Kubernetes cluster is configured: set KUBECONFIG, or run in a pod with a service"
        " account"
    )


def connection_of_service_account(folder: Path = SERVICE_ACCOUNT_FOLDER) -> Connection:
    """Use what the kubelet gave to this pod."""
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    token_file = ServiceAccountToken(folder / "token")
    try:
        token_file.read()
        files = TlsFiles(authority=str(folder / "ca.crt"))
        tls = _tls_of(files)
        namespace = (folder / "namespace").read_text().strip()
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the pod's service account ({error}); is automountServiceAccountToken off?"
        ) from error
    return Connection(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        tls=tls,
        tls_files=files,
        authorize=token_file.authorize,
        namespace=namespace,
    )


class ServiceAccountToken:
    """The token file, read again once a minute."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._header = ""
        self._read_at = -TOKEN_REFRESH_SECONDS

    def read(self) -> None:
        """Read the file; OSError where it cannot be."""
        self._header = f"Bearer {self._path.read_text().strip()}"
        self._read_at = time.monotonic()

    async def authorize(self) -> str | None:
        """Give the header, of a token read within the last minute where the file is there."""
        if time.monotonic() - self._read_at >= TOKEN_REFRESH_SECONDS:
            try:
                self.read()
            except OSError:
                self._read_at = time.monotonic()
        return self._header


async def connection_of_kubeconfig(paths: str) -> Connection:
    """Use the current context of a kubeconfig, or of several, joined by the path separator."""
    if not any(os.path.isfile(path) for path in paths.split(os.pathsep)):  # noqa: ASYNC240 - once
        raise ConfigurationError(f"no such kubeconfig: {paths}")
    from kubernetes.aio.client import Configuration
    from kubernetes.aio.config import ConfigException, load_kube_config

    configuration = Configuration()

    async def load() -> Any:
        return await load_kube_config(  # type: ignore[no-untyped-call]
            config_file=paths, client_configuration=configuration, persist_config=False
        )

    try:
        loader = await load()
    except (ConfigException, ValueError, TypeError) as error:
        raise ConfigurationError(f"cannot use kubeconfig {paths}: {error}") from error
    credentials = _KubeconfigCredentials(load, configuration)
    server = str(configuration.host).rstrip("/")
    files = None
    if server.startswith("https:"):
        files = TlsFiles(
            authority=configuration.ssl_ca_cert,
            certificate=configuration.cert_file,
            key=configuration.key_file,
            verify=configuration.verify_ssl,
        )
    return Connection(
        server=server,
        tls=None if files is None else _tls_of(files),
        tls_files=files,
        authorize=credentials.authorize,
        namespace=loader.current_context["context"].get("namespace"),
        proxy=configuration.proxy,
        server_name=configuration.tls_server_name,
    )


class _KubeconfigCredentials:
    """The kubeconfig's token, made anew once a minute: sign-in plugins give short-lived ones."""

    def __init__(self, load: Callable[[], Awaitable[Any]], configuration: Any) -> None:
        self._load = load
        self._configuration = configuration
        self._loaded_at = time.monotonic()
        self._loading = asyncio.Lock()

    async def authorize(self) -> str | None:
        header = self._configuration.api_key.get("BearerToken")
        if header is None:
            return None
        async with self._loading:
            if time.monotonic() - self._loaded_at >= TOKEN_REFRESH_SECONDS:
                self._loaded_at = time.monotonic()
                await self._load()
        return str(self._configuration.api_key["BearerToken"])


def _tls_of(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files.authority)
    # Without the extensions that RFC 5280 asks of a CA and many clusters' own CAs lack.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if files.certificate:
        context.load_cert_chain(files.certificate, files.key)
    if not files.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
