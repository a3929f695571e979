"""The two kinds of answers: one body at the end, or a stream of events as tokens come."""

import asyncio
from enum import StrEnum

from heliostat_sim.engine import Finished, FinishReason
from heliostat_sim.engine.generation import TOKEN_BYTES
from heliostat_sim.standin.chunks import AnswerShape, Shape, Usage
from heliostat_sim.standin.tokens import TokenBlocks
from heliostat_sim.standin.usage import chunk_usage


class UsageWanted(StrEnum):
    """How often a stream tells its usage."""

    NEVER = "never"
    AT_THE_END = "at-the-end"
    ALWAYS = "always"


class _Ending:
    """What both kinds share: the end as something to wait for."""

    def __init__(self, blocks: TokenBlocks) -> None:
        self._blocks = blocks
        self.finished: asyncio.Future[Finished] = asyncio.get_running_loop().create_future()

    def _text(self, first_token: int, event: Finished) -> str:
        """Return the text from a token to the end; an answer that ends by itself ends in a
        token without text.
        """
        end = event.output_tokens - (event.reason is FinishReason.STOP)
        return self._blocks.output(first_token, max(first_token, end)).decode("ascii")

    def _end(self, event: Finished) -> None:
        if not self.finished.done():
            self.finished.set_result(event)


class WholeAnswer(_Ending):
    """Collects everything into one body."""

    streams = False

    def on_tokens(self, output_tokens: int) -> None:
        """Nothing is sent before the end."""

    def on_finish(self, event: Finished) -> None:
        """Let the waiting handler answer."""
        self._end(event)

    def body(self, shape: Shape, event: Finished) -> bytes:
        """Return the answer's body."""
        return shape.whole(event, self._text(0, event))


class StreamedAnswer(_Ending):
    """Writes events straight to the connection, chunked by hand: one write per step.

    `finished` is cancelled if the connection turns out to be closed.
    """

    streams = True

    def __init__(
        self,
        blocks: TokenBlocks,
        shape: Shape,
        transport: asyncio.WriteTransport,
        *,
        usage: UsageWanted = UsageWanted.NEVER,
        cut: bool = False,
    ) -> None:
        super().__init__(blocks)
        self._shape = shape
        self._transport = transport
        self._usage = usage
        self._counts = usage is UsageWanted.ALWAYS
        self._cut = cut
        self._sent_tokens = 0
        self._is_constant = isinstance(shape, AnswerShape) and not self._counts
        """Whether nothing but the text differs from event to event."""
        head, tail = shape.text_event_parts() if isinstance(shape, AnswerShape) else (b"", b"")
        size = f"{len(head) + TOKEN_BYTES + len(tail):x}\r\n".encode()
        self._event_head = head
        self._event_tail = tail
        self._chunk_head = size + head
        self._chunk_tail = tail + b"\r\n"

    def on_tokens(self, output_tokens: int) -> None:
        """Send what is new."""
        sent = self._sent_tokens
        if output_tokens == sent:
            return
        text = self._blocks.output(sent, output_tokens)
        if sent and output_tokens == sent + 1 and self._is_constant:
            self._send(b"".join((self._chunk_head, text, self._chunk_tail)))
        else:
            self._send_chunk(self._opening() + self._events_of(text, sent))
        self._sent_tokens = output_tokens
        if self._cut:
            self._transport.abort()

    def on_finish(self, event: Finished) -> None:
        """Send the rest, the reason of the end and the usage if it was asked for."""
        sent = self._sent_tokens
        text = self._text(sent, event)
        last = min(len(text), TOKEN_BYTES) if event.reason is FinishReason.LENGTH else 0
        body, last_text = text[: len(text) - last], text[len(text) - last :]
        told = self._usage is not UsageWanted.NEVER
        usage = self._usage_at(event.output_tokens)
        self._send_chunk(
            self._opening()
            + self._events_of(body.encode("ascii"), sent)
            + self._shape.ending(last_text, event, usage, tell=told)
        )
        if self._cut:
            self._transport.abort()
        self._end(event)

    def _events_of(self, text: bytes, sent_tokens: int) -> bytes:
        """Return one event per token of text, which follows tokens sent before."""
        pieces = [text[at : at + TOKEN_BYTES] for at in range(0, len(text), TOKEN_BYTES)]
        if not self._is_constant:
            return b"".join(
                self._shape.text_event(piece.decode("ascii"), self._usage_at(output_tokens))
                for output_tokens, piece in enumerate(pieces, sent_tokens + 1)
            )
        head, tail = self._event_head, self._event_tail
        return b"".join(head + piece + tail for piece in pieces)

    def _opening(self) -> bytes:
        """Return what comes before the first token; nothing once that has been sent."""
        if self._sent_tokens:
            return b""
        return self._shape.opening(self._blocks.prompt_tokens, self._usage_at(0))

    def _usage_at(self, output_tokens: int) -> Usage | None:
        if not self._counts:
            return None
        return chunk_usage(self._blocks.prompt_tokens, output_tokens)

    def _send_chunk(self, data: bytes) -> None:
        self._send(b"%x\r\n%b\r\n" % (len(data), data))

    def _send(self, data: bytes) -> None:
        """Write; uvloop raises RuntimeError from a closed transport, which ends this answer."""
        try:
            self._transport.write(data)
        except (RuntimeError, OSError):
            self.finished.cancel()
