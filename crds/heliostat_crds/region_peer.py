"""The RegionPeer: another region's gateway, and how it proves who it is."""

from typing import Annotated, Literal

from pydantic import Field

from heliostat_crds.fields import Strict
from heliostat_crds.metadata import Metadata

PEER_KIND = "RegionPeer"


class PeerGateway(Strict):
    """Where the peer is reached."""

    address: Annotated[
        str,
        Field(
            min_length=3,
            max_length=262,
            pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?|\[[0-9a-f:.]+\]):[0-9]{1,5}$",
            json_schema_extra={"allowed": "HOST:PORT, such as `gateway.eu-west.example.com:443`"},
        ),
    ]
    """Host name or IP address of the peer's gateway, and its port."""


class PeerPrice(Strict):
    """What sending requests to the peer costs."""

    per_gib: Annotated[float, Field(ge=0, le=1_000_000, alias="perGiB")] = 0.0
    """Price of 1 GiB sent there, in the one currency that you use for all prices."""


class PeerSpec(Strict):
    """Which region the peer is, and how it is reached."""

    region: Annotated[
        str,
        Field(
            min_length=1,
            max_length=63,
            pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
            json_schema_extra={"allowed": "1 to 63 lower-case letters, digits and `-`"},
        ),
    ]
    """Name of the peer's region."""
    gateway: PeerGateway
    """Where the peer is reached."""
    identity: Annotated[
        str,
        Field(
            min_length=10,
            max_length=2048,
            pattern=r"^spiffe://[a-z0-9._-]+(/[A-Za-z0-9._-]+)+$",
            json_schema_extra={"allowed": "`spiffe://TRUST-DOMAIN/PATH`"},
        ),
    ]
    """The URI that the peer's TLS certificate must hold as a subject alternative name."""
    price: PeerPrice = Field(default_factory=PeerPrice)
    """What sending requests to the peer costs."""


class RegionPeer(Strict):
    """Another region's gateway, to which requests may be sent."""

    api_version: Literal["heliostat.dev/v1alpha1"]
    """Version of this format."""
    kind: Literal["RegionPeer"]
    """Kind of resource."""
    metadata: Metadata
    """Which object this is."""
    spec: PeerSpec
    """Which region the peer is, and how it is reached."""
