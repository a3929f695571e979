"""The RegionPeer: another region's gateway, and how it proves who it is."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError

from heliostat_crds.duration import parse_duration
from heliostat_crds.fields import VALIDATIONS, DurationBetween, Strict, first_repeated
from heliostat_crds.gateway_address import GatewayAddress
from heliostat_crds.metadata import Metadata
from heliostat_crds.region_name import RegionName, RegionNames
from heliostat_crds.rules import Misfit, Rule, unchanged
from heliostat_crds.validation import first_problem
from heliostat_routing.events import PeerSettings

PEER_KIND = "RegionPeer"

_FixedRegion = Annotated[
    RegionName,
    Field(
        json_schema_extra={
            "allowed": "1 to 63 lower-case letters, digits and `-`, a letter or digit at both ends",
            VALIDATIONS: [
                unchanged("the region cannot be changed; create another peer").validation()
            ],
        }
    ),
]
_LeaveAboveWait = Annotated[str, DurationBetween("0s", "1h")]
_RoundTrip = Annotated[str, DurationBetween("0s", "10s")]


class PeerError(ValueError):
    """An object of the API server is no peer that this version can carry out."""


class PeerGateway(Strict):
    """Where the peer is reached."""

    address: GatewayAddress
    """Host name or IP address of the peer's gateway, and its federation port."""


class PeerPrice(Strict):
    """What sending requests to the peer costs."""

    per_gib: Annotated[float, Field(ge=0, le=1_000_000, alias="perGiB")] = 0.0
    """Price of 1 GiB sent there and back, in the one currency that you use for all prices."""


def _repeated_group(spec: "PeerSpec") -> Misfit | None:
    repeated = first_repeated(spec.groups)
    if repeated is None:
        return None
    return Misfit(("groups", repeated), f'"{spec.groups[repeated]}" is listed twice')


class PeerSpec(Strict):
    """Which region the peer is, and how it is reached."""

    region: _FixedRegion
    """Name of the peer's region, as its gateway is told it. Cannot be changed."""
    groups: RegionNames = ()
    """Groups of regions that it belongs to: pools may say by them where requests may be served."""
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
    leave_above_wait: _LeaveAboveWait = "0s"
    """No request goes there that would wait less than this here."""
    round_trip: _RoundTrip = "100ms"
    """Round trip to the peer's gateway, assumed until it has been measured."""

    rules = (Rule("a group is listed twice", check=_repeated_group),)


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

    @classmethod
    def from_object(cls, obj: Mapping[str, Any]) -> Self:
        """Read an object that an API server gave; what this version does not know is left out.

        PeerError says, in one line, what cannot be carried out.
        """
        try:
            return cls.model_validate(obj, extra="ignore")
        except ValidationError as error:
            raise PeerError(first_problem(error, cls)) from error

    @property
    def key(self) -> str:
        """The peer's name: `namespace/name`, or `name` where it has none."""
        meta = self.metadata
        return meta.name if meta.namespace is None else f"{meta.namespace}/{meta.name}"

    def peer_settings(self) -> PeerSettings:
        """Translate for the routing core."""
        spec = self.spec
        return PeerSettings(
            region=spec.region,
            round_trip_seconds=parse_duration(spec.round_trip),
            groups=frozenset(spec.groups),
            price_per_gib=spec.price.per_gib,
            leave_above_seconds=parse_duration(spec.leave_above_wait),
        )
