"""Request bodies: parsed, checked as vLLM checks them, and turned into tokens."""

from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from heliostat_sim.engine import FinishReason
from heliostat_sim.engine.generation import TOKEN_BYTES, natural_output_tokens
from heliostat_sim.standin.answers import UsageWanted
from heliostat_sim.standin.errors import ApiError, invalid_request
from heliostat_sim.standin.served_models import ServedModels
from heliostat_sim.standin.tokens import (
    TokenBlocks,
    chat_tokens,
    media_tokens,
    text_tokens,
    tokens_of_ids,
)
from heliostat_sim.standin.validation import find_problem, missing, refusal_of

_COMPLETION_DEFAULT_TOKENS = 16

Body = TypeVar("Body")


class StreamOptions(msgspec.Struct):
    """What a stream carries beside text."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class Message(msgspec.Struct):
    """One turn of a conversation."""

    role: str
    content: str | list[str | dict[str, Any]] | None = None
    tool_calls: msgspec.Raw = msgspec.Raw()

    def texts(self) -> list[str | bytes]:
        """Return the message's texts in order; what stands for a part that is no text."""
        parts = self.content if isinstance(self.content, list) else [self.content or ""]
        texts = [part if isinstance(part, str) else _text_of(part) for part in parts]
        return [*texts, bytes(self.tool_calls)] if self.tool_calls else texts


def _text_of(part: dict[str, Any]) -> str | bytes:
    text = part.get("text")
    return text if isinstance(text, str) else media_tokens(msgspec.json.encode(part))


class GenerationBody(msgspec.Struct, kw_only=True):
    """What all bodies that ask for text have in common."""

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

    def usage_wanted(self) -> UsageWanted:
        """Return how often a stream tells its usage."""
        if self.stream_options is None or not self.stream_options.include_usage:
            return UsageWanted.NEVER
        always = self.stream_options.continuous_usage_stats
        return UsageWanted.ALWAYS if always else UsageWanted.AT_THE_END

    def tokens(self) -> bytes:
        """Return the prompt's tokens. Raises ApiError for one that cannot be."""
        raise NotImplementedError

    def limit_tokens(self) -> int | None:
        """Return the most output tokens that the client wants."""
        raise NotImplementedError


class ChatBody(GenerationBody, kw_only=True):
    """The body of /v1/chat/completions."""

    messages: list[Message]
    max_completion_tokens: int | None = None
    tools: msgspec.Raw = msgspec.Raw()

    def tokens(self) -> bytes:
        """Return the rendered prompt. Raises ApiError for a conversation without messages."""
        if not self.messages:
            raise invalid_request(
                "Cannot apply chat template to an empty conversation. Provide at least one message."
            )
        return render(self.messages, self.tools, generate=True)

    def limit_tokens(self) -> int | None:
        """Return the most output tokens that the client wants."""
        wanted = self.max_completion_tokens
        return self.max_tokens if wanted is None else wanted


class CompletionBody(GenerationBody, kw_only=True):
    """The body of /v1/completions."""

    prompt: str | list[int] | None = None

    def tokens(self) -> bytes:
        """Return the prompt's tokens. Raises ApiError without a prompt and for bad ids."""
        if not self.prompt:
            raise invalid_request(
                "Either prompt or prompt_embeds must be provided and non-empty.", "prompt"
            )
        return prompt_tokens(self.prompt)

    def limit_tokens(self) -> int | None:
        """Return the most output tokens that the client wants; few unless it says so."""
        return _COMPLETION_DEFAULT_TOKENS if self.max_tokens is None else self.max_tokens


class TokenizeBody(msgspec.Struct, omit_defaults=True):
    """The body of /tokenize: a prompt or messages."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    tools: msgspec.Raw = msgspec.Raw()
    add_generation_prompt: bool = True

    def tokens(self) -> bytes:
        """Return the tokens asked for. Raises ApiError without prompt and messages."""
        if self.messages is not None:
            return render(self.messages, self.tools, generate=self.add_generation_prompt)
        if self.prompt is None:
            members = msgspec.to_builtins(self)
            raise refusal_of([missing(f"body.{name}", members) for name in ("prompt", "messages")])
        return text_tokens(self.prompt)


class DetokenizeBody(msgspec.Struct):
    """The body of /detokenize."""

    tokens: list[int]
    model: str | None = None


def render(messages: list[Message], tools: msgspec.Raw, *, generate: bool) -> bytes:
    """Return a conversation's tokens; `generate`: with the opening of a reply."""
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
    adapter: str | None = None
    """The LoRA adapter; None for the model itself."""


def parse_body(data: bytes, body_type: type[Body]) -> Body:
    """Return the typed body. Raises ApiError (400) for bad JSON and for wrong types."""
    try:
        return msgspec.json.decode(data, type=body_type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refusal_of([find_problem(data, str(error))]) from error


def plan_generation(
    body: GenerationBody, models: ServedModels, limit_tokens: int, block_tokens: int
) -> GenerationPlan:
    """Check a request against the model and its context length.

    The output is cut at what the prompt leaves of that length. Raises ApiError: 404 for another
    model, 400 for what does not fit.
    """
    if body.stream_options is not None and not body.stream:
        raise invalid_request(
            "Stream options can only be defined when `stream=True`.", "stream_options"
        )
    adapter = models.find(body.model)
    wanted = body.limit_tokens()
    if wanted is not None and wanted > limit_tokens:
        raise invalid_request(
            f"max_tokens={wanted} cannot be greater than max_model_len={limit_tokens}. "
            "Please request fewer output tokens.",
            "max_tokens",
            wanted,
        )
    tokens = body.tokens()
    room = limit_tokens - len(tokens) // TOKEN_BYTES
    if room < 0:
        raise _too_long(limit_tokens)
    most = room if wanted is None else min(wanted, room)
    _check_sampling(body, most)
    blocks = TokenBlocks(tokens, block_tokens, _salt(adapter, body.cache_salt))
    natural = max(natural_output_tokens(blocks.seed), body.min_tokens or 0)
    if body.ignore_eos or natural > most:
        return GenerationPlan(blocks, most, FinishReason.LENGTH, adapter)
    return GenerationPlan(blocks, natural, FinishReason.STOP, adapter)


def _salt(adapter: str | None, salt: str | None) -> str | None:
    """Return what keeps prefixes apart: an adapter makes KV of its own."""
    return salt if adapter is None else f"{adapter}\0{salt or ''}"


def _check_sampling(body: GenerationBody, most_tokens: int) -> None:
    choices = 1 if body.n is None else body.n
    temperature = body.temperature
    if choices < 1:
        raise invalid_request(f"n must be at least 1, got {choices}.")
    if temperature is not None and temperature < 0:
        raise invalid_request(
            f"temperature must be non-negative, got {temperature}.", "temperature", temperature
        )
    if most_tokens < 1:
        raise invalid_request(
            f"max_tokens must be at least 1, got {most_tokens}.", "max_tokens", most_tokens
        )
    if choices > 1 and temperature == 0:
        raise invalid_request(f"n must be 1 when using greedy sampling, got {choices}.")
    if choices > 1:
        raise invalid_request("The stand-in generates one choice per request", "n", choices)


def _too_long(limit_tokens: int) -> ApiError:
    """Return the refusal of a prompt; vLLM stops counting one token beyond the limit."""
    return invalid_request(
        f"This model's maximum context length is {limit_tokens} tokens. However, your prompt "
        f"contains at least {limit_tokens + 1} input tokens, which exceeds this limit even "
        "without any output tokens. Please reduce the length of the input prompt.",
        "input_tokens",
        limit_tokens + 1,
    )
