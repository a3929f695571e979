"""Every API of the engines, asked for by its own client, through a real Envoy."""

import io
import json
from base64 import b64encode

import anthropic
import openai
import pytest
import pytest_asyncio

from heliostat_extproc.apis import APIS, BodyFormat
from heliostat_sim.standin.options import EngineOptions
from heliostat_sim.standin.server import running_engines

pytestmark = [pytest.mark.gateway, pytest.mark.asyncio(loop_scope="module")]

MODEL = "every-api"
ALIAS = "nickname-for-every-api"
TEXT = "Say something about the sun and the mirrors that follow it. " * 60
SOUND = b"RIFF" + bytes(range(256)) * 200


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand_ins(gateway):
    """A pool of two fast engines."""
    options = EngineOptions(model=MODEL, speed_ratio=20.0)
    async with running_engines([options] * 2) as engines:
        await gateway.add_pool(MODEL, *(engine.address for engine in engines), aliases=(ALIAS,))
        yield engines
        gateway.remove_file(f"{MODEL}.yaml")


@pytest_asyncio.fixture(loop_scope="module")
async def of_openai(gateway, stand_ins):
    """The official client."""
    url = f"{gateway.url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def of_anthropic(gateway, stand_ins):
    """The official client."""
    async with anthropic.AsyncAnthropic(
        base_url=gateway.url, api_key="none", max_retries=0
    ) as client:
        yield client


@pytest.fixture
def measured(gateway):
    """What the core is told of requests that are over, from now on."""
    seen = []

    class Recorder:
        def record(self, now, event, commands):
            if type(event).__name__ == "RequestMeasured":
                seen.append(event)

    gateway.router.driver.add_recorder(Recorder())
    return seen


@pytest.fixture
def arrived(gateway):
    """What the core is asked, from now on."""
    seen = []

    class Recorder:
        def record(self, now, event, commands):
            if type(event).__name__ == "RequestArrived":
                seen.append(event)

    gateway.router.driver.add_recorder(Recorder())
    return seen


async def only(measured, eventually):
    """Wait for the one measurement."""
    await eventually(lambda: measured, "the request is measured")
    return measured[0]


def user(*parts):
    return [{"role": "user", "content": list(parts) if parts else TEXT}]


@pytest.mark.parametrize("times", [1, 2])
async def test_responses(of_openai, measured, eventually, times):
    """A whole answer, whose usage is known by the names that this API has for it."""
    answer = await of_openai.responses.create(model=ALIAS, input=TEXT, max_output_tokens=8)
    assert answer.output_text
    usage = answer.usage
    event = await only(measured, eventually)
    assert (event.prompt_tokens, event.output_tokens) == (usage.input_tokens, 8)
    assert event.cached_tokens == usage.input_tokens_details.cached_tokens
    assert (event.cached_tokens > 0) == (times == 2)


async def test_streamed_responses(of_openai, measured, eventually):
    """What comes before the first token is not taken for it."""
    stream = await of_openai.responses.create(
        model=MODEL, instructions="Be brief.", input=TEXT, max_output_tokens=8, stream=True
    )
    events = [event async for event in stream]
    assert events[0].type == "response.created"
    usage = events[-1].response.usage
    event = await only(measured, eventually)
    assert (event.prompt_tokens, event.output_tokens) == (usage.input_tokens, 8)
    assert event.cached_tokens == usage.input_tokens_details.cached_tokens
    assert event.ttft_seconds is None


async def test_messages(of_anthropic, measured, eventually):
    """A whole answer, whose usage is known by the names that this API has for it."""
    answer = await of_anthropic.messages.create(model=ALIAS, messages=user(), max_tokens=8)
    assert answer.content[0].text
    event = await only(measured, eventually)
    assert (event.prompt_tokens, event.output_tokens) == (answer.usage.input_tokens, 8)


async def test_streamed_messages(of_anthropic, measured, eventually):
    """The usage is put together from the events that tell it."""
    async with of_anthropic.messages.stream(
        model=MODEL, system="Be brief.", messages=user(), max_tokens=8
    ) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        answer = await stream.get_final_message()
    assert text == answer.content[0].text != ""
    event = await only(measured, eventually)
    assert (event.prompt_tokens, event.output_tokens) == (answer.usage.input_tokens, 8)
    assert event.ttft_seconds > 0


async def test_embeddings_need_no_output(of_openai, arrived, measured, eventually):
    """They are served and measured, and no output is expected of them."""
    answer = await of_openai.embeddings.create(model=ALIAS, input=TEXT, encoding_format="float")
    assert answer.data[0].embedding
    event = await only(measured, eventually)
    assert (event.outcome, event.prompt_tokens) == ("served", answer.usage.prompt_tokens)
    assert arrived[0].max_output_tokens == 0


async def test_a_completion_of_token_ids(of_openai, arrived):
    """They count as tokens: four bytes each."""
    ids = list(range(1000))
    answer = await of_openai.completions.create(model=ALIAS, prompt=ids, max_tokens=4)
    assert answer.usage.prompt_tokens == 1000
    assert arrived[0].prompt_bytes == 4000


