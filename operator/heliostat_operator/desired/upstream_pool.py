"""The pool as gateways of the Gateway API know it: `inference.networking.k8s.io/v1`."""

from ipaddress import IPv4Address, ip_address

from heliostat_crds.inference_pool import InferencePool
from heliostat_crds.wire_names import MANAGED_BY
from heliostat_kube.resource import Json
from heliostat_operator.desired.naming import object_metadata, pod_selector
from heliostat_operator.desired.settings import Picker

PICKER_PORT_NAME = "ext-proc"

_BRIDGE_SUFFIX = "-heliostat-picker"
"""Makes the bridging Service's name of the pool's: 63 characters at most, as Services allow, and
none that another pool's own Service would have."""


def desired_export(pool: InferencePool, picker: Picker | None) -> tuple[Json, ...]:
    """Give the upstream pool with our router as its endpoint picker, and how it is reached."""
    if picker is None:
        return ()
    if pool.metadata.namespace == picker.namespace:
        return (_upstream_pool(pool, picker.service, picker.port),)
    name = f"{pool.metadata.name}{_BRIDGE_SUFFIX}"
    return (
        _bridge_service(pool, name, picker),
        *_bridge_slices(pool, name, picker),
        _upstream_pool(pool, name, picker.port),
    )


def _upstream_pool(pool: InferencePool, service: str, port: int) -> Json:
    return {
        "apiVersion": "inference.networking.k8s.io/v1",
        "kind": "InferencePool",
        "metadata": object_metadata(pool, pool.metadata.name),
        "spec": {
            "selector": {"matchLabels": pod_selector(pool)},
            "targetPorts": [{"number": pool.spec.engine.port}],
            "endpointPickerRef": {
                "group": "",
                "kind": "Service",
                "name": service,
                "port": {"number": port},
                # Without its picker a gateway still knows the endpoints: worse picks, no outage.
                "failureMode": "FailOpen",
            },
        },
    }


def _bridge_service(pool: InferencePool, name: str, picker: Picker) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": object_metadata(pool, name),
        "spec": {
            "type": "ClusterIP",
            "ports": [
                {
                    "name": PICKER_PORT_NAME,
                    "port": picker.port,
                    "targetPort": picker.target_port,
                    "protocol": "TCP",
                    "appProtocol": "http2",
                }
            ],
        },
    }


def _bridge_slices(pool: InferencePool, name: str, picker: Picker) -> tuple[Json, ...]:
    """Give one EndpointSlice per address family; slices hold one family each."""
    families: dict[str, list[str]] = {"IPv4": [], "IPv6": []}
    for address in sorted(picker.addresses):
        family = "IPv4" if isinstance(ip_address(address), IPv4Address) else "IPv6"
        families[family].append(address)
    return tuple(
        _bridge_slice(pool, name, picker, family, addresses)
        for family, addresses in families.items()
        if addresses or family == "IPv4"
    )


def _bridge_slice(
    pool: InferencePool, name: str, picker: Picker, family: str, addresses: list[str]
) -> Json:
    metadata = object_metadata(pool, f"{name}-{family.lower()}")
    metadata["labels"] |= {
        "kubernetes.io/service-name": name,
        "endpointslice.kubernetes.io/managed-by": MANAGED_BY,
    }
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": family,
        "endpoints": [
            {"addresses": [address], "conditions": {"ready": True}} for address in addresses
        ],
        "ports": [{"name": PICKER_PORT_NAME, "port": picker.target_port, "protocol": "TCP"}],
    }
