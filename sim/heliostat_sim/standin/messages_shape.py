"""Answers of /v1/messages: Anthropic's body, and its stream of named events."""

from dataclasses import dataclass

import msgspec

from heliostat_sim.engine import Finished, FinishReason
from heliostat_sim.standin.chunks import Usage, named_event


@dataclass(frozen=True, slots=True)
class MessagesShape:
    """Identity of one answer to a client of Anthropic's API; it is told nothing of the cache."""

    id: str
    model: str

    def whole(self, event: Finished, text: str) -> bytes:
        """Return the whole answer of a request that does not stream."""
        content = [{"type": "text", "text": text}]
        usage = _usage(event.prompt_tokens, event.output_tokens)
        return msgspec.json.encode(self._message(content, usage, _stop_reason(event)))

    def acceptance(self) -> bytes:
        """Return nothing: what opens the stream comes with the first token."""
        return b""

    def opening(self, prompt_tokens: int, usage: Usage | None) -> bytes:
        """Return the events before the first token."""
        message = self._message([], _usage(prompt_tokens, 0), None)
        return named_event({"type": "message_start", "message": message}) + named_event(
            {
                "type": "content_block_start",
                "index": 0,
                "content_block": {"type": "text", "text": ""},
            }
        )

    def text_event(self, text: str, usage: Usage | None = None) -> bytes:
        """Return the event of one token."""
        delta = {"type": "text_delta", "text": text}
        return named_event({"type": "content_block_delta", "index": 0, "delta": delta})

    def ending(self, text: str, event: Finished, usage: Usage | None, *, tell: bool) -> bytes:
        """Return the last token's event and those of the end."""
        return b"".join(
            (
                self.text_event(text) if text else b"",
                named_event({"type": "content_block_stop", "index": 0}),
                named_event(
                    {
                        "type": "message_delta",
                        "delta": {"stop_reason": _stop_reason(event)},
                        "usage": _usage(event.prompt_tokens, event.output_tokens),
                    }
                ),
                named_event({"type": "message_stop"}),
            )
        )

    def _message(
        self, content: list[dict[str, str]], usage: Usage, stop_reason: str | None
    ) -> dict[str, object]:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "content": content,
            "model": self.model,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": usage,
        }


def _usage(input_tokens: int, output_tokens: int) -> Usage:
    return {"input_tokens": input_tokens, "output_tokens": output_tokens}


def _stop_reason(event: Finished) -> str:
    return "max_tokens" if event.reason is FinishReason.LENGTH else "end_turn"
