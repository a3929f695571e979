"""The address of a fixed endpoint, checked alike by the API server and by our own reading."""

from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema

from heliostat_crds.address import parse_address
from heliostat_crds.fields import VALIDATIONS

_MESSAGE = (
    'not an address; write "10.0.0.7:8000" or "[fd00::7]:8000"'
    " (IP addresses only, host names are not resolved)"
)
_IP_CEL = (
    "self.startsWith('[')"
    " ? isIP(self.substring(1, self.indexOf(']'))) && ip(self.substring(1, self.indexOf(']')))"
    ".family() == 6"
    " : isIP(self.split(':')[0]) && ip(self.split(':')[0]).family() == 4"
)
_PATTERN = r"^(\[[0-9A-Fa-f:.]{2,45}\]|[0-9.]{7,15})(:[0-9]{1,5})?$"
_SCHEMA: dict[str, Any] = {
    "type": "string",
    "maxLength": 53,
    "allowed": "`10.0.0.7:8000`, `[fd00::7]:8000`; port optional",
    VALIDATIONS: [
        {
            "rule": f"self.matches('{_PATTERN.replace(chr(92), chr(92) * 2)}') && ({_IP_CEL})",
            "message": _MESSAGE,
            "messageExpression": f"'\"' + self + '\" is {_MESSAGE}'",
        }
    ],
}


def _check(text: str) -> str:
    parse_address(text, default_port=1)
    return text


EndpointAddress = Annotated[str, AfterValidator(_check), WithJsonSchema(_SCHEMA)]
"""`ip` or `ip:port`, IPv6 in brackets."""
