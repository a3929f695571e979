"""What a pool of a folder may claim beside the others."""

from typing import Any

import pytest

from heliostat_crds.inference_pool import InferencePool
from heliostat_extproc.discovery.folder_claims import ClaimError, FolderClaims


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


@pytest.mark.parametrize(
    ("later", "says"),
    [
        (pool("chat", "other"), 'there already is a pool "chat"'),
        (pool("b", "gpt-4"), 'name "gpt-4" is already served by pool "chat"'),
        (pool("b", "x", ["sql"]), 'name "sql" is already served by pool "chat"'),
        (pool("b", "llama", ["sql"]), 'name "sql" is already served by pool "chat"'),
        (
            pool("b", "x", engine={"adapters": [{"name": "llama"}]}),
            'name "llama" is already served by pool "chat"',
        ),
    ],
)
def test_a_name_means_one_thing(later: InferencePool, says: str) -> None:
    """A pool that means something else by an earlier one's name is an error that names both."""
    claims = FolderClaims()
    claims.add(CHAT)
    with pytest.raises(ClaimError, match=says):
        claims.add(later)


def test_pools_of_one_model_share_its_names() -> None:
    """The same model, alias and adapter may be named by several pools."""
    claims = FolderClaims()
    claims.add(CHAT)
    claims.add(pool("b", "llama", ["gpt-4"], engine={"adapters": [{"name": "sql"}]}))
