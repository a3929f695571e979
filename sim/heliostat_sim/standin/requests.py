"""Request bodies: parsed, checked as vLLM checks them, and turned into tokens."""

from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from heliostat_sim.engine import FinishReason
from heliostat_sim.engine.generation import TOKEN_BYTES, natural_output_tokens
from heliostat_sim.standin.errors import invalid_request, unknown_model, unreadable_request
from heliostat_sim.standin.tokens import TokenBlocks, chat_tokens, text_tokens, tokens_of_ids

_COMPLETION_DEFAULT_TOKENS = 16

Body = TypeVar("Body")


class StreamOptions(msgspec.Struct):
    """What a stream carries beside text."""

    include_usage: bool | None = None


class Message(msgspec.Struct):
    """One turn of a conversation."""

    role: str
    content: str | list[str | dict[str, Any]] | None = None
    tool_calls: msgspec.Raw = msgspec.Raw()

    def texts(self) -> list[str | bytes | None]:
        """Return the message's texts in order; None where a part is no text."""
        parts = self.content if isinstance(self.content, list) else [self.content or ""]
        texts: list[str | bytes | None] = [
            part if isinstance(part, str) else _text_of(part) for part in parts
        ]
        return [*texts, bytes(self.tool_calls)] if self.tool_calls else texts


def _text_of(part: dict[str, Any]) -> str | None:
    text = part.get("text")
    return text if isinstance(text, str) else None


class GenerationBody(msgspec.Struct, kw_only=True):
    """What chat and plain completions have in common."""

    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    min_tokens: int | None = 0
    ignore_eos: bool | None = False
    n: int | None = 1
    temperature: float | None = None
    top_p: float | None = None
    cache_salt: str | None = None


class ChatBody(GenerationBody, kw_only=True):
    """The body of /v1/chat/completions."""

    messages: list[Message]
    max_completion_tokens: int | None = None
    tools: msgspec.Raw = msgspec.Raw()

    def tokens(self) -> bytes:
        """Return the rendered prompt."""
        return _render(self.messages, self.tools, generate=True)

    def limit_tokens(self) -> int | None:
        """Return the most output tokens that the client wants."""
        return self.max_completion_tokens or self.max_tokens


class CompletionBody(GenerationBody, kw_only=True):
    """The body of /v1/completions."""

    prompt: str | list[int]

    def tokens(self) -> bytes:
        """Return the prompt's tokens."""
        return prompt_tokens(self.prompt)

    def limit_tokens(self) -> int | None:
        """Return the most output tokens that the client wants; few unless it says so."""
        return _COMPLETION_DEFAULT_TOKENS if self.max_tokens is None else self.max_tokens


class TokenizeBody(msgspec.Struct):
    """The body of /tokenize: a prompt or messages."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    tools: msgspec.Raw = msgspec.Raw()
    add_generation_prompt: bool = True

    def tokens(self) -> bytes:
        """Return the tokens asked for. Raises ApiError without prompt and messages."""
        if self.messages is not None:
            return _render(self.messages, self.tools, generate=self.add_generation_prompt)
        if self.prompt is None:
            raise unreadable_request("Field required: prompt or messages")
        return text_tokens(self.prompt)


def _render(messages: list[Message], tools: msgspec.Raw, *, generate: bool) -> bytes:
    turns = ((message.role, message.texts()) for message in messages)
    tools_json = bytes(tools) if tools and bytes(tools) != b"null" else None
    return chat_tokens(tools_json, turns, generate=generate)


def prompt_tokens(prompt: str | list[int]) -> bytes:
    """Return the tokens of a prompt given as text or as ids. Raises ApiError for bad ids."""
    if isinstance(prompt, str):
        return text_tokens(prompt)
    try:
        return tokens_of_ids(prompt)
    except OverflowError as error:
        raise invalid_request("Token id is out of vocabulary", "prompt") from error


@dataclass(frozen=True, slots=True)
class GenerationPlan:
    """A checked request: its blocks and how its output will end."""

    blocks: TokenBlocks
    output_tokens: int
    finish_reason: FinishReason


def parse_body(data: bytes, body_type: type[Body]) -> Body:
    """Return the typed body. Raises ApiError (400) for bad JSON and for wrong types."""
    try:
        return msgspec.json.decode(data, type=body_type)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise unreadable_request(str(error)) from error


def plan_generation(
    body: ChatBody | CompletionBody, served_model: str, limit_tokens: int, block_tokens: int
) -> GenerationPlan:
    """Check a request against the model and its context length.

    Raises ApiError: 404 for another model, 400 for what does not fit.
    """
    check_model(body.model, served_model)
    if body.n is not None and body.n != 1:
        raise invalid_request("The stand-in generates one choice per request", "n")
    wanted = body.limit_tokens()
    if wanted is not None and wanted < 1:
        raise invalid_request(f"max_tokens must be at least 1, got {wanted}.", "max_tokens")
    tokens = body.tokens()
    prompt = len(tokens) // TOKEN_BYTES
    _check_length(prompt, wanted, limit_tokens)
    blocks = TokenBlocks(tokens, block_tokens, body.cache_salt)
    most = limit_tokens - prompt if wanted is None else wanted
    natural = max(natural_output_tokens(blocks.seed), body.min_tokens or 0)
    if body.ignore_eos or natural > most:
        return GenerationPlan(blocks, most, FinishReason.LENGTH)
    return GenerationPlan(blocks, natural, FinishReason.STOP)


def check_model(model: str | None, served_model: str) -> None:
    """Raise ApiError (404) if the request names a model that is not served."""
    if model and model != served_model:
        raise unknown_model(model, served_model)


def _check_length(prompt: int, wanted: int | None, limit_tokens: int) -> None:
    if not prompt:
        raise invalid_request("The decoder prompt cannot be empty", "prompt")
    maximum = f"This model's maximum context length is {limit_tokens} tokens."
    if prompt >= limit_tokens:
        raise invalid_request(
            f"{maximum} However, your prompt contains {prompt} input tokens, which exceeds this "
            "limit even without any output tokens. Please reduce the length of the input prompt.",
            "input_tokens",
        )
    if wanted is not None and prompt + wanted > limit_tokens:
        raise invalid_request(
            f"{maximum} However, you requested {wanted} output tokens and your prompt contains "
            f"{prompt} input tokens. Please reduce the length of the input prompt or the number "
            "of requested output tokens.",
            "max_tokens",
        )
