"""Response bodies in vLLM's shapes; what is constant over a stream is encoded once."""

from dataclasses import dataclass

import msgspec

DONE = b"data: [DONE]\n\n"
_TEXT_MARK = "\x00text\x00"


def usage_of(prompt_tokens: int, output_tokens: int, cached_tokens: int) -> dict[str, object]:
    """Return a usage object with the cached share of the prompt."""
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + output_tokens,
        "completion_tokens": output_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }


def event_of(body: object) -> bytes:
    """Return a server-sent event with a JSON body."""
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def error_event(body: bytes) -> bytes:
    """Return a server-sent event with an error body."""
    return b"data: " + body + b"\n\n"


@dataclass(frozen=True, slots=True)
class AnswerShape:
    """Identity of one answer and the endpoint's kind of body."""

    id: str
    created: int
    model: str
    chat: bool

    def body(self, usage: dict[str, object], text: str, finish_reason: str) -> bytes:
        """Return the whole answer of a request that does not stream."""
        choice: dict[str, object] = {"index": 0}
        if self.chat:
            message = {"role": "assistant", "content": text}
            empty = ("refusal", "annotations", "audio", "function_call", "reasoning")
            choice["message"] = message | dict.fromkeys(empty)
        else:
            choice["text"] = text
        choice |= {"logprobs": None, "finish_reason": finish_reason, "stop_reason": None}
        return msgspec.json.encode(
            self._head("chat.completion" if self.chat else "text_completion")
            | {"choices": [choice], "usage": usage}
        )

    def role_event(self) -> bytes:
        """Return the event that opens a chat stream; a plain stream has none."""
        if not self.chat:
            return b""
        delta = {"role": "assistant", "content": ""}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        return event_of(self._chunk([choice]) | {"prompt_token_ids": None})

    def text_event_parts(self) -> tuple[bytes, bytes]:
        """Return what stands before and after the text in every event but the last."""
        event = event_of(self._chunk([self._choice(_TEXT_MARK, None)]))
        head, _, tail = event.partition(msgspec.json.encode(_TEXT_MARK)[1:-1])
        return head, tail

    def finish_event(self, text: str, finish_reason: str) -> bytes:
        """Return the event with the last text and the reason of the end."""
        return event_of(self._chunk([self._choice(text, finish_reason)]))

    def usage_event(self, usage: dict[str, object]) -> bytes:
        """Return the event that closes a stream whose client asked for usage."""
        return event_of(self._chunk([]) | {"usage": usage})

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

    def _chunk(self, choices: list[dict[str, object]]) -> dict[str, object]:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return self._head(kind) | {"choices": choices}

    def _head(self, kind: str) -> dict[str, object]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}
