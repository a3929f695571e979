"""The ExternalProcessor service: moves bytes between Envoy, the exchange and the core.

Messages stay bytes up to the exchange. A stream lasts as long as its HTTP exchange; however it
ends, the core hears of it exactly once.
"""

import asyncio
from typing import Protocol

import structlog
from grpc import StatusCode

from heliostat_extproc.conversation import (
    Answer,
    Conversation,
    Outcome,
    Phase,
    ProtocolError,
    Sender,
)
from heliostat_extproc.discovery.catalog import NotSyncedError
from heliostat_extproc.driver import FallOpen, RouterDriver, Verdict
from heliostat_extproc.endpoint_picker.exchange import PickerExchange
from heliostat_extproc.endpoint_picker.held_bodies import HeldBodies
from heliostat_extproc.envoy import wire
from heliostat_extproc.exchange import Directory, Exchange, ExchangeSettings, Question
from heliostat_extproc.given_back import GivenBack, ReturnExchange
from heliostat_extproc.grpc_streams.message_stream import Handler, MessageStream
from heliostat_extproc.observing.trace_context import TRACEPARENT
from heliostat_extproc.tenancy.admission import Admission
from heliostat_routing.commands import Enqueue, Reject, RejectReason
from heliostat_routing.events import ForwardTurnedAway, RequestArrived

DEFAULT_BODY_LIMIT_BYTES = 32 * 1024 * 1024
"""The largest request body; the same as Envoy's own limit."""
_HELD_BODY_BYTES = 512 * 1024 * 1024
"""What the bodies of streaming gateways may take at once."""

_ENTRANCES: dict[str, wire.Entrance] = {entrance.value: entrance for entrance in wire.Entrance}
_log = structlog.get_logger(__name__)


