"""The official OpenAI client through the gateway to two real vLLM."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest
from asking import greedy, made_words, wait_for
from installation import MODEL
from openai import OpenAI
from processes import Server

BLOCK_TOKENS = 32
SUCCESSES = "vllm:request_success_total"
GENERATED_TOKENS = "vllm:generation_tokens_total"
CACHED_TOKENS = "vllm:prompt_tokens_cached_total"
TOOL = {
    "name": "set_unit",
    "description": "Choose the unit of temperatures.",
    "parameters": {
        "type": "object",
        "properties": {"unit": {"enum": ["celsius", "kelvin"]}},
        "required": ["unit"],
        "additionalProperties": False,
    },
}


def finished(replicas: list[Server]) -> list[float]:
    """Requests that each replica has finished."""
    return [replica.metric(SUCCESSES) for replica in replicas]


@dataclass
class Conversation:
    """A growing conversation; each turn sends all the earlier ones again."""

    client: OpenAI
    seed: int
    messages: list[dict[str, str]] = field(default_factory=list)
    prompt_tokens: int = 0
    """Of the last turn's prompt, by the engine's count."""

    def __post_init__(self) -> None:
        """Begin with a system prompt of its own."""
        self.messages.append({"role": "system", "content": made_words(self.seed, 90)})

    def turn(self) -> int:
        """Ask once more and give the prompt tokens that the engine found in its cache."""
        content = made_words(1000 * self.seed + len(self.messages), 40)
        self.messages.append({"role": "user", "content": content})
        answer = self.client.chat.completions.create(
            model=MODEL, messages=self.messages, max_tokens=24, temperature=0
        )
        self.messages.append(
            {"role": "assistant", "content": answer.choices[0].message.content or ""}
        )
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        self.prompt_tokens = answer.usage.prompt_tokens
        return answer.usage.prompt_tokens_details.cached_tokens or 0


def test_a_chat_is_answered_as_the_replica_answers_it(
    client: OpenAI, replicas: list[Server]
) -> None:
    """The text and the token counts through the gateway are those of each replica itself."""
    request = greedy(made_words(1, 30))
    answer = client.chat.completions.create(**request)
    assert answer.choices[0].message.content
    assert answer.usage is not None
    for replica in replicas:
        status, body = replica.request("/v1/chat/completions", json.dumps(request).encode())
        direct = json.loads(body)
        assert status == 200
        assert answer.choices[0].message.content == direct["choices"][0]["message"]["content"]
        assert answer.choices[0].finish_reason == direct["choices"][0]["finish_reason"]
        assert answer.usage.prompt_tokens == direct["usage"]["prompt_tokens"]
        assert answer.usage.completion_tokens == direct["usage"]["completion_tokens"]


def test_a_streamed_chat_is_the_plain_one_in_pieces(client: OpenAI) -> None:
    """A stream brings the text of the plain answer in many chunks, then the usage."""
    request = greedy(made_words(2, 30))
    plain = client.chat.completions.create(**request)
    chunks = list(
        client.chat.completions.create(
            **request, stream=True, stream_options={"include_usage": True}
        )
    )
    pieces = [
        c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content
    ]
    assert len(pieces) > 5
    assert "".join(pieces) == plain.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "length"
    assert plain.usage is not None
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == plain.usage.completion_tokens


def test_a_completion_takes_text_or_token_ids(client: OpenAI) -> None:
    """The older endpoint works, plain and streamed, with a text prompt and with token ids."""
    prompts: list[Any] = [made_words(3, 20), list(range(100, 180))]
    for prompt in prompts:
        request = {"model": MODEL, "prompt": prompt, "max_tokens": 16, "temperature": 0}
        plain = client.completions.create(**request)
        streamed = client.completions.create(**request, stream=True)
        assert plain.choices[0].text
        assert "".join(chunk.choices[0].text for chunk in streamed) == plain.choices[0].text


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0},
        {"max_tokens": 5000},
        {"temperature": -1},
        {"messages": "hello"},
        {"messages": [{"role": "user", "content": made_words(4, 3000)}]},
    ],
    ids=["no output", "too much output", "temperature", "wrong type", "too long"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_an_error_of_the_engine_comes_through_as_it_is(
    gateway: Server, replicas: list[Server], wrong: dict[str, Any], stream: bool
) -> None:
    """What the engine refuses, the client sees with the engine's own status and body."""
    body = json.dumps(greedy("hello") | {"stream": stream} | wrong).encode()
    status, answer = gateway.request("/v1/chat/completions", body)
    assert status == 400
    assert (status, answer) == replicas[0].request("/v1/chat/completions", body)


def test_a_tool_is_called_as_the_replica_calls_it(client: OpenAI, replicas: list[Server]) -> None:
    """Name and arguments are the replica's own, plain and in a stream's pieces."""
    request: dict[str, Any] = greedy("what unit?", max_tokens=60) | {
        "tools": [{"type": "function", "function": TOOL}],
        "tool_choice": {"type": "function", "function": {"name": TOOL["name"]}},
    }
    [call] = client.chat.completions.create(**request).choices[0].message.tool_calls or ()
    status, body = replicas[0].request("/v1/chat/completions", json.dumps(request).encode())
    assert status == 200
    [direct] = json.loads(body)["choices"][0]["message"]["tool_calls"]
    assert call.function.name == direct["function"]["name"] == TOOL["name"]
    assert call.function.arguments == direct["function"]["arguments"]
    chunks = client.chat.completions.create(**request, stream=True)
    pieces = [it for c in chunks if c.choices for it in c.choices[0].delta.tool_calls or ()]
    assert "".join(it.function.arguments or "" for it in pieces) == call.function.arguments


