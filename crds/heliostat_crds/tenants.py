"""The file of tenants: who may ask, with which keys, for how much, and where it may be served.

It holds secrets, so no message about it ever shows a key.
"""

import re
from functools import cached_property
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from heliostat_crds.fields import AT, Strict, first_repeated, misfit
from heliostat_crds.region_name import RegionName, RegionNames
from heliostat_crds.validation import field_path
from heliostat_crds.yaml_document import YamlError, read_yaml

MOST_TENANTS = 10_000
SHORTEST_KEY, LONGEST_KEY = 16, 512
"""Characters: shorter ones can be guessed."""
_WORDS = {
    "model_type": "expected a mapping",
    "tuple_type": "expected a list",
    "missing": "this field is required",
}
_VISIBLE = re.compile(r"[!-~]+")


class TenantsError(ValueError):
    """The file is no list of tenants."""


def _is_text(key: object) -> object:
    """Refuse what pydantic would refuse too, but would show."""
    if not isinstance(key, str):
        raise misfit("a key is text: put it in quotes")
    return key


def _is_list(keys: object) -> object:
    if not isinstance(keys, list | tuple):
        raise misfit("expected a list of keys")
    return keys


def _can_be_sent(key: SecretStr) -> SecretStr:
    text = key.get_secret_value()
    if not SHORTEST_KEY <= len(text) <= LONGEST_KEY or not _VISIBLE.fullmatch(text):
        raise misfit(
            f"a key is {SHORTEST_KEY} to {LONGEST_KEY} visible ASCII characters without spaces"
        )
    return key


ApiKey = Annotated[
    SecretStr, Field(strict=False), BeforeValidator(_is_text), AfterValidator(_can_be_sent)
]


class Tenant(Strict):
    """One tenant; without a limit it may ask for as much as there is."""

    name: RegionName
    """What it is called in metrics and logs; where tokens name tenants, what they say."""
    keys: Annotated[
        tuple[ApiKey, ...], Field(max_length=100, strict=False), BeforeValidator(_is_list)
    ] = ()
    """Its API keys, any of which is good: two of them while one replaces the other."""
    requests_per_minute: Annotated[float, Field(gt=0, le=10_000_000)] | None = None
    """How many requests may begin in a minute, evenly."""
    burst: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """How many of them may come at once."""
    inflight_limit: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """How many of its requests may be open at once, those that wait among them."""
    residency: RegionNames | None = None
    """Regions or groups where its requests may be served; unset: wherever the pool may."""


class Tenants(Strict):
    """All tenants."""

    tenants: Annotated[tuple[Tenant, ...], Field(max_length=MOST_TENANTS, strict=False)]

    @model_validator(mode="after")
    def _are_told_apart(self) -> Self:
        repeated = first_repeated([tenant.name for tenant in self.tenants])
        if repeated is not None:
            raise misfit("another tenant has this name", "tenants", repeated, "name")
        owners: dict[str, str] = {}
        for number, tenant in enumerate(self.tenants):
            for index, key in enumerate(tenant.keys):
                other = owners.setdefault(key.get_secret_value(), tenant.name)
                if other != tenant.name:
                    raise misfit(
                        f"tenant {other} has the same key", "tenants", number, "keys", index
                    )
        return self

    @cached_property
    def credentials(self) -> tuple[tuple[str, str], ...]:
        """Each key, and the tenant whose it is."""
        return tuple(
            (key, tenant.name)
            for tenant in self.tenants
            for key in sorted({it.get_secret_value() for it in tenant.keys})
        )


def parse_tenants(text: str) -> Tenants:
    """Read the file: YAML or JSON. Raise TenantsError, which never shows what a key is."""
    try:
        documents = read_yaml(text)
    except YamlError as error:
        raise TenantsError(f"line {error.line} is no YAML that can be used") from None
    if len(documents) > 1:
        raise TenantsError("it has more than one document")
    try:
        return Tenants.model_validate(documents[0].data if documents else None)
    except ValidationError as error:
        raise TenantsError(_problem(error)) from None


def _problem(error: ValidationError) -> str:
    """Tell the first problem by place and rule alone: what stands there may be a key."""
    details = error.errors(include_url=False, include_input=False)[0]
    at = (*details["loc"], *details.get("ctx", {}).get(AT, ()))
    if details["type"] == "extra_forbidden":
        return f"{field_path(at[:-1]) or 'the file'}: unknown field"
    return f"{field_path(at) or 'the file'}: {_WORDS.get(details['type'], details['msg'])}"
