"""The ExternalProcessor service: moves bytes between Envoy, the exchange and the core.

Messages stay bytes up to the exchange. A stream lasts as long as its HTTP exchange; however it
ends, the core hears of it exactly once.
"""

import asyncio
from typing import Any, Protocol, TypeAlias

import grpc
import structlog

from heliostat_extproc.discovery.catalog import NotSyncedError
from heliostat_extproc.driver import RouterDriver, Verdict
from heliostat_extproc.engine_key import EngineKey
from heliostat_extproc.errors import Reason
from heliostat_extproc.exchange import Directory, Exchange, Outcome, Phase, ProtocolError, Question
from heliostat_extproc.ext_proc_wire import PROCESSOR_SERVICE
from heliostat_routing.commands import Enqueue

DEFAULT_BODY_LIMIT_BYTES = 32 * 1024 * 1024
"""The largest request body; the same as Envoy's own limit."""

_log = structlog.get_logger(__name__)

_Context: TypeAlias = grpc.aio.ServicerContext[bytes, bytes]


class RequestObserver(Protocol):
    """Watches requests, for metrics."""

    def on_finished(self, pool: str, outcome: Outcome | Reason) -> None:
        """Count a request; `pool` is empty where it named no model that exists."""
        ...

    def on_held(self, pool: str, seconds: float) -> None:
        """Note how long a request was held."""
        ...

    def on_protocol_error(self) -> None:
        """Count a message from Envoy that made no sense."""
        ...


class ExtProcServicer:
    """Answers each request of Envoy with the core's word."""

    def __init__(
        self,
        driver: RouterDriver,
        directory: Directory,
        observer: RequestObserver,
        *,
        body_limit_bytes: int = DEFAULT_BODY_LIMIT_BYTES,
    ) -> None:
        self._driver = driver
        self._directory = directory
        self._observer = observer
        self._body_limit_bytes = body_limit_bytes
        self._idle: set[asyncio.Task[None]] = set()
        self._closing = False

    def handler(self, engine_key: EngineKey | None = None) -> "grpc.GenericRpcHandler[Any, Any]":
        """Register the service without (de)serialisers: the exchange works on bytes.

        Whoever asks is told the engines' key, if one is given here.
        """

        async def process(_messages: object, context: _Context) -> None:
            await self._serve(context, engine_key)

        method = grpc.stream_stream_rpc_method_handler(process)
        return grpc.method_handlers_generic_handler(PROCESSOR_SERVICE, {"Process": method})

    def close(self) -> None:
        """End the streams of requests that have been dispatched: they go on without a router."""
        self._closing = True
        for task in self._idle:
            task.cancel()

    async def _serve(self, context: _Context, engine_key: EngineKey | None) -> None:
        """Serve one stream: one request."""
        ticket = self._driver.next_ticket()
        exchange = Exchange(ticket, self._directory, self._body_limit_bytes, engine_key)
        inbox = _Inbox(context)
        try:
            await self._converse(exchange, inbox, context)
        except NotSyncedError:
            exchange.outcome = Outcome.FELL_OPEN
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the pools are not known yet")
        except ProtocolError as error:
            self._observer.on_protocol_error()
            _log.warning("ext_proc protocol error", problem=str(error))
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            inbox.close()
            self._driver.finish(ticket)
            self._observer.on_finished(exchange.pool, exchange.outcome)

    async def _converse(self, exchange: Exchange, inbox: "_Inbox", context: _Context) -> None:
        while not exchange.finished:
            if exchange.phase is Phase.ANSWERED:
                message = await self._idle_read(inbox)
            else:
                message = await inbox.read()
            if message is None:
                return
            answer = exchange.receive(message)
            if isinstance(answer, Question):
                word = await self._ask(exchange, answer, inbox, context)
                if word is None:
                    return
                answer = exchange.answer(word, asyncio.get_running_loop().time())
            await context.write(answer)

    async def _ask(
        self, exchange: Exchange, question: Question, inbox: "_Inbox", context: _Context
    ) -> Verdict | None:
        """Get the core's last word, held or not; None if the client leaves before it comes."""
        now = asyncio.get_running_loop().time
        arrived_at = now()
        word = self._driver.arrive(question.arrival)
        if not isinstance(word, Enqueue):
            return word
        await context.write(exchange.answer(word, arrived_at))
        verdict = asyncio.ensure_future(self._driver.verdict(word))
        try:
            await asyncio.wait((verdict, inbox.peek()), return_when=asyncio.FIRST_COMPLETED)
            if verdict.done():
                return verdict.result()
            message = await inbox.read()
            if message is not None:
                exchange.receive(message)
            return None
        finally:
            verdict.cancel()
            self._observer.on_held(exchange.pool, now() - arrived_at)

    async def _idle_read(self, inbox: "_Inbox") -> bytes | None:
        """Wait for the end of the HTTP exchange; None where we end the stream ourselves."""
        task = asyncio.current_task()
        if self._closing or task is None:
            return None
        self._idle.add(task)
        try:
            return await inbox.read()
        except asyncio.CancelledError:
            if self._closing:
                return None
            raise
        finally:
            self._idle.discard(task)


class _Inbox:
    """Envoy's messages, one of which can be awaited beside something else without losing it."""

    def __init__(self, context: _Context) -> None:
        self._context = context
        self._ahead: asyncio.Task[bytes | None] | None = None

    async def read(self) -> bytes | None:
        """Take the next message; None at the end."""
        task, self._ahead = self._ahead, None
        return await (self._read() if task is None else task)

    def peek(self) -> "asyncio.Task[bytes | None]":
        """Start to wait for the next message, which `read` will take."""
        if self._ahead is None:
            self._ahead = asyncio.create_task(self._read())
        return self._ahead

    def close(self) -> None:
        """Stop waiting."""
        if self._ahead is not None:
            self._ahead.cancel()

    async def _read(self) -> bytes | None:
        message = await self._context.read()
        return message if isinstance(message, bytes) else None
