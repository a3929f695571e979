"""Which pool serves a name."""

from typing import Any

from heliostat_crds.claims import claimant_of, settle
from heliostat_crds.inference_pool import InferencePool
from heliostat_extproc.discovery.catalog import Catalog, Resolution, ServedModel


def pool(name: str, model: str, aliases: list[str] | None = None, **spec: Any) -> InferencePool:
    return InferencePool.model_validate(
        {
            "apiVersion": "heliostat.dev/v1alpha1",
            "kind": "InferencePool",
            "metadata": {"name": name},
            "spec": {"model": {"name": model, "aliases": aliases or []}, **spec},
        }
    )


def catalog_of(*pools: InferencePool) -> Catalog:
    return Catalog.of(settle(claimant_of(it, place) for place, it in enumerate(pools)))


CHAT = pool("chat", "llama", ["gpt-4"], engine={"adapters": [{"name": "sql"}]})
CODE = pool("code", "coder")


def test_names_lead_to_pool_model_and_adapter() -> None:
    """A model's name, its aliases and its adapters are found; other names are nobody's."""
    catalog = catalog_of(CHAT, CODE)
    assert catalog.resolve("llama") == Resolution("chat", "llama")
    assert catalog.resolve("gpt-4") == Resolution("chat", "llama")
    assert catalog.resolve("sql") == Resolution("chat", "llama", "sql")
    assert catalog.resolve("coder") == Resolution("code", "coder")
    assert catalog.resolve("chat") is None


def test_the_engine_is_asked_for_the_name_it_knows() -> None:
    """An alias becomes the model's name, an adapter stays its own."""
    catalog = catalog_of(CHAT)
    served = {name: catalog.names[name].served_name for name in catalog.names}
    assert served == {"llama": "llama", "gpt-4": "llama", "sql": "sql"}


def test_every_name_is_listed_once_in_the_order_of_the_pools() -> None:
    """The list of models tells what each name is and which model an adapter belongs to."""
    assert catalog_of(CODE, CHAT).models() == (
        ServedModel("coder", "coder", None, "code"),
        ServedModel("llama", "llama", None, "chat"),
        ServedModel("gpt-4", "llama", None, "chat"),
        ServedModel("sql", "sql", "llama", "chat"),
    )


def test_pools_of_one_model_are_reached_through_the_oldest() -> None:
    """A second pool of a model adds its names; all of them lead to the first pool's key."""
    more = pool("more", "llama", ["llama-3"], engine={"adapters": [{"name": "chat-lora"}]})
    catalog = catalog_of(CHAT, more)
    assert {it.pool for it in catalog.names.values()} == {"chat"}
    assert set(catalog.names) == {"llama", "gpt-4", "llama-3", "sql", "chat-lora"}
