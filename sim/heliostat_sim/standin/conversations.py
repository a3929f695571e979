"""The bodies of /v1/messages and /v1/responses, which tell a conversation in their own ways."""

from typing import Any

import msgspec

from heliostat_sim.standin.answers import UsageWanted
from heliostat_sim.standin.requests import GenerationBody, Message, render


class MessagesBody(GenerationBody, kw_only=True):
    """The body of /v1/messages."""

    max_tokens: int
    messages: list[Message]
    system: str | list[str | dict[str, Any]] | None = None
    tools: msgspec.Raw = msgspec.Raw()

    def tokens(self) -> bytes:
        """Return the rendered prompt."""
        return _rendered(self.system, self.messages, self.tools)

    def limit_tokens(self) -> int | None:
        """Return the most output tokens that the client wants."""
        return self.max_tokens

    def usage_wanted(self) -> UsageWanted:
        """Return that a stream always tells it, in events of its own."""
        return UsageWanted.NEVER


class CountTokensBody(msgspec.Struct, kw_only=True):
    """The body of /v1/messages/count_tokens."""

    model: str | None = None
    messages: list[Message]
    system: str | list[str | dict[str, Any]] | None = None
    tools: msgspec.Raw = msgspec.Raw()

    def tokens(self) -> bytes:
        """Return the rendered prompt."""
        return _rendered(self.system, self.messages, self.tools)


class ResponsesBody(GenerationBody, kw_only=True):
    """The body of /v1/responses."""

    input: str | list[dict[str, Any]]
    instructions: str | None = None
    max_output_tokens: int | None = None
    tools: msgspec.Raw = msgspec.Raw()

    def tokens(self) -> bytes:
        """Return the rendered prompt."""
        items = [{"content": self.input}] if isinstance(self.input, str) else self.input
        return _rendered(self.instructions, [_message_of(item) for item in items], self.tools)

    def limit_tokens(self) -> int | None:
        """Return the most output tokens that the client wants."""
        return self.max_output_tokens


def _message_of(item: dict[str, Any]) -> Message:
    """Return an input item as a message; one that is none, like a tool's output, as its JSON."""
    content = item.get("content")
    if not isinstance(content, str | list):
        content = msgspec.json.encode(item).decode()
    return Message(role=str(item.get("role", "user")), content=content)


def _rendered(
    system: str | list[str | dict[str, Any]] | None, messages: list[Message], tools: msgspec.Raw
) -> bytes:
    head = [Message(role="system", content=system)] if system else []
    return render(head + messages, tools, generate=True)
