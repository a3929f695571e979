"""What whoever starts the operator decides."""

from dataclasses import dataclass, field
from pathlib import Path

from heliostat_crds.wire_names import (
    APP_LABEL,
    APP_NAME,
    COMPONENT_LABEL,
    GATEWAY_COMPONENT,
    LEASE_NAME,
)
from heliostat_operator.desired.settings import SecretKey

DEFAULT_ROUTER_SELECTOR = f"{APP_LABEL}={APP_NAME},{COMPONENT_LABEL}={GATEWAY_COMPONENT}"
DEFAULT_ROUTER_ADMIN_PORT = 9090
DEFAULT_HEALTH_PORT = 8080
DEFAULT_PICKER_PORT = 9002


@dataclass(frozen=True)
class PickerService:
    """The Service that leads gateways of the Gateway API to our routers.

    `target_port` is the port of the router's pods.
    """

    name: str
    port: int
    target_port: int


@dataclass(frozen=True)
class LeaseTiming:
    """How leadership passes on; all in seconds.

    A leader that dies is succeeded after at most `duration` and one `retry`. One that cannot renew
    stops after `renew_deadline`, before any other may start.
    """

    duration_seconds: float = 12.0
    renew_deadline_seconds: float = 8.0
    retry_seconds: float = 2.0


@dataclass(frozen=True)
class OperatorSettings:
    """Options of the process.

    namespaces -- those whose pools it keeps; empty for all
    own_namespace -- where its Lease and the routers are
    identity -- who holds the Lease: unlike that of any other replica
    gateway_url -- what `status.url` of every pool shows; empty for nothing
    router_selector -- labels of the pods with a router, in the own namespace
    resync_seconds -- how often every pool is looked at again though nothing was heard
    """

    own_namespace: str
    identity: str
    namespaces: tuple[str, ...] = ()
    lease_name: str = LEASE_NAME
    lease_timing: LeaseTiming = field(default_factory=LeaseTiming)
    gateway_url: str = ""
    router_selector: str = DEFAULT_ROUTER_SELECTOR
    router_admin_port: int = DEFAULT_ROUTER_ADMIN_PORT
    picker: PickerService | None = None
    engine_api_key: SecretKey | None = None
    health_host: str = "127.0.0.1"
    health_port: int = DEFAULT_HEALTH_PORT
    resync_seconds: float = 300.0
    workers: int = 8
    kubeconfig: Path | None = None
