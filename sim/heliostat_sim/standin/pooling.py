"""Embeddings, scores and classes: computed like a prompt's prefill, and made up of its hash."""

from collections.abc import Callable

import msgspec

from heliostat_sim.engine import FinishReason
from heliostat_sim.standin.requests import GenerationPlan, Message, prompt_tokens, render
from heliostat_sim.standin.served_models import ServedModels
from heliostat_sim.standin.tokens import TokenBlocks, text_tokens

DIMENSIONS = 8

Text = str | list[str]


class PoolingBody(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What any of these paths may be asked; absent names are None."""

    model: str | None = None
    input: str | list[str | int] | None = None
    messages: list[Message] | None = None
    query: Text | None = None
    queries: Text | None = None
    text_1: Text | None = None
    documents: Text | None = None
    items: Text | None = None
    text_2: Text | None = None

    def tokens(self) -> bytes:
        """Return the tokens of all texts. Raises ApiError for bad ids."""
        if self.messages is not None:
            return render(self.messages, msgspec.Raw(), generate=False)
        if isinstance(self.input, list) and self.input and isinstance(self.input[0], int):
            return prompt_tokens([one for one in self.input if isinstance(one, int)])
        asked = (self.input, self.query, self.queries, self.text_1)
        against = (self.documents, self.items, self.text_2)
        return text_tokens(msgspec.json.encode([one for one in (*asked, *against) if one]))

    def compared(self) -> list[str]:
        """Return what is scored, one text each."""
        given = self.documents or self.items or self.text_2 or ""
        return [given] if isinstance(given, str) else given


def plan_pooling(body: PoolingBody, models: ServedModels, block_tokens: int) -> GenerationPlan:
    """Plan the prefill; the one token that follows stands for the pooling. Raises ApiError."""
    adapter = models.find(body.model)
    blocks = TokenBlocks(body.tokens(), block_tokens, adapter)
    return GenerationPlan(blocks, 1, FinishReason.LENGTH, adapter)


Answer = Callable[[PoolingBody, int], dict[str, object]]
"""Returns the members that an API's answer has, from the request and the prompt's hash."""


def embedding(body: PoolingBody, seed: int) -> dict[str, object]:
    """Answer /v1/embeddings."""
    vector = [(seed >> (8 * at) & 0xFF) / 255 for at in range(DIMENSIONS)]
    return _list({"index": 0, "object": "embedding", "embedding": vector})


def pooled(body: PoolingBody, seed: int) -> dict[str, object]:
    """Answer /pooling."""
    return _list({"index": 0, "object": "pooling", "data": [_ratio(seed)]})


def classes(body: PoolingBody, seed: int) -> dict[str, object]:
    """Answer /classify."""
    probs = [_ratio(seed), 1 - _ratio(seed)]
    return _list({"index": 0, "label": "LABEL_0", "probs": probs, "num_classes": 2})


def scores(body: PoolingBody, seed: int) -> dict[str, object]:
    """Answer /score."""
    return _list(
        *(
            {"index": index, "object": "score", "score": _ratio(seed)}
            for index, _ in enumerate(body.compared())
        )
    )


def ranks(body: PoolingBody, seed: int) -> dict[str, object]:
    """Answer /rerank."""
    results = [
        {"index": index, "document": {"text": text}, "relevance_score": _ratio(seed)}
        for index, text in enumerate(body.compared())
    ]
    return {"results": results}


def _list(*data: dict[str, object]) -> dict[str, object]:
    return {"object": "list", "data": list(data)}


def _ratio(seed: int) -> float:
    return (seed & 0xFFFF) / 0xFFFF