def test_a_response_is_answered_as_the_replica_answers_it(
    client: OpenAI, replicas: list[Server]
) -> None:
    """The newer endpoint works, plain and streamed, and gives the replica's own text."""
    request = {
        "model": MODEL,
        "input": made_words(5, 30),
        "instructions": made_words(6, 10),
        "max_output_tokens": 16,
        "temperature": 0,
    }
    plain = client.responses.create(**request)
    assert plain.output_text
    status, body = replicas[0].request("/v1/responses", json.dumps(request).encode())
    assert status == 200
    [direct] = [it for it in json.loads(body)["output"] if it["type"] == "message"]
    assert plain.output_text == direct["content"][0]["text"]
    events = list(client.responses.create(**request, stream=True))
    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(pieces) == plain.output_text


def test_a_prompt_is_tokenized(gateway: Server, replicas: list[Server]) -> None:
    """/tokenize gives what the replica gives, and /detokenize takes it back."""
    body = json.dumps({"model": MODEL, "prompt": made_words(7, 10)}).encode()
    status, answer = gateway.request("/tokenize", body)
    assert status == 200
    tokens = json.loads(answer)["tokens"]
    assert tokens == json.loads(replicas[0].request("/tokenize", body)[1])["tokens"]
    back = json.dumps({"model": MODEL, "tokens": tokens}).encode()
    assert made_words(7, 10) in json.loads(gateway.request("/detokenize", back)[1])["prompt"]


def test_an_unknown_model_is_not_found(client: OpenAI) -> None:
    """The client raises its own NotFoundError for a model that no pool serves."""
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(**greedy("hello") | {"model": "nope"})
    assert isinstance(raised.value.body, dict)
    assert "nope" in raised.value.body["message"]


def test_malformed_json_is_a_bad_request(gateway: Server) -> None:
    """A body that is no JSON gets 400 and an OpenAI-shaped error."""
    status, answer = gateway.request("/v1/chat/completions", b'{"model": "tiny",')
    assert status == 400
    assert set(json.loads(answer)["error"]) >= {"message", "type", "code"}


def test_a_conversation_stays_where_it_is_cached(client: OpenAI, replicas: list[Server]) -> None:
    """Each turn goes to the replica of the first, which finds the earlier turns in its cache.

    It finds all of the previous prompt but its last, partial block and one more: the text that
    follows may change that prompt's last tokens.
    """
    homes: dict[int, int] = {}
    conversations = [Conversation(client, seed) for seed in (11, 12, 13)]
    for turn in range(4):
        for conversation in conversations:
            before = finished(replicas)
            earlier_tokens = conversation.prompt_tokens
            cached_tokens = conversation.turn()
            wait_for(
                lambda before=before: sum(finished(replicas)) == sum(before) + 1,
                "no replica counts the request",
            )
            grown = [a - b for a, b in zip(finished(replicas), before, strict=True)]
            home = grown.index(1)
            assert homes.setdefault(conversation.seed, home) == home
            if turn > 0:
                assert earlier_tokens > 2 * BLOCK_TOKENS
                assert cached_tokens >= earlier_tokens - 2 * BLOCK_TOKENS


def test_conversations_at_once_use_both_replicas_and_their_caches(
    client: OpenAI, replicas: list[Server]
) -> None:
    """Both replicas work, most turns find what is cached, and the engines count the same tokens.

    A turn may leave a crowded replica, so not every one has to find its conversation.
    """
    before, cached_before = finished(replicas), [r.metric(CACHED_TOKENS) for r in replicas]

    def run(seed: int) -> list[int]:
        conversation = Conversation(client, seed)
        return [conversation.turn() for _ in range(4)]

    with ThreadPoolExecutor(4) as pool:
        cached = list(pool.map(run, range(21, 25)))
    wait_for(lambda: sum(finished(replicas)) == sum(before) + 16, "requests are missing")
    assert all(a > b for a, b in zip(finished(replicas), before, strict=True))
    later_turns = [tokens for turns in cached for tokens in turns[1:]]
    assert sum(tokens >= BLOCK_TOKENS for tokens in later_turns) > len(later_turns) / 2
    cached_after = [r.metric(CACHED_TOKENS) for r in replicas]
    assert sum(cached_after) - sum(cached_before) == sum(map(sum, cached))


def test_a_client_that_leaves_frees_the_engine(client: OpenAI, replicas: list[Server]) -> None:
    """Closing a stream ends the generation at the replica long before its last token."""
    before = [replica.metric(GENERATED_TOKENS) for replica in replicas]
    stream = client.chat.completions.create(
        **greedy("hello", max_tokens=1900), stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(stream))
    stream.close()
    wait_for(
        lambda: all(replica.metric("vllm:num_requests_running") == 0 for replica in replicas),
        "a replica still generates",
    )
    after = [replica.metric(GENERATED_TOKENS) for replica in replicas]
    assert sum(after) - sum(before) < 1900
