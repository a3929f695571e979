"""Names of regions and of groups of regions: one form, as residency rules may name either."""

from typing import Annotated, TypeAlias

from pydantic import Field

from heliostat_crds.fields import Items

RegionName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=63,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        json_schema_extra={
            "allowed": "1 to 63 lower-case letters, digits and `-`, a letter or digit at both ends"
        },
    ),
]
"""The name of a region, or of a group of regions."""

MAX_REGION_NAMES = 64
RegionNames: TypeAlias = Annotated[
    Items[RegionName],
    Field(max_length=MAX_REGION_NAMES, json_schema_extra={"x-kubernetes-list-type": "set"}),
]
"""Names of regions or groups, none twice."""