async def test_an_image_finds_its_conversation(of_openai):
    """The second turn has the first in the cache, image and all; with another image it has not."""

    def image(pixel):
        content = b64encode(bytes([pixel]) * 60_000).decode()
        return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{content}"}}

    async def cached_ratio(picture, question):
        parts = (picture, {"type": "text", "text": TEXT}, {"type": "text", "text": question})
        answer = await of_openai.chat.completions.create(
            model=MODEL, messages=user(*parts), max_tokens=4
        )
        usage = answer.usage
        return usage.prompt_tokens_details.cached_tokens / usage.prompt_tokens

    assert await cached_ratio(image(1), "What is it?") == 0
    assert await cached_ratio(image(1), "Who made it?") > 0.9
    assert await cached_ratio(image(2), "What is it?") == 0


@pytest.mark.parametrize("name", [MODEL, ALIAS])
@pytest.mark.parametrize("translate", [False, True])
async def test_audio(of_openai, name, translate):
    """The form reaches the engine whole, under the name that it knows."""
    api = of_openai.audio.translations if translate else of_openai.audio.transcriptions
    answer = await api.create(model=name, file=("a.wav", io.BytesIO(SOUND)))
    assert answer.text


async def test_tokens_are_counted_without_a_place_in_any_cache(of_anthropic, gateway, arrived):
    """Neither is anything computed."""
    count = await of_anthropic.messages.count_tokens(model=ALIAS, messages=user())
    assert count.input_tokens > 100
    reply = await post(gateway, "/tokenize", prompt=TEXT)
    assert reply.body["count"] == len(reply.body["tokens"])
    back = await post(gateway, "/detokenize", tokens=reply.body["tokens"])
    assert back.body["prompt"] == TEXT
    assert [(event.block_keys, event.prompt_bytes) for event in arrived] == [((), 0)] * 3


async def post(gateway, path, headers=(), **fields):
    body = json.dumps({"model": ALIAS, **fields}).encode()
    json_type = {"content-type": "application/json", **dict(headers)}
    async with gateway.client.post(gateway.url + path, data=body, headers=json_type) as response:
        return type("Reply", (), {"status": response.status, "body": await response.json()})


FIELDS = {
    "/v1/chat/completions": {"messages": user(), "max_tokens": 2},
    "/v1/completions": {"prompt": TEXT, "max_tokens": 2},
    "/v1/responses": {"input": TEXT, "max_output_tokens": 2},
    "/v1/messages": {"messages": user(), "max_tokens": 2},
    "/v1/messages/count_tokens": {"messages": user()},
    "/v1/embeddings": {"input": TEXT},
    "/pooling": {"input": TEXT},
    "/classify": {"input": TEXT},
    "/tokenize": {"prompt": TEXT},
    "/detokenize": {"tokens": [1, 2]},
    **{path: {"text_1": TEXT, "text_2": ["a", "b"]} for path in ("/score", "/v1/score")},
    **{
        path: {"query": TEXT, "documents": ["a", "b"]}
        for path in ("/rerank", "/v1/rerank", "/v2/rerank")
    },
}


@pytest.mark.parametrize("path", [api.path for api in APIS.values() if api.body is BodyFormat.JSON])
async def test_each_path_is_served_under_an_alias(gateway, stand_ins, path):
    """The engine gets its own name for the model, and answers."""
    reply = await post(gateway, path, **FIELDS[path])
    assert reply.status == 200, reply.body


async def test_models_are_listed_and_told_one_by_one(of_openai, of_anthropic):
    """Of all pools, aliases too, to either client."""
    listed = [model.id async for model in of_openai.models.list()]
    assert {MODEL, ALIAS} <= set(listed)
    assert [model.id async for model in of_anthropic.models.list()] == listed
    assert (await of_openai.models.retrieve(ALIAS)).root == MODEL
    with pytest.raises(openai.NotFoundError):
        await of_openai.models.retrieve("no-such-model")


@pytest.mark.parametrize("field", [{"previous_response_id": "resp_1"}, {"background": True}])
async def test_what_only_one_engine_could_answer_is_refused(of_openai, field):
    """No engine is asked for an answer that another one has kept, or would keep."""
    with pytest.raises(openai.BadRequestError, match="send the conversation") as caught:
        await of_openai.responses.create(model=MODEL, input="Go on", **field)
    assert caught.value.code == "unsupported"


async def test_a_form_that_cannot_be_read_is_refused(gateway, stand_ins):
    """Audio comes as a form."""
    reply = await post(gateway, "/v1/audio/transcriptions")
    assert reply.status == 400
    assert "multipart/form-data" in reply.body["error"]["message"]


async def test_errors_are_shown_by_both_clients(of_openai, of_anthropic):
    """Each finds kind and message where its API has them."""
    with pytest.raises(openai.NotFoundError, match="no-such-model") as of_one:
        await of_openai.chat.completions.create(model="no-such-model", messages=user())
    assert (of_one.value.code, of_one.value.type) == ("unknown-model", "not_found_error")
    with pytest.raises(anthropic.NotFoundError, match="no-such-model") as of_other:
        await of_anthropic.messages.create(model="no-such-model", messages=user(), max_tokens=1)
    assert of_other.value.body["type"] == "error"
    assert of_other.value.body["error"]["type"] == "not_found_error"


@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/responses/resp_1", "/metrics"])
async def test_other_paths_are_not_there(gateway, stand_ins, path):
    """Also those that an engine has for its operators."""
    reply = await post(gateway, path)
    assert (reply.status, reply.body["error"]["code"]) == (404, "unknown-path")
