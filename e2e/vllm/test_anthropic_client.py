"""The official Anthropic client through the gateway to two real vLLM."""

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic import Anthropic
from asking import made_words, wait_for
from installation import MODEL
from processes import Server

TOOL: dict[str, Any] = {
    "name": "set_unit",
    "description": "Choose the unit of temperatures.",
    "input_schema": {
        "type": "object",
        "properties": {"unit": {"enum": ["celsius", "kelvin"]}},
        "required": ["unit"],
        "additionalProperties": False,
    },
}


@pytest.fixture
def claude(gateway: Server) -> Iterator[Anthropic]:
    """The client, without the retries that would hide a failure."""
    with Anthropic(base_url=f"http://{gateway.address}", api_key="none", max_retries=0) as client:
        yield client


def message(content: str, max_tokens: int = 24) -> dict[str, Any]:
    """A request whose answer depends on its prompt alone."""
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": max_tokens,
        "extra_body": {"temperature": 0},
    }


def as_json(request: dict[str, Any]) -> bytes:
    """What the client makes of such a request."""
    body = {name: value for name, value in request.items() if name != "extra_body"}
    return json.dumps(body | request["extra_body"]).encode()


def test_a_message_is_answered_as_the_replica_answers_it(
    claude: Anthropic, replicas: list[Server]
) -> None:
    """The text and the token counts through the gateway are those of each replica itself."""
    request = message(made_words(51, 30)) | {"system": made_words(52, 20)}
    answer = claude.messages.create(**request)
    assert answer.content[0].text
    for replica in replicas:
        status, body = replica.request("/v1/messages", as_json(request))
        direct = json.loads(body)
        assert status == 200
        assert answer.content[0].text == direct["content"][0]["text"]
        assert answer.stop_reason == direct["stop_reason"]
        assert answer.usage.output_tokens == direct["usage"]["output_tokens"]


def test_a_streamed_message_is_the_plain_one_in_pieces(claude: Anthropic) -> None:
    """A stream brings the text of the plain answer in many events, then the usage."""
    request = message(made_words(53, 30))
    plain = claude.messages.create(**request)
    with claude.messages.stream(**request) as stream:
        pieces = list(stream.text_stream)
        whole = stream.get_final_message()
    assert len(pieces) > 5
    assert "".join(pieces) == plain.content[0].text
    assert whole.usage.output_tokens == plain.usage.output_tokens


def test_a_tool_is_used_as_the_replica_uses_it(claude: Anthropic, replicas: list[Server]) -> None:
    """The blocks are the replica's own, plain and streamed; the tiny model's input is no JSON."""
    request = message("what unit?", 60) | {"tools": [TOOL]}
    request["tool_choice"] = {"type": "tool", "name": TOOL["name"]}
    status, body = replicas[0].request("/v1/messages", as_json(request))
    direct = json.loads(body)
    assert status == 200
    answer = claude.messages.create(**request)
    assert [block.type for block in answer.content] == [it["type"] for it in direct["content"]]
    used = [it.name for it in answer.content if it.type == "tool_use"]
    assert used == [it["name"] for it in direct["content"] if it["type"] == "tool_use"]
    events = claude.messages.create(**request, stream=True)
    begun = [it.content_block for it in events if it.type == "content_block_start"]
    assert [it.name for it in begun if it.type == "tool_use"] == used


def test_an_error_of_the_engine_is_the_clients(claude: Anthropic) -> None:
    """What the engine refuses, the client raises as a bad request."""
    with pytest.raises(anthropic.BadRequestError):
        claude.messages.create(**message("hello", max_tokens=5000))


def test_an_unknown_model_is_not_found(claude: Anthropic) -> None:
    """The client raises its own NotFoundError, with the model's name."""
    with pytest.raises(anthropic.NotFoundError) as raised:
        claude.messages.create(**message("hello") | {"model": "nope"})
    assert "nope" in str(raised.value)


def test_a_client_that_leaves_frees_the_engine(claude: Anthropic, replicas: list[Server]) -> None:
    """Closing a stream ends the generation at the replica."""
    with claude.messages.stream(**message("hello", max_tokens=1900)) as stream:
        next(iter(stream))
    wait_for(
        lambda: all(replica.metric("vllm:num_requests_running") == 0 for replica in replicas),
        "a replica still generates",
    )
