"""What answers look like: chat and plain completions here; others bring a shape of their own."""

from dataclasses import dataclass
from typing import Protocol

import msgspec

from heliostat_sim.engine import Finished
from heliostat_sim.standin.usage import stream_usage, whole_usage

Usage = dict[str, object]

DONE = b"data: [DONE]\n\n"
_TEXT_MARK = "\x00text\x00"
_TRANSFERS = ("kv_transfer_params", "ec_transfer_params", "metrics")
_CHAT_NULLS = ("prompt_logprobs", "prompt_token_ids", "prompt_text", *_TRANSFERS)


def event_of(body: object) -> bytes:
    """Return a server-sent event with a JSON body."""
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def named_event(body: dict[str, object]) -> bytes:
    """Return a server-sent event that has its type as its name too."""
    return b"event: " + str(body["type"]).encode() + b"\n" + event_of(body)


class Shape(Protocol):
    """How one API puts the answer to one request."""

    def whole(self, event: Finished, text: str) -> bytes:
        """Return the whole answer of a request that does not stream."""
        ...

    def acceptance(self) -> bytes:
        """Return the events that a stream begins with before there is any token."""
        ...

    def opening(self, prompt_tokens: int, usage: Usage | None) -> bytes:
        """Return the events that come with the first token, before it."""
        ...

    def text_event(self, text: str, usage: Usage | None = None) -> bytes:
        """Return the event of one token, with the usage so far if the client wants that."""
        ...

    def ending(self, text: str, event: Finished, usage: Usage | None, *, tell: bool) -> bytes:
        """Return the event with the last text, if any, and all that comes after it.

        tell -- whether the client has asked for usage at the end
        """
        ...


@dataclass(frozen=True, slots=True)
class AnswerShape:
    """Identity of one answer and the endpoint's kind of body."""

    id: str
    created: int
    model: str
    chat: bool
    fingerprint: str

    def body(self, usage: Usage, text: str, finish_reason: str) -> bytes:
        """Return the whole answer of a request that does not stream."""
        return msgspec.json.encode(
            self._head("chat.completion" if self.chat else "text_completion")
            | {
                "choices": [self._whole_choice(text, finish_reason)],
                "service_tier": None,
                "system_fingerprint": self.fingerprint,
                "usage": usage,
            }
            | dict.fromkeys(_CHAT_NULLS if self.chat else _TRANSFERS)
        )

    def whole(self, event: Finished, text: str) -> bytes:
        """Return the whole answer of a request that does not stream."""
        return self.body(whole_usage(event, chat=self.chat), text, event.reason.value)

    def acceptance(self) -> bytes:
        """Return nothing: what opens the stream comes with the first token."""
        return b""

    def opening(self, prompt_tokens: int, usage: Usage | None) -> bytes:
        """Return the event that opens a chat stream; a plain stream has none."""
        if not self.chat:
            return b""
        delta = {"role": "assistant", "content": ""}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        nulls = dict.fromkeys(("prompt_token_ids", "prompt_text"))
        return event_of(self._chunk([choice], usage) | nulls)

    def text_event_parts(self) -> tuple[bytes, bytes]:
        """Return what stands before and after the text in every event but the last."""
        event = self.text_event(_TEXT_MARK)
        head, _, tail = event.partition(msgspec.json.encode(_TEXT_MARK)[1:-1])
        return head, tail

    def text_event(self, text: str, usage: Usage | None = None) -> bytes:
        """Return the event of one token, with the usage so far if the client wants that."""
        return event_of(self._chunk([self._choice(text, None)], usage))

    def ending(self, text: str, event: Finished, usage: Usage | None, *, tell: bool) -> bytes:
        """Return the event with the last text and the reason of the end, usage and the mark."""
        parts = [self.finish_event(text, event.reason.value, usage, last=not tell)]
        if tell:
            parts.append(self.usage_event(stream_usage(event, chat=self.chat)))
        return b"".join((*parts, DONE))

    def finish_event(
        self, text: str, finish_reason: str, usage: Usage | None = None, *, last: bool = True
    ) -> bytes:
        """Return the event with the last text and the reason of the end.

        The last chunk has the fingerprint; it is this one unless one with usage follows.
        """
        chunk = self._chunk([self._choice(text, finish_reason)], usage)
        return event_of(chunk | {"system_fingerprint": self.fingerprint} if last else chunk)

    def usage_event(self, usage: Usage) -> bytes:
        """Return the event that closes a stream whose client asked for usage."""
        return event_of(self._chunk([], usage) | {"system_fingerprint": self.fingerprint})

    def _whole_choice(self, text: str, finish_reason: str) -> dict[str, object]:
        choice: dict[str, object] = {"index": 0}
        if self.chat:
            message = {"role": "assistant", "content": text}
            empty = ("refusal", "annotations", "audio", "function_call", "reasoning")
            choice["message"] = message | dict.fromkeys(empty)
            nulls: tuple[str, ...] = ("stop_reason", "token_ids", "routed_experts")
        else:
            choice["text"] = text
            prompt = ("prompt_logprobs", "prompt_token_ids")
            nulls = ("stop_reason", "token_ids", *prompt, "routed_experts")
        return choice | {"logprobs": None, "finish_reason": finish_reason} | dict.fromkeys(nulls)

    def _choice(self, text: str, finish_reason: str | None) -> dict[str, object]:
        choice: dict[str, object] = {"index": 0}
        if self.chat:
            choice |= {"delta": {"content": text}, "logprobs": None, "finish_reason": finish_reason}
            if finish_reason is not None:
                choice["stop_reason"] = None
            return choice | {"token_ids": None}
        return choice | {
            "text": text,
            "logprobs": None,
            "finish_reason": finish_reason,
            "stop_reason": None,
            "prompt_token_ids": None,
            "token_ids": None,
        }

    def _chunk(self, choices: list[dict[str, object]], usage: Usage | None) -> dict[str, object]:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        chunk = self._head(kind) | {"choices": choices}
        return chunk if usage is None else chunk | {"usage": usage}

    def _head(self, kind: str) -> dict[str, object]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}
