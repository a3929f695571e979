"""The paths that generate no text for a conversation: tokens, embeddings and scores, audio."""

import time
import uuid

from aiohttp import web

from heliostat_sim.engine import FinishReason
from heliostat_sim.standin.bodies import json_answer, read_body
from heliostat_sim.standin.conversations import CountTokensBody
from heliostat_sim.standin.pooling import (
    Answer,
    PoolingBody,
    classes,
    embedding,
    plan_pooling,
    pooled,
    ranks,
    scores,
)
from heliostat_sim.standin.requests import DetokenizeBody, GenerationPlan, TokenizeBody
from heliostat_sim.standin.runner import Runner
from heliostat_sim.standin.served_models import ServedModels
from heliostat_sim.standin.tokens import TokenBlocks, ids_of_tokens, media_tokens, text_of_ids
from heliostat_sim.standin.validation import missing, refusal_of

_TRANSCRIPT_TOKENS = 16
_BYTES_PER_SECOND_OF_SOUND = 32_000
_POOLING: dict[str, Answer] = {
    "/v1/embeddings": embedding,
    "/pooling": pooled,
    "/classify": classes,
    **dict.fromkeys(("/score", "/v1/score"), scores),
    **dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank"), ranks),
}


class OtherApis:
    """These paths of one stand-in."""

    def __init__(
        self, runner: Runner, models: ServedModels, limit_tokens: int, block_tokens: int
    ) -> None:
        self._runner = runner
        self._models = models
        self._limit_tokens = limit_tokens
        self._block_tokens = block_tokens

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        return [
            web.post("/tokenize", self._on_tokenize),
            web.post("/detokenize", self._on_detokenize),
            web.post("/v1/messages/count_tokens", self._on_count_tokens),
            web.post("/v1/audio/transcriptions", self._on_audio),
            web.post("/v1/audio/translations", self._on_audio),
            *(web.post(path, self._on_pooling) for path in _POOLING),
        ]

    async def _on_tokenize(self, request: web.Request) -> web.Response:
        body = await read_body(request, TokenizeBody)
        self._models.find(body.model)
        ids = ids_of_tokens(body.tokens())
        limit = self._limit_tokens
        return json_answer(
            {"count": len(ids), "max_model_len": limit, "tokens": ids, "token_strs": None}
        )

    async def _on_detokenize(self, request: web.Request) -> web.Response:
        body = await read_body(request, DetokenizeBody)
        self._models.find(body.model)
        return json_answer({"prompt": text_of_ids(body.tokens)})

    async def _on_count_tokens(self, request: web.Request) -> web.Response:
        body = await read_body(request, CountTokensBody)
        self._models.find(body.model)
        return json_answer({"input_tokens": len(ids_of_tokens(body.tokens()))})

    async def _on_pooling(self, request: web.Request) -> web.Response:
        body = await read_body(request, PoolingBody)
        plan = plan_pooling(body, self._models, self._block_tokens)
        await self._runner.accept()
        _, event = await self._runner.run(plan)
        usage = {"prompt_tokens": event.prompt_tokens, "total_tokens": event.prompt_tokens}
        members = _POOLING[request.path](body, plan.blocks.seed)
        head = {"id": f"pool-{uuid.uuid4().hex}", "created": int(time.time())}
        model = self._models.answer_name(plan.adapter)
        return json_answer(head | {"model": model} | members | {"usage": usage})

    async def _on_audio(self, request: web.Request) -> web.Response:
        form = await request.post()
        model, file = form.get("model"), form.get("file")
        if not isinstance(file, web.FileField):
            raise refusal_of([missing("body.file", {})])
        adapter = self._models.find(model if isinstance(model, str) else None)
        content = file.file.read()
        blocks = TokenBlocks(media_tokens(content), self._block_tokens, adapter)
        plan = GenerationPlan(blocks, _TRANSCRIPT_TOKENS, FinishReason.LENGTH, adapter)
        await self._runner.accept()
        _, event = await self._runner.run(plan)
        text = blocks.output(0, event.output_tokens).decode("ascii")
        seconds = len(content) // _BYTES_PER_SECOND_OF_SOUND
        return json_answer({"text": text, "usage": {"type": "duration", "seconds": seconds}})