class RequestObserver(Protocol):
    """Watches requests, for metrics, logs and traces."""

    @property
    def follows_traces(self) -> bool:
        """Whether the trace context of requests matters."""
        ...

    def on_asked(
        self, arrival: RequestArrived, conversation: Conversation, traceparent: str
    ) -> None:
        """Note a request, just before the core is asked about it."""
        ...

    def on_held(self, conversation: Conversation, seconds: float) -> None:
        """Note how long a request was held."""
        ...

    def on_returned(self, conversation: Conversation) -> None:
        """Note what has come of a request that had come back."""
        ...

    def on_finished(self, conversation: Conversation, *, own_envoy: bool) -> None:
        """Note the end of a request's stream; the log of our own Envoy tells more."""
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
        settings: ExchangeSettings,
        admission: Admission | None = None,
    ) -> None:
        self._admission = admission
        self._driver = driver
        self._directory = directory
        self._observer = observer
        self._settings = settings
        self._held_bodies = HeldBodies(_HELD_BODY_BYTES)
        self._idle: set[asyncio.Task[None]] = set()
        self._closing = False

    def handler(self, sender: Sender, *, own_envoy: bool) -> Handler:
        """Give what serves one stream.

        Only our own Envoy is believed about the entrance by which a request has come; what any
        other asks is a client's.
        """

        async def process(stream: MessageStream) -> None:
            entrance = _entrance(stream) if own_envoy else wire.Entrance.CLIENTS
            await self._serve(stream, sender, entrance, own_envoy=own_envoy)

        return process

    def close(self) -> None:
        """End the streams of requests that have been dispatched: they go on without a router."""
        self._closing = True
        for task in self._idle:
            task.cancel()

    async def _serve(
        self, stream: MessageStream, sender: Sender, entrance: wire.Entrance, *, own_envoy: bool
    ) -> None:
        """Serve one stream: a request, or its return from a peer."""
        if entrance is wire.Entrance.RETURN:
            returned = ReturnExchange(sender)
            try:
                await self._converse(returned, stream)
            finally:
                self._observer.on_returned(returned)
            return
        exchange = self._open(sender, entrance, own_envoy=own_envoy)
        try:
            await self._converse(exchange, stream)
        finally:
            exchange.close()
            self._tell_end(exchange)
            self._driver.finish(exchange.ticket)
            if exchange.turned_away is not None:
                self._driver.submit(ForwardTurnedAway(exchange.turned_away))
            self._observer.on_finished(exchange, own_envoy=own_envoy)

    def _open(self, sender: Sender, entrance: wire.Entrance, *, own_envoy: bool) -> Exchange:
        ticket, now = self._driver.next_ticket(), asyncio.get_running_loop().time
        if not own_envoy:
            return PickerExchange(
                ticket, self._directory, self._settings, sender, now, self._held_bodies
            )
        from_peer = entrance is wire.Entrance.FEDERATION
        return Exchange(
            ticket,
            self._directory,
            self._settings,
            sender,
            from_peer=from_peer,
            admission=None if from_peer else self._admission,
        )

    def _tell_end(self, exchange: Exchange) -> None:
        if isinstance(exchange, PickerExchange):
            exchange.end()
            self._tell(exchange)

    def _tell(self, exchange: PickerExchange) -> None:
        """Tell the core what a gateway of others has said of an answer."""
        for event in exchange.take_told():
            self._driver.submit(event)

    async def _converse(self, exchange: Exchange | ReturnExchange, stream: MessageStream) -> None:
        """Answer until the HTTP exchange ends, or cannot be gone on with."""
        inbox = _Inbox(stream)
        try:
            await self._answer_all(exchange, inbox, stream)
        except NotSyncedError:
            exchange.outcome = Outcome.FELL_OPEN
            await stream.abort(StatusCode.UNAVAILABLE, "the pools are not known yet")
        except ProtocolError as error:
            self._observer.on_protocol_error()
            _log.warning("ext_proc protocol error", problem=str(error))
            await stream.abort(StatusCode.INVALID_ARGUMENT, str(error))
        finally:
            inbox.close()

    async def _answer_all(
        self, exchange: Exchange | ReturnExchange, inbox: "_Inbox", stream: MessageStream
    ) -> None:
        while not exchange.finished:
            if exchange.phase is Phase.ANSWERED:
                message = await self._idle_read(inbox)
            else:
                message = await inbox.read()
            if message is None:
                return
            answer = exchange.receive(message)
            if isinstance(answer, Question | GivenBack):
                if isinstance(exchange, ReturnExchange):
                    self._resume(exchange)
                if isinstance(answer, Question):
                    self._observer.on_asked(
                        answer.arrival, exchange, self._traceparent(exchange, stream)
                    )
                word = await self._ask(exchange, self._begin(answer), inbox, stream)
                if word is None:
                    return
                answer = exchange.answer(word, asyncio.get_running_loop().time())
            elif isinstance(exchange, PickerExchange):
                self._tell(exchange)
            await _write(answer, stream)
            if isinstance(exchange, PickerExchange):
                exchange.on_written()

    def _traceparent(self, exchange: Conversation, stream: MessageStream) -> str:
        """Take the trace context of Envoy's call, else that of the request, where it matters."""
        if not self._observer.follows_traces:
            return ""
        return stream.metadata(TRACEPARENT) or exchange.traceparent

    def _resume(self, exchange: ReturnExchange) -> None:
        """Tell the conversation of the request that has come back, if it is known."""
        arrival = self._driver.arrival(exchange.ticket)
        if arrival is not None:
            rules = (arrival.residency, self._directory.residency(arrival.pool))
            exchange.resume(arrival.pool, [rule for rule in rules if rule is not None])

    def _begin(self, question: Question | GivenBack) -> Verdict | Enqueue:
        """Ask the core. Of what has come back, only a request of a former router falls open.

        One of this router's that is nowhere has had its last word: it must not go round again.
        """
        if isinstance(question, Question):
            return self._driver.arrive(question.arrival)
        ticket = question.ticket
        word = self._driver.give_back(ticket)
        if word is not None:
            return word
        if self._driver.arrival(ticket) is None:
            return FallOpen(ticket)
        return Reject(ticket, RejectReason.NO_ENDPOINTS, 1.0)

    async def _ask(
        self,
        exchange: Conversation,
        word: Verdict | Enqueue,
        inbox: "_Inbox",
        stream: MessageStream,
    ) -> Verdict | None:
        """Get the core's last word, held or not; None if the client leaves before it comes."""
        if not isinstance(word, Enqueue):
            return word
        now = asyncio.get_running_loop().time
        held_at = now()
        await _write(exchange.answer(word, held_at), stream)
        verdict = asyncio.ensure_future(self._driver.verdict(word))
        try:
            while True:
                await asyncio.wait((verdict, inbox.peek()), return_when=asyncio.FIRST_COMPLETED)
                if verdict.done():
                    return verdict.result()
                message = await inbox.read()
                if message is None:
                    return None
                exchange.receive_while_held(message)
        finally:
            verdict.cancel()
            self._observer.on_held(exchange, now() - held_at)

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


async def _write(answer: Answer, stream: MessageStream) -> None:
    if isinstance(answer, bytes):
        await stream.write(answer)
        return
    for message in answer:
        await stream.write(message)


def _entrance(stream: MessageStream) -> wire.Entrance:
    """Say by which of Envoy's listeners the request has come; that of clients without a word."""
    return _ENTRANCES.get(stream.metadata(wire.ENTRANCE_METADATA), wire.Entrance.CLIENTS)


class _Inbox:
    """Envoy's messages, one of which can be awaited beside something else without losing it."""

    def __init__(self, stream: MessageStream) -> None:
        self._stream = stream
        self._ahead: asyncio.Task[bytes | None] | None = None

    async def read(self) -> bytes | None:
        """Take the next message; None at the end."""
        task, self._ahead = self._ahead, None
        return await (self._stream.read() if task is None else task)

    def peek(self) -> "asyncio.Task[bytes | None]":
        """Start to wait for the next message, which `read` will take."""
        if self._ahead is None:
            self._ahead = asyncio.create_task(self._stream.read())
        return self._ahead

    def close(self) -> None:
        """Stop waiting."""
        if self._ahead is not None:
            self._ahead.cancel()
