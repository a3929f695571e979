"""The stand-in's other APIs, as their official clients read them."""

import io
from collections.abc import AsyncIterator

import anthropic
import openai
import pytest

from heliostat_sim.standin.options import DEFAULT_MODEL, EngineOptions
from heliostat_sim.standin.server import RunningEngine, running_engine

FAST = EngineOptions(speed_ratio=50.0)
HELLO = "Hello there, who are you? " * 20


@pytest.fixture
async def engine() -> AsyncIterator[RunningEngine]:
    """Return a fast stand-in."""
    async with running_engine(FAST) as running:
        yield running


@pytest.fixture
async def of_openai(engine: RunningEngine) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"{engine.url}/v1", api_key="none") as client:
        yield client


@pytest.fixture
async def of_anthropic(engine: RunningEngine) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=engine.url, api_key="none") as client:
        yield client


async def test_a_responses_stream_counts_its_events(of_openai: openai.AsyncOpenAI) -> None:
    """It begins before any token, has one delta per token, and ends with the whole answer."""
    stream = await of_openai.responses.create(
        model=DEFAULT_MODEL, input=HELLO, max_output_tokens=3, stream=True
    )
    events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds.count("response.output_text.delta") == 3
    last = events[-1]
    assert last.type == "response.incomplete"
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == last.response.output_text != ""


async def test_all_apis_of_conversations_share_a_cache(
    of_openai: openai.AsyncOpenAI, of_anthropic: anthropic.AsyncAnthropic
) -> None:
    """The same conversation is the same prompt, however it is told."""
    first = await of_anthropic.messages.create(
        model=DEFAULT_MODEL,
        system=HELLO,
        messages=[{"role": "user", "content": HELLO}],
        max_tokens=2,
    )
    again = await of_openai.responses.create(
        model=DEFAULT_MODEL, instructions=HELLO, input=HELLO, max_output_tokens=2
    )
    assert again.usage is not None
    assert again.usage.input_tokens == first.usage.input_tokens
    assert again.usage.input_tokens_details.cached_tokens > 0.9 * first.usage.input_tokens
    assert first.content[0].type == "text"
    assert first.content[0].text == again.output_text


async def test_a_messages_stream_has_one_delta_per_token(
    of_anthropic: anthropic.AsyncAnthropic,
) -> None:
    """Its events are those of Anthropic's API, in their order."""
    stream = await of_anthropic.messages.create(
        model=DEFAULT_MODEL,
        messages=[{"role": "user", "content": HELLO}],
        max_tokens=3,
        stream=True,
    )
    kinds = [event.type async for event in stream]
    assert kinds == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 3,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


async def test_anthropics_clients_get_errors_in_their_shape(
    of_anthropic: anthropic.AsyncAnthropic,
) -> None:
    """With vLLM's words."""
    with pytest.raises(anthropic.NotFoundError, match="does not exist") as caught:
        await of_anthropic.messages.create(model="none", messages=[], max_tokens=1)
    assert caught.value.body == {
        "type": "error",
        "error": {"type": "NotFoundError", "message": caught.value.body["error"]["message"]},  # type: ignore[index]
    }


async def test_images_are_told_apart(of_openai: openai.AsyncOpenAI) -> None:
    """The same one is in the cache, another is not; each is as many tokens."""

    async def usage(url: str) -> tuple[int, int]:
        answer = await of_openai.chat.completions.create(
            model=DEFAULT_MODEL,
            messages=[
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}
            ],
            max_tokens=1,
        )
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        return answer.usage.prompt_tokens, answer.usage.prompt_tokens_details.cached_tokens or 0

    first, again, other = [await usage(url) for url in ("data:a", "data:a", "data:b")]
    assert first[0] == again[0] == other[0] > 200
    assert (first[1], other[1]) == (0, 0)
    assert again[1] > 200


async def test_sound_is_transcribed(of_openai: openai.AsyncOpenAI) -> None:
    """A form needs a file."""
    answer = await of_openai.audio.transcriptions.create(
        model=DEFAULT_MODEL, file=("a.wav", io.BytesIO(b"x" * 64_000))
    )
    assert answer.text
    with pytest.raises(openai.BadRequestError, match=r"body\.file"):
        await of_openai.post("/audio/transcriptions", body={"model": "m"}, cast_to=object)
