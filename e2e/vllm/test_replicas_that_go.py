"""Replicas that are killed, drained or started anew, under load through the gateway."""

import http.client
import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event

import pytest
from asking import greedy, made_words, wait_for
from installation import MODEL, Gateway, until_healthy
from processes import Server

CLIENTS = 6
JSON = {"content-type": "application/json"}


@dataclass
class Answers:
    """What the clients of a load have got."""

    plain: list[int] = field(default_factory=list)
    """The statuses of plain answers; 0 where there was none."""
    streams: list[str] = field(default_factory=list)
    """How streams ended: whole, cut after their headers, or without headers."""

    @property
    def ended(self) -> int:
        """How many requests are over."""
        return len(self.plain) + len(self.streams)


def ask_plain(gateway: Server, content: str) -> int:
    """Send a request whose answer's headers come with its end; 0 where none come."""
    try:
        status, _ = gateway.request("/v1/chat/completions", json.dumps(greedy(content)).encode())
    except (OSError, http.client.HTTPException):
        return 0
    return status


def ask_stream(gateway: Server, content: str, max_tokens: int = 48) -> str:
    """Send a request for a stream, and tell how it ended."""
    connection = gateway.connect()
    body = json.dumps(greedy(content, max_tokens) | {"stream": True, "ignore_eos": True})
    try:
        connection.request(
            "POST", "/v1/chat/completions", body, {"content-type": "application/json"}
        )
        answer = connection.getresponse()
        if answer.status != 200:
            return f"status {answer.status}"
    except (OSError, http.client.HTTPException) as error:
        return f"no headers: {error}"
    try:
        whole = b"data: [DONE]" in answer.read()
    except (OSError, http.client.HTTPException):
        whole = False
    finally:
        connection.close()
    return "whole" if whole else "cut"


@contextmanager
def load(gateway: Server) -> Iterator[Answers]:
    """Have clients ask all the while, half of them for streams; all have ended after it."""
    answers, stop = Answers(), Event()

    def client(number: int) -> None:
        rng = random.Random(number)
        while not stop.is_set():
            content = made_words(rng.randrange(10**9), 40)
            if number % 2:
                answers.streams.append(ask_stream(gateway, content))
            else:
                answers.plain.append(ask_plain(gateway, content))

    with ThreadPoolExecutor(CLIENTS) as threads:
        clients: list[Future[None]] = [threads.submit(client, it) for it in range(CLIENTS)]
        try:
            yield answers
        finally:
            stop.set()
    for ended in clients:
        ended.result()


def until_ended(answers: Answers, more: int) -> None:
    """Wait until so many more requests are over."""
    wanted = answers.ended + more
    wait_for(lambda: answers.ended >= wanted, "no answers", timeout_seconds=60)


def until_available(gateway: Gateway, replica: Server, what: str) -> None:
    """Wait until the router sends requests to a replica."""

    def available() -> bool:
        return bool(gateway.endpoints().get(replica.address, {}).get("available"))

    wait_for(available, what, timeout_seconds=30)


@pytest.fixture
def restored(running_gateway: Gateway, replicas: list[Server]) -> Iterator[Gateway]:
    """Afterwards both replicas run and are in use again."""
    yield running_gateway
    for replica in replicas:
        if not replica.runs:
            replica.start()
    running_gateway.declare(replicas)
    for replica in replicas:
        until_healthy(replica)
        until_available(running_gateway, replica, "it is not used again")


def test_a_killed_replica_costs_only_the_streams_that_ran_there(
    restored: Gateway, replicas: list[Server]
) -> None:
    """No request is lost whose answer had not begun; the others go to the replica that is left."""
    with load(restored.server) as answers:
        until_ended(answers, 20)
        running = replicas[0].metric("vllm:num_requests_running")
        replicas[0].kill()
        until_ended(answers, 30)
    assert set(answers.plain) == {200}
    assert set(answers.streams) <= {"whole", "cut"}
    assert answers.streams.count("cut") <= max(running, CLIENTS / 2)


def test_a_replica_that_leaves_and_is_told_to_end_finishes_what_it_has(
    restored: Gateway, replicas: list[Server]
) -> None:
    """Out of the pool and then given a SIGTERM, it costs no request and cuts no stream."""
    gateway, leaving = restored, replicas[0]
    with load(gateway.server) as answers:
        until_ended(answers, 20)
        gateway.declare(replicas[1:])
        wait_for(lambda: leaving.address not in gateway.endpoints(), "it is still in the pool")
        until_ended(answers, 2)  # what was on its way there has come
        leaving.terminate()
        wait_for(lambda: not leaving.runs, "it does not end", timeout_seconds=60)
        until_ended(answers, 20)
    assert set(answers.plain) == {200}
    assert set(answers.streams) == {"whole"}


def test_a_replica_that_ends_unannounced_costs_what_opens_its_breaker(
    restored: Gateway, replicas: list[Server]
) -> None:
    """vLLM answers 500 to what is new after a SIGTERM. As many as ask at once get one, and those
    that try it out again; no stream is cut."""
    with load(restored.server) as answers:
        until_ended(answers, 20)
        replicas[0].terminate()
        wait_for(lambda: not replicas[0].runs, "it does not end", timeout_seconds=60)
        until_ended(answers, 20)
    failed = [it for it in answers.plain if it != 200] + [
        it for it in answers.streams if it != "whole"
    ]
    assert set(failed) <= {500, "status 500"}
    assert len(failed) <= 2 * CLIENTS


def test_a_replica_that_leaves_the_pool_is_drained(
    restored: Gateway, replicas: list[Server]
) -> None:
    """What it serves goes on to its end, and nothing new comes."""
    gateway, leaving = restored, replicas[0]
    with load(gateway.server) as answers:
        until_ended(answers, 20)
        wait_for(lambda: leaving.metric("vllm:num_requests_running") > 0, "it is idle")
        gateway.declare(replicas[1:])
        wait_for(lambda: leaving.address not in gateway.endpoints(), "it is still in the pool")
        wait_for(lambda: leaving.metric("vllm:num_requests_running") == 0, "it is still used")
        served = leaving.metric("vllm:request_success_total")
        until_ended(answers, 30)
        assert leaving.metric("vllm:request_success_total") == served
    assert set(answers.plain) == {200}
    assert set(answers.streams) == {"whole"}


def test_a_replica_that_starts_anew_is_known_to_have_an_empty_cache(
    restored: Gateway, replicas: list[Server]
) -> None:
    """What the router took for cached there is forgotten once it runs again."""
    gateway = restored
    content = made_words(77, 200)
    homes: list[Callable[[], float]] = [
        lambda it=it: gateway.endpoints()[it.address]["indexed_tokens"]  # type: ignore[misc]
        for it in replicas
    ]
    before = [home() for home in homes]
    assert ask_plain(gateway.server, content) == 200
    wait_for(lambda: [home() for home in homes] != before, "it is not in the index")
    index = next(i for i, home in enumerate(homes) if home() != before[i])
    home = replicas[index]
    assert homes[index]() > 100
    home.kill()
    home.start()
    until_healthy(home)
    until_available(gateway, home, "it is not used again")
    wait_for(lambda: homes[index]() == 0, "its old cache is still believed in")
    body = json.dumps({"model": MODEL, "prompt": content, "max_tokens": 1}).encode()
    assert gateway.server.request("/v1/completions", body)[0] == 200
