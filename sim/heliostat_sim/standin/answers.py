"""The two kinds of answers: one body at the end, or a stream of events as tokens come."""

import asyncio

from heliostat_sim.engine import Finished, FinishReason
from heliostat_sim.standin.chunks import DONE, AnswerShape, usage_of
from heliostat_sim.standin.tokens import TokenBlocks


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

    def body(self, shape: AnswerShape, event: Finished) -> bytes:
        """Return the answer's body."""
        return shape.body(usage_for(event), self._text(0, event), event.reason.value)


class StreamedAnswer(_Ending):
    """Writes events straight to the connection, chunked by hand: one write per step."""

    streams = True

    def __init__(
        self,
        blocks: TokenBlocks,
        shape: AnswerShape,
        transport: asyncio.WriteTransport,
        *,
        include_usage: bool,
        cut: bool = False,
    ) -> None:
        super().__init__(blocks)
        self._shape = shape
        self._transport = transport
        self._include_usage = include_usage
        self._cut = cut
        self._sent_tokens = 0
        head, tail = shape.text_event_parts()
        size = f"{len(head) + 4 + len(tail):x}\r\n".encode()
        self._event_head = head
        self._event_tail = tail
        self._chunk_head = size + head
        self._chunk_tail = tail + b"\r\n"

    def on_tokens(self, output_tokens: int) -> None:
        """Send what is new."""
        sent = self._sent_tokens
        if output_tokens == sent:
            return
        self._sent_tokens = output_tokens
        text = self._blocks.output(sent, output_tokens)
        if sent and output_tokens == sent + 1:
            self._transport.write(b"".join((self._chunk_head, text, self._chunk_tail)))
        else:
            opening = b"" if sent else self._shape.role_event()
            self._write(opening + self._events_of(text))
        if self._cut:
            self._transport.abort()

    def on_finish(self, event: Finished) -> None:
        """Send the rest, the reason of the end and the usage if it was asked for."""
        sent = self._sent_tokens
        text = self._text(sent, event)
        last = min(len(text), 4) if event.reason is FinishReason.LENGTH else 0
        body, last_text = text[: len(text) - last], text[len(text) - last :]
        parts = [b"" if sent else self._shape.role_event(), self._events_of(body.encode("ascii"))]
        parts.append(self._shape.finish_event(last_text, event.reason.value))
        if self._include_usage:
            parts.append(self._shape.usage_event(usage_for(event)))
        self._write(b"".join([*parts, DONE]))
        self._end(event)

    def _events_of(self, text: bytes) -> bytes:
        """Return one event per token of text."""
        head, tail = self._event_head, self._event_tail
        return b"".join(head + text[at : at + 4] + tail for at in range(0, len(text), 4))

    def _write(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))


def usage_for(event: Finished) -> dict[str, object]:
    """Return a finished request's usage object."""
    return usage_of(event.prompt_tokens, event.output_tokens, event.cached_tokens)
