"""The address of another region's gateway, checked alike by the API server and by our reading."""

from typing import Annotated

from pydantic import AfterValidator, Field

from heliostat_crds import cel
from heliostat_crds.address import MAX_PORT
from heliostat_crds.fields import VALIDATIONS, misfit

_PATTERN = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?|\[[0-9a-f:.]+\]):[0-9]{1,5}$"
_OUT_OF_RANGE = f"has a port out of range; allowed: 1 to {MAX_PORT}"
_PORT_CEL = "int(self.substring(self.lastIndexOf(':') + 1))"


def _check(text: str) -> str:
    if not 1 <= int(text.rpartition(":")[2]) <= MAX_PORT:
        raise misfit(f'"{text}" {_OUT_OF_RANGE}')
    return text


GatewayAddress = Annotated[
    str,
    Field(
        min_length=3,
        max_length=262,
        pattern=_PATTERN,
        json_schema_extra={
            "allowed": "HOST:PORT, such as `gateway.eu-west.example.com:443`",
            VALIDATIONS: [
                cel.told_rule(
                    f"!self.matches({cel.text(_PATTERN)})"
                    f" || ({_PORT_CEL} >= 1 && {_PORT_CEL} <= {MAX_PORT})",
                    _OUT_OF_RANGE,
                )
            ],
        },
    ),
    AfterValidator(_check),
]
"""`host:port`; the host is a name, or an IP address, in brackets where it is IPv6."""
