"""What a pool has to do with other regions: whether requests leave, and where they may go."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from heliostat_crds.fields import VALIDATIONS, Strict, first_repeated
from heliostat_crds.region_name import RegionNames
from heliostat_crds.rules import Misfit, Rule
from heliostat_routing.settings import PoolSettings

_DEFAULTS = PoolSettings()
_LEAST_PRICE = 0.001
_Price = Annotated[
    float,
    Field(
        ge=_LEAST_PRICE,
        le=1_000_000,
        json_schema_extra={
            # The API server compares whole numbers with the integer part of `minimum`.
            VALIDATIONS: [
                {
                    "rule": f"self >= {_LEAST_PRICE}",
                    "message": f"is not allowed; expected number: {_LEAST_PRICE} or more",
                }
            ]
        },
    ),
]


class FederationMode(StrEnum):
    """Which way requests may go between this region and others."""

    FULL = "Full"
    SEND = "Send"
    SERVE = "Serve"
    NONE = "None"

    @property
    def sends(self) -> bool:
        """Whether requests may leave for other regions."""
        return self in (FederationMode.FULL, FederationMode.SEND)

    @property
    def serves(self) -> bool:
        """Whether requests of other regions are served."""
        return self in (FederationMode.FULL, FederationMode.SERVE)


def _repeated_place(federation: "Federation") -> Misfit | None:
    places = federation.residency or ()
    repeated = first_repeated(places)
    if repeated is None:
        return None
    return Misfit(("residency", repeated), f'"{places[repeated]}" is listed twice')


class Federation(Strict):
    """What the pool has to do with other regions."""

    mode: Annotated[FederationMode, Field(strict=False)] = FederationMode.FULL
    """`Send`: requests may leave for other regions, theirs are not served here. `Serve`: the other
    way round. `Full`: both. `None`: neither."""
    residency: Annotated[RegionNames, Field(min_length=1)] | None = None
    """Regions, or groups of regions, that requests may be served in; unset: anywhere."""
    engine_price_per_hour: _Price = _DEFAULTS.engine_price_per_hour
    """Price of one engine for an hour, in the currency of the peers' prices: how much waiting the
    price of sending a request away is worth."""

    rules = (Rule("a region or group is listed twice", check=_repeated_place),)
