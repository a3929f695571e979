"""The address of a fixed endpoint, checked alike by the API server and by our own reading."""

from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema

from heliostat_crds import cel
from heliostat_crds.address import MAX_PORT, NOT_AN_ADDRESS, parse_address
from heliostat_crds.fields import VALIDATIONS

_IP = "(self.startsWith('[') ? self.substring(1, self.indexOf(']')) : self.split(':')[0])"
_FAMILY = "(self.startsWith('[') ? 6 : 4)"
_PATTERN = r"^(\[[0-9A-Fa-f:.]{2,45}\]|[0-9.]{7,15})(:[0-9]{1,5})?$"
_MULTICAST = r"^(\[[Ff][Ff][0-9A-Fa-f]{2}:|22[4-9]\.|23[0-9]\.)"
_PORT_CEL = "int(self.substring(self.lastIndexOf(':') + 1))"
_MATCHES = f"self.matches({cel.text(_PATTERN)})"
_SCHEMA: dict[str, Any] = {
    "type": "string",
    "maxLength": 53,
    "allowed": "`10.0.0.7:8000`, `[fd00::7]:8000`; port optional",
    VALIDATIONS: [
        cel.told_rule(_MATCHES, NOT_AN_ADDRESS),
        cel.told_rule(
            f"!{_MATCHES} || (isIP({_IP}) && ip({_IP}).family() == {_FAMILY})",
            "holds no valid IP address",
        ),
        cel.told_rule(
            f"!{_MATCHES} || !isIP({_IP})"
            f" || !(ip({_IP}).isUnspecified() || self.matches({cel.text(_MULTICAST)}))",
            "is not the address of one server",
        ),
        cel.told_rule(
            f"!{_MATCHES} || !self.matches(':[0-9]+$')"
            f" || ({_PORT_CEL} >= 1 && {_PORT_CEL} <= {MAX_PORT})",
            f"has a port out of range; allowed: 1 to {MAX_PORT}",
        ),
    ],
}


def _check(text: str) -> str:
    parse_address(text, default_port=1)
    return text


EndpointAddress = Annotated[str, AfterValidator(_check), WithJsonSchema(_SCHEMA)]
"""`ip` or `ip:port`, IPv6 in brackets."""
