"""The model that a pool serves: its names and its source."""

from typing import Annotated

from pydantic import Field

from heliostat_crds.fields import VALIDATIONS, Items, ModelName, Strict, Text, first_repeated
from heliostat_crds.rules import Misfit, Rule, unchanged

_FixedName = Annotated[
    ModelName,
    Field(
        json_schema_extra={
            "allowed": "1 to 256 printable ASCII characters, no spaces",
            VALIDATIONS: [
                unchanged(
                    "the model's name cannot be changed; create another pool for the other model"
                ).validation()
            ],
        }
    ),
]


def _repeated_alias(model: "Model") -> Misfit | None:
    if model.name in model.aliases:
        at = ("aliases", model.aliases.index(model.name))
        return Misfit(at, f'"{model.name}" is already the name in model.name')
    repeated = first_repeated(model.aliases)
    if repeated is None:
        return None
    return Misfit(
        ("aliases", repeated), f'"{model.aliases[repeated]}" is already the name in model.aliases'
    )


class Model(Strict):
    """The model that the pool serves."""

    name: _FixedName
    """The model's name as the engines know it; clients may ask for it. Cannot be changed."""
    uri: Text | None = None
    """Where the engines load the model from: a Hugging Face repository or a path in the
    container; if unset, `name`."""
    aliases: Annotated[
        Items[ModelName], Field(max_length=32, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = ()
    """Other names that clients may ask for; the engines are asked for `name`."""

    rules = (
        Rule(
            "an alias is already the name in model.name",
            cel="!has(self.aliases) || !(self.name in self.aliases)",
            message_cel="'\"' + self.name + '\" is already the name in model.name'",
            check=_repeated_alias,
        ),
    )

    @property
    def source(self) -> str:
        """Where the engines load the model from."""
        return self.uri or self.name
