"""Which pool serves a name."""

from typing import Any

import pytest

from heliostat_crds.inference_pool import InferencePool
from heliostat_extproc.discovery.catalog import Catalog, CatalogError, Resolution, ServedModel


def pool(name: str, model: str, aliases: list[str] | None = None, **spec: Any) -> InferencePool:
    return InferencePool.model_validate(
        {
            "apiVersion": "heliostat.dev/v1alpha1",
            "kind": "InferencePool",
            "metadata": {"name": name},
            "spec": {"model": {"name": model, "aliases": aliases or []}, **spec},
        }
    )


CHAT = pool("chat", "llama", ["gpt-4"], engine={"adapters": [{"name": "sql"}]})
CODE = pool("code", "coder")


def test_names_lead_to_pool_model_and_adapter() -> None:
    """A model's name, its aliases and its adapters are found; other names are nobody's."""
    catalog = Catalog.of([CHAT, CODE])
    assert catalog.resolve("llama") == Resolution("chat", "llama")
    assert catalog.resolve("gpt-4") == Resolution("chat", "llama")
    assert catalog.resolve("sql") == Resolution("chat", "llama", "sql")
    assert catalog.resolve("coder") == Resolution("code", "coder")
    assert catalog.resolve("chat") is None


def test_the_engine_is_asked_for_the_name_it_knows() -> None:
    """An alias becomes the model's name, an adapter stays its own."""
    catalog = Catalog.of([CHAT])
    served = {name: catalog.names[name].served_name for name in catalog.names}
    assert served == {"llama": "llama", "gpt-4": "llama", "sql": "sql"}


def test_every_name_is_listed_once_in_the_order_of_the_pools() -> None:
    """The list of models tells what each name is and which model an adapter belongs to."""
    assert Catalog.of([CODE, CHAT]).models() == (
        ServedModel("coder", "coder", None, "code"),
        ServedModel("llama", "llama", None, "chat"),
        ServedModel("gpt-4", "llama", None, "chat"),
        ServedModel("sql", "sql", "llama", "chat"),
    )


@pytest.mark.parametrize(
    ("later", "says"),
    [
        (pool("chat", "other"), 'there already is a pool "chat"'),
        (pool("b", "gpt-4"), 'model "gpt-4" is already served by pool "chat"'),
        (pool("b", "x", ["sql"]), 'model "sql" is already served by pool "chat"'),
        (
            pool("b", "x", engine={"adapters": [{"name": "llama"}]}),
            'model "llama" is already served by pool "chat"',
        ),
    ],
)
def test_a_name_has_one_pool(later: InferencePool, says: str) -> None:
    """A pool that claims what an earlier one has is an error that names both."""
    with pytest.raises(CatalogError, match=says):
        Catalog.of([CHAT, later])
