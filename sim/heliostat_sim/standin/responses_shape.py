"""Answers of /v1/responses: a body of output items, and a stream of numbered, named events."""

from itertools import count

import msgspec

from heliostat_sim.engine import Finished, FinishReason
from heliostat_sim.standin.chunks import Usage, named_event


class ResponsesShape:
    """Identity of one answer, and how far its stream has come."""

    def __init__(self, name: str, created: int, model: str) -> None:
        self._id = f"resp_{name}"
        self._item = f"msg_{name}"
        self._created = created
        self._model = model
        self._numbers = count()
        self._texts: list[str] = []

    def whole(self, event: Finished, text: str) -> bytes:
        """Return the whole answer of a request that does not stream."""
        return msgspec.json.encode(self._finished(event, text))

    def acceptance(self) -> bytes:
        """Return the events that come before there is any token."""
        begun = self._response("in_progress", [], None)
        return self._event("response.created", response=begun) + self._event(
            "response.in_progress", response=begun
        )

    def opening(self, prompt_tokens: int, usage: Usage | None) -> bytes:
        """Return the events with the first token."""
        item = self._message("in_progress", [])
        return self._event(
            "response.output_item.added", output_index=0, item=item
        ) + self._part_event("response.content_part.added", part=_part(""))

    def text_event(self, text: str, usage: Usage | None = None) -> bytes:
        """Return the event of one token."""
        self._texts.append(text)
        return self._part_event("response.output_text.delta", delta=text, logprobs=[])

    def ending(self, text: str, event: Finished, usage: Usage | None, *, tell: bool) -> bytes:
        """Return the last token's event and those of the end; usage is always told."""
        last = self.text_event(text) if text else b""
        whole = "".join(self._texts)
        response = self._finished(event, whole)
        kind = "incomplete" if event.reason is FinishReason.LENGTH else "completed"
        return b"".join(
            (
                last,
                self._part_event("response.output_text.done", text=whole, logprobs=[]),
                self._part_event("response.content_part.done", part=_part(whole)),
                self._event(
                    "response.output_item.done",
                    output_index=0,
                    item=self._message("completed", [_part(whole)]),
                ),
                self._event(f"response.{kind}", response=response),
            )
        )

    def _finished(self, event: Finished, text: str) -> dict[str, object]:
        cut = event.reason is FinishReason.LENGTH
        usage = {
            "input_tokens": event.prompt_tokens,
            "input_tokens_details": {"cached_tokens": event.cached_tokens},
            "output_tokens": event.output_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": event.prompt_tokens + event.output_tokens,
        }
        output = [self._message("completed", [_part(text)])]
        response = self._response("incomplete" if cut else "completed", output, usage)
        reason = {"reason": "max_output_tokens"} if cut else None
        return response | {"incomplete_details": reason}

    def _response(
        self, status: str, output: list[dict[str, object]], usage: Usage | None
    ) -> dict[str, object]:
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "model": self._model,
            "status": status,
            "output": output,
            "usage": usage,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }

    def _message(self, status: str, content: list[dict[str, object]]) -> dict[str, object]:
        return {
            "id": self._item,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def _part_event(self, kind: str, **members: object) -> bytes:
        place = {"item_id": self._item, "output_index": 0, "content_index": 0}
        return self._event(kind, **place, **members)

    def _event(self, kind: str, **members: object) -> bytes:
        return named_event({"type": kind, "sequence_number": next(self._numbers)} | members)


def _part(text: str) -> dict[str, object]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
