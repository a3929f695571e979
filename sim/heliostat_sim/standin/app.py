"""The HTTP paths of one stand-in."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from http import HTTPStatus

import msgspec
from aiohttp import web
from xxhash import xxh32_hexdigest

from heliostat_sim.engine import Engine, EngineOverloadedError, EngineProfile
from heliostat_sim.standin.answers import StreamedAnswer, UsageWanted
from heliostat_sim.standin.authentication import require_api_key
from heliostat_sim.standin.bodies import json_answer, read_body, read_json
from heliostat_sim.standin.chunks import DONE, AnswerShape, Shape
from heliostat_sim.standin.conversations import MessagesBody, ResponsesBody
from heliostat_sim.standin.errors import ApiError, engine_dead
from heliostat_sim.standin.exposition import EngineExposition
from heliostat_sim.standin.faults import Fault, FaultKind
from heliostat_sim.standin.live_engine import LiveEngine
from heliostat_sim.standin.loop_lag import LoopLagProbe
from heliostat_sim.standin.messages_shape import MessagesShape
from heliostat_sim.standin.options import EngineOptions
from heliostat_sim.standin.other_apis import OtherApis
from heliostat_sim.standin.requests import (
    ChatBody,
    CompletionBody,
    GenerationBody,
    GenerationPlan,
    parse_body,
    plan_generation,
)
from heliostat_sim.standin.responses_shape import ResponsesShape
from heliostat_sim.standin.runner import Runner
from heliostat_sim.standin.served_models import LoadAdapterBody, ServedModels, UnloadAdapterBody
from heliostat_sim.standin.validation import JSON_TYPE

MAX_BODY_BYTES = 64 << 20
VERSION = "0.32.0"
"""The vLLM whose wire this is."""

_EVENT_STREAM = "text/event-stream; charset=utf-8"

_NAMED_ERRORS = "/v1/messages"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class StandIn:
    """vLLM's HTTP interface over one engine model."""

    def __init__(
        self,
        options: EngineOptions,
        lag: LoopLagProbe,
        on_fault: Callable[[Fault], Awaitable[None]],
    ) -> None:
        self.fault = Fault()
        self.is_shutting_down = False
        self._on_fault = on_fault
        self._limit_tokens = options.model_limit_tokens()
        self._models = ServedModels(
            (options.model, *options.aliases),
            options.model_root or options.model,
            self._limit_tokens,
            options.adapters,
            lora=options.max_loras is not None,
        )
        profile = options.engine_profile()
        self._block_tokens = profile.block_tokens
        self._exposition = EngineExposition(options.model, profile, lag, options.max_loras)
        self._fingerprint = _fingerprint(options.model, profile, self._limit_tokens)
        self._live = LiveEngine(Engine(profile), self._exposition)
        self._runner = Runner(self._live, self._exposition)
        others = OtherApis(self._runner, self._models, self._limit_tokens, self._block_tokens)
        keys = [require_api_key(options.api_key)] if options.api_key else []
        self.app = web.Application(
            client_max_size=MAX_BODY_BYTES, middlewares=[*keys, _error_bodies]
        )
        self.app.add_routes(
            [
                web.post("/v1/chat/completions", self._on_chat),
                web.post("/v1/completions", self._on_completion),
                web.post("/v1/messages", self._on_messages),
                web.post("/v1/responses", self._on_responses),
                *others.routes(),
                web.get("/v1/models", self._on_models),
                web.get("/health", self._on_health),
                web.get("/ping", self._on_health),
                web.post("/ping", self._on_health),
                web.get("/version", self._on_version),
                web.get("/metrics", self._on_metrics),
                web.post("/reset_prefix_cache", self._on_reset_prefix_cache),
                web.post("/standin/fault", self._on_set_fault),
            ]
        )
        if options.runtime_lora:
            self.app.router.add_post("/v1/load_lora_adapter", self._on_load_adapter)
            self.app.router.add_post("/v1/unload_lora_adapter", self._on_unload_adapter)
        self.app.on_cleanup.append(self._on_cleanup)

    @property
    def unfinished_requests(self) -> int:
        """How many requests the engine has not answered to the end."""
        return self._live.unfinished_requests

    async def _on_chat(self, request: web.Request) -> web.StreamResponse:
        def shape(name: str, model: str) -> Shape:
            return self._openai_shape(f"chatcmpl-{name}", model, chat=True)

        return await self._generate(request, ChatBody, shape)

    async def _on_completion(self, request: web.Request) -> web.StreamResponse:
        def shape(name: str, model: str) -> Shape:
            return self._openai_shape(f"cmpl-{name}", model, chat=False)

        return await self._generate(request, CompletionBody, shape)

    async def _on_messages(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(
            request, MessagesBody, lambda name, model: MessagesShape(f"chatcmpl-{name}", model)
        )

    async def _on_responses(self, request: web.Request) -> web.StreamResponse:
        return await self._generate(
            request,
            ResponsesBody,
            lambda name, model: ResponsesShape(name, int(time.time()), model),
        )

    def _openai_shape(self, answer_id: str, model: str, *, chat: bool) -> AnswerShape:
        return AnswerShape(answer_id, int(time.time()), model, chat, self._fingerprint)

    async def _generate(
        self,
        request: web.Request,
        body_type: type[GenerationBody],
        shape_of: Callable[[str, str], Shape],
    ) -> web.StreamResponse:
        data = await read_json(request)
        fault = self._strike()
        if (failure := await _fail(request, fault)) is not None:
            return failure
        if self.is_shutting_down:
            raise engine_dead()
        body = parse_body(data, body_type)
        plan = plan_generation(body, self._models, self._limit_tokens, self._block_tokens)
        name = request.headers.get("X-Request-Id") or uuid.uuid4().hex
        shape = shape_of(name, self._models.answer_name(plan.adapter))
        await self._runner.accept()
        if not body.stream:
            answer, event = await self._runner.run(plan)
            return web.Response(body=answer.body(shape, event), content_type=JSON_TYPE)
        cut = fault is FaultKind.CUT_STREAM
        return await self._answer_stream(request, plan, shape, usage=body.usage_wanted(), cut=cut)

    async def _answer_stream(
        self,
        request: web.Request,
        plan: GenerationPlan,
        shape: Shape,
        *,
        usage: UsageWanted,
        cut: bool,
    ) -> web.StreamResponse:
        response = await _open_stream(request)
        answer = StreamedAnswer(plan.blocks, shape, _transport(request), usage=usage, cut=cut)
        try:
            request_id = self._live.start(plan, answer)
        except EngineOverloadedError:
            await response.write(self._runner.overloaded().event + DONE)
            return response
        if acceptance := shape.acceptance():
            await response.write(acceptance)
        try:
            await answer.finished
        finally:
            self._live.abort(request_id)
        await response.write_eof()
        return response

    async def _on_models(self, request: web.Request) -> web.Response:
        return json_answer({"object": "list", "data": self._models.cards()})

    async def _on_load_adapter(self, request: web.Request) -> web.Response:
        return web.Response(text=self._models.load(await read_body(request, LoadAdapterBody)))

    async def _on_unload_adapter(self, request: web.Request) -> web.Response:
        return web.Response(text=self._models.unload(await read_body(request, UnloadAdapterBody)))

    async def _on_health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _on_version(self, request: web.Request) -> web.Response:
        return json_answer({"version": VERSION})

    async def _on_metrics(self, request: web.Request) -> web.Response:
        page = self._live.render_metrics().encode()
        return web.Response(
            body=page, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def _on_reset_prefix_cache(self, request: web.Request) -> web.Response:
        self._live.reset_prefix_cache()
        return web.Response()

    async def _on_set_fault(self, request: web.Request) -> web.Response:
        await self._on_fault(parse_body(await request.read(), Fault))
        return web.Response()

    async def _on_cleanup(self, app: web.Application) -> None:
        self._live.close()

    def _strike(self) -> FaultKind:
        """Return what goes wrong with this request."""
        fault = self.fault
        if fault.requests is not None:
            left = fault.requests - 1
            self.fault = msgspec.structs.replace(fault, requests=left) if left > 0 else Fault()
        return fault.kind


async def _fail(request: web.Request, kind: FaultKind) -> web.StreamResponse | None:
    """Answer wrongly or not at all; None if the fault is none or strikes later."""
    match kind:
        case FaultKind.REFUSE | FaultKind.RESET_BEFORE_HEADERS:
            _transport(request).abort()
            return web.Response()
        case FaultKind.ERROR_500:
            raise ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, "EngineCore encountered an issue.")
        case FaultKind.STALL:
            await asyncio.Event().wait()
        case FaultKind.EMPTY_STREAM:
            return await _open_stream(request)
    return None


async def _open_stream(request: web.Request) -> web.StreamResponse:
    """Send the headers of a stream at once, before there is any token."""
    response = web.StreamResponse(headers={"Content-Type": _EVENT_STREAM})
    response.enable_chunked_encoding()
    await response.prepare(request)
    return response


def _fingerprint(model: str, profile: EngineProfile, limit_tokens: int) -> str:
    """Return vLLM's version and eight hexadecimal digits that follow from the configuration."""
    digest = xxh32_hexdigest(repr((model, profile, limit_tokens)).encode())
    return f"vllm-{VERSION}-{digest}"


def _transport(request: web.Request) -> asyncio.WriteTransport:
    if request.transport is None:
        raise ConnectionResetError("the client has gone")
    return request.transport


@web.middleware
async def _error_bodies(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give every error vLLM's body; a path or method that there is not has one of its own."""
    try:
        return await handler(request)
    except ApiError as error:
        body = error.named_body if request.path.startswith(_NAMED_ERRORS) else error.body
        return web.Response(status=error.status, body=body, content_type=JSON_TYPE)
    except web.HTTPException as error:
        body = msgspec.json.encode({"detail": HTTPStatus(error.status).phrase})
        allowed = {"Allow": allow} if (allow := error.headers.get("Allow")) else None
        return web.Response(status=error.status, body=body, content_type=JSON_TYPE, headers=allowed)
