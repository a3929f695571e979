"""What one installation decides for the objects of all its pools."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SecretKey:
    """One value of a Secret, which every namespace with pools must hold."""

    name: str
    key: str


@dataclass(frozen=True, slots=True)
class Picker:
    """Our router, as gateways of the Gateway API reach it: ext_proc over TLS behind a Service.

    Such a gateway looks for the Service in the pool's own namespace only. Pools of other namespaces
    therefore get a Service without a selector, of the same port, that leads to `addresses` (pod
    IPs of the routers) at `target_port`.
    """

    service: str
    namespace: str
    port: int
    target_port: int
    addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DesiredSettings:
    """Options of the operator that show in the objects that it makes.

    `engine_api_key` is what engines ask of those who call them; None lets everybody call them.
    `picker` makes pools known to gateways of the Gateway API; None where the cluster does not
    serve `inference.networking.k8s.io/v1`, or nobody wants it.
    """

    engine_api_key: SecretKey | None = None
    picker: Picker | None = None
