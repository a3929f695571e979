"""Every bad and every odd request through a real Envoy: served, or refused with a code."""

import asyncio
import gzip
import json

import pytest
import pytest_asyncio

from tests.gateway.raw_http import CHAT, chunked, connect, exchange, request

pytestmark = [pytest.mark.gateway, pytest.mark.asyncio(loop_scope="module")]

BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
GET = b"GET /v1/models HTTP/1.1\r\nhost: gateway\r\n\r\n"
TOO_MANY = tuple(b"x-%d: v" % number for number in range(1000))
STRIPPED = ("x-heliostat-", "x-gateway-", "x-envoy-", "x-forwarded-client-cert")
WEBSOCKET = (
    *(b"upgrade: websocket", b"connection: upgrade", b"sec-websocket-version: 13"),
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
)


def body(**fields):
    return json.dumps({"model": "m", "messages": [], **fields}).encode()


def in_chunks(*fields, content=BODY, trailers=b""):
    pieces = (content[start : start + 7] for start in range(0, len(content), 7))
    framed = chunked(*pieces, trailers=trailers)
    return request(framed, b"transfer-encoding: chunked", *fields, length=False)


def at(path, method=b"POST", version=b"HTTP/1.1"):
    return request(BODY, line=b" ".join((method, path, version)))


@pytest_asyncio.fixture(loop_scope="module")
async def engine(gateway, engines):
    """The only engine of the only pool, and all that has reached it."""
    engine = await engines()
    await gateway.add_pool("m", engine.address)
    return engine


async def must_refuse(gateway, engine, data, status, code):
    """Refused with this code, no engine asked, nothing left open."""
    reply = await exchange(gateway.url, data)
    assert (reply.status, reply.code) == (status, code)
    await gateway.until_idle()
    assert not engine.last_body
    return reply


# What is served


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(in_chunks(), id="chunks"),
        pytest.param(in_chunks(trailers=b"x-trailer: 1\r\n"), id="trailers"),
        pytest.param(
            request(
                b"%x;a=b\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
                b"transfer-encoding: chunked",
                length=False,
            ),
            id="chunk extension",
        ),
        pytest.param(at(CHAT.split()[1], version=b"HTTP/1.0"), id="HTTP/1.0"),
        pytest.param(
            b"POST /v1/chat/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n%s"
            % (len(BODY), BODY),
            id="HTTP/1.0 without a host",
        ),
        pytest.param(b"\r\n" + request(BODY), id="an empty line before it"),
        pytest.param(request(BODY, *TOO_MANY[:90]), id="90 headers"),
        pytest.param(request(BODY, b"x-large: " + b"v" * 50_000), id="50 KB of headers"),
        pytest.param(request(BODY, b"content-encoding: Identity"), id="identity"),
        pytest.param(request(BODY, b"upgrade: h2c", b"connection: upgrade"), id="h2c, not taken"),
        pytest.param(request(BODY, b"content-type: text/plain"), id="another content type"),
        pytest.param(at(b"//v1/chat//completions"), id="slashes"),
        pytest.param(at(b"/x/%2e%2e/v1/./chat/completions"), id="dots"),
        pytest.param(at(b"/v1/%63hat/completions"), id="escaped letter"),
        pytest.param(at(b"http://other.example/v1/chat/completions"), id="absolute form"),
        pytest.param(at(b"/v1/chat/completions?model=other&x"), id="query"),
        pytest.param(at(b"/v1/chat/completions?" + b"q" * 50_000), id="long query"),
        pytest.param(request(body(messages="text")), id="messages that are text"),
        pytest.param(request(b'{"model":"m","prompt":""}'), id="empty prompt"),
        pytest.param(request(b'{"model":"m"}'), id="no prompt"),
        pytest.param(request(b' \r\n\t{"model":"m"}\n '), id="white space"),
        pytest.param(request(body(messages=None, stream=None)), id="nulls"),
        pytest.param(
            request(b'{"model":"m","messages":%s1%s}' % (b"[" * 500, b"]" * 500)), id="nested"
        ),
        pytest.param(request(body(seed=10**400)), id="a large number that is not ours"),
        pytest.param(request(body(user="\0\u2028\U0001f600")), id="odd characters"),
    ],
)
async def test_what_is_odd_and_valid_is_served(gateway, engine, data):
    """The engine answers, once, and nothing is left open."""
    reply = await exchange(gateway.url, data)
    assert (reply.status, engine.served) == (200, 1), reply
    await gateway.until_idle()


@pytest.mark.parametrize(
    ("content", "model"),
    [(b'{"model":"other","model":"m"}', "m"), (b'{"model":"m","messages":[],"model":"m"}', "m")],
)
async def test_of_doubled_keys_the_last_one_counts(gateway, engine, content, model):
    """As it does for the engine, so that both mean the same model."""
    assert (await exchange(gateway.url, request(content))).status == 200
    assert engine.last_body["model"] == model


async def test_an_alias_is_renamed_where_it_counts(gateway, engines):
    """Of doubled keys and of keys within others the engine reads the one that is renamed."""
    engine = await engines()
    await gateway.add_pool("canonical", engine.address, aliases=("alias",))
    for content in (
        b'{"model":"alias","messages":[{"model":"alias"}],"model":"alias"}',
        b'{"tools":[{"model":"alias"}],"model":"alias"}',
        b'{"model":"m","model":"alias"}',
    ):
        assert (await exchange(gateway.url, request(content))).status == 200
        assert engine.last_body["model"] == "canonical"


async def test_a_client_is_told_to_go_on_before_it_sends_its_body(gateway, engine):
    """Expect: 100-continue is answered at once; then the request is served as any other."""
    async with connect(gateway.url) as connection:
        await connection.send(request(BODY, b"expect: 100-continue")[: -len(BODY)])
        assert (await connection.reply()).status == 100
        await connection.send(BODY)
        assert (await connection.reply()).status == 200
    assert engine.served == 1


async def test_pipelined_requests_are_answered_in_order(gateway, engine):
    """Each gets its own answer, a refusal among them too."""
    async with connect(gateway.url) as connection:
        await connection.send(request(BODY) + GET + request(BODY) + request(b"{"))
        replies = [await connection.reply() for _ in range(4)]
    assert [reply.status for reply in replies] == [200, 200, 200, 400]
    assert b"served_by" in replies[2].content
    assert engine.served == 2
    await gateway.until_idle()


async def test_a_streamed_answer_over_http_1_0_ends_with_the_connection(gateway, engine):
    """Such a client knows no chunks."""
    data = request(body(stream=True), line=b"POST /v1/chat/completions HTTP/1.0")
    async with connect(gateway.url) as connection:
        await connection.send(data)
        answer = await connection.reader.read()
    head, _, events = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert events.startswith(b"data: {")
    assert events.endswith(b"data: [DONE]\n\n")


# What is refused


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b" \n", id="blank"),
        pytest.param(BODY[:-3], id="cut short"),
        pytest.param(BODY + b"}", id="more than JSON"),
        pytest.param(b"null", id="null"),
        pytest.param(b'["m"]', id="array"),
        pytest.param(b"model=m", id="form"),
        pytest.param(b'{"messages":[]}', id="no model"),
        pytest.param(b'{"model":["m"]}', id="model of the wrong type"),
        pytest.param(body(model=""), id="empty model"),
        pytest.param(body(stream="yes"), id="stream of the wrong type"),
        pytest.param(b'{"model":"m","max_tokens":NaN}', id="NaN"),
        pytest.param(b'{"model":"m","max_tokens":1e999}', id="out of range"),
        pytest.param(b'{"model":"m","messages":' + b"[" * 100_000, id="nested, open"),
        pytest.param(
            b'{"model":"m","messages":%s1%s}' % (b"[" * 100_000, b"]" * 100_000), id="nested"
        ),
        pytest.param(BODY.replace(b"hi", b"\xff"), id="not UTF-8"),
        pytest.param(BODY.replace(b"hi", b"\xed\xa0\x80"), id="a surrogate in UTF-8"),
        pytest.param(BODY.decode().encode("utf-16"), id="UTF-16"),
        pytest.param(b"\xef\xbb\xbf" + BODY, id="byte order mark"),
        pytest.param(BODY.replace(b"hi", rb"\ud83d"), id="lone surrogate"),
        pytest.param(BODY.replace(b'"m"', rb'"\ud83d"'), id="lone surrogate in the model"),
        pytest.param(
            BODY.replace(b'"m"', rb'"m","user":"\udc00"'), id="lone surrogate in the user"
        ),
        pytest.param(gzip.compress(BODY), id="compressed and not said"),
    ],
)
async def test_a_body_that_cannot_be_read_is_400(gateway, engine, content):
    """Whether its length is declared or not."""
    for data in (request(content), in_chunks(content=content)):
        await must_refuse(gateway, engine, data, 400, "malformed-request")


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        pytest.param(request(BODY, length=False), 400, "malformed-request", id="no length"),
        pytest.param(
            b"POST /v1/chat/completions HTTP/1.1\r\n\r\n", 400, "malformed-request", id="no host"
        ),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400, "malformed-request", id="TLS"),
        pytest.param(at(CHAT.split()[1], b"FOO"), 400, "malformed-request", id="odd method"),
        pytest.param(request(BODY, b"x-a: b\0c"), 400, "malformed-request", id="NUL"),
        pytest.param(request(BODY, b"x a: b"), 400, "malformed-request", id="space in a name"),
        pytest.param(at(b"/v1/chat/completions#x"), 400, "malformed-request", id="fragment"),
        pytest.param(at(b"/v1/chat/completions%00"), 400, "malformed-request", id="NUL in a path"),
        pytest.param(at("/v1/é".encode()), 400, "malformed-request", id="path of bytes"),
        pytest.param(at(b"/v1%2fchat/completions"), 404, "unknown-path", id="escaped slash"),
        pytest.param(at(b"/v1/chat/completions;x=1"), 404, "unknown-path", id="path parameter"),
        pytest.param(at(b"/v1/chat/completions/"), 404, "unknown-path", id="slash at the end"),
        pytest.param(at(b"/v1/../metrics"), 404, "unknown-path", id="dots"),
        pytest.param(at(b"/v1/%2e%2e/metrics"), 404, "unknown-path", id="escaped dots"),
        pytest.param(at(b"http://127.0.0.1/metrics"), 404, "unknown-path", id="absolute form"),
        pytest.param(at(b"*", b"OPTIONS"), 404, "unknown-path", id="OPTIONS *"),
        pytest.param(
            request(b"", line=b"CONNECT 10.0.0.1:80 HTTP/1.1", length=False),
            *(404, "unknown-path"),
            id="CONNECT",
        ),
        pytest.param(
            request(body(model="m\0")), 404, "unknown-model", id="a model that is not quite it"
        ),
        pytest.param(
            request(body(model="m" * 100_000)), 404, "unknown-model", id="a very long model"
        ),
        pytest.param(request(BODY, *TOO_MANY), 431, "headers-too-large", id="1000 headers"),
        pytest.param(request(BODY, *TOO_MANY[:98]), 431, "headers-too-large", id="98 headers"),
        pytest.param(
            request(BODY, b"x-large: " + b"v" * 62_000), 431, "headers-too-large", id="62 KB"
        ),
        pytest.param(
            request(BODY, b"x-large: " + b"v" * 200_000), 431, "headers-too-large", id="200 KB"
        ),
        pytest.param(
            at(b"/v1/chat/completions?" + b"q" * 100_000), 431, "headers-too-large", id="long URL"
        ),
        pytest.param(
            request(gzip.compress(BODY), b"content-encoding: gzip"),
            *(415, "unsupported-encoding"),
            id="gzip",
        ),
        pytest.param(
            request(BODY, b"content-encoding: identity", b"content-encoding: br"),
            *(415, "unsupported-encoding"),
            id="brotli",
        ),
        pytest.param(in_chunks(b"transfer-encoding: gzip"), 501, "not-implemented", id="TE: gzip"),
        pytest.param(
            request(b"", *WEBSOCKET, line=b"GET /v1/realtime HTTP/1.1", length=False),
            *(501, "not-implemented"),
            id="WebSocket",
        ),
        pytest.param(
            request(b"", *WEBSOCKET, line=b"GET /v1/chat/completions HTTP/1.1", length=False),
            *(501, "not-implemented"),
            id="WebSocket where there is something",
        ),
    ],
)
async def test_what_cannot_be_served_is_refused_with_its_code(gateway, engine, data, status, code):
    """Router and Envoy answer alike: an OpenAI-shaped body, and the code in it and in a header."""
    await must_refuse(gateway, engine, data, status, code)


async def test_a_compressed_body_is_told_what_is_taken(gateway, engine):
    """415 names the remedy, and the header for it."""
    data = request(gzip.compress(BODY), b"content-encoding: gzip")
    reply = await must_refuse(gateway, engine, data, 415, "unsupported-encoding")
    assert reply.headers["accept-encoding"] == "identity"
    assert b"send it without `content-encoding`" in reply.content


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        *((method, "/v1/chat/completions", "POST") for method in ("GET", "HEAD", "PUT", "DELETE")),
        ("TRACE", "/v1/completions", "POST"),
        ("OPTIONS", "/v1/chat/completions", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("POST", "/health", "GET, HEAD"),
    ],
)
async def test_another_method_is_told_which_are_allowed(gateway, engine, method, path, allowed):
    """405 with Allow; a browser's preflight is no exception, so other origins stay out."""
    line = f"{method} {path} HTTP/1.1".encode()
    preflight = (b"origin: https://a.example", b"access-control-request-method: POST")
    data = request(b"", *preflight, line=line)
    reply = await exchange(gateway.url, data, with_body=method != "HEAD")
    assert (reply.status, reply.headers["allow"]) == (405, allowed)
    assert not [name for name in reply.headers if name.startswith("access-control-")]
    assert method == "HEAD" or reply.code == "method-not-allowed"


async def test_no_word_of_a_client_becomes_a_metric(gateway, engine):
    """Labels are names of the configuration and words of closed lists."""
    word = b"clientword"
    for data in (
        request(body(model="clientword")),
        request(body(user="clientword", clientword="clientword", adapter="clientword")),
        request(
            BODY, *(name + word for name in (b"x-request-id: ", b"user-agent: ", b"clientword: "))
        ),
        request(BODY, b"x-data-residency: " + word),
        at(b"/v1/" + word),
        at(b"/v1/models/" + word, b"GET"),
        at(b"/health", b"PUT"),
    ):
        await exchange(gateway.url, data)
    await gateway.until_idle()
    async with gateway.client.get(f"{gateway.router.admin_url}/metrics") as response:
        page = await response.text()
    assert "requests_total" in page
    assert "clientword" not in page.lower()


# Who means two requests


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(request(chunked(BODY), b"transfer-encoding: chunked"), id="both lengths"),
        pytest.param(
            request(GET, b"content-length: 5", b"transfer-encoding: chunked", length=False),
            id="both lengths, no chunks",
        ),
        pytest.param(in_chunks(b"transfer-encoding: identity"), id="two transfer encodings"),
        pytest.param(
            request(chunked(BODY), b"transfer-encoding: xchunked", length=False), id="xchunked"
        ),
        pytest.param(
            request(chunked(BODY), b"transfer-encoding : chunked", length=False), id="a space"
        ),
        pytest.param(
            request(chunked(BODY), b"transfer-encoding:\x0bchunked", length=False), id="a control"
        ),
        pytest.param(request(BODY + GET, b"content-length: 5"), id="two lengths"),
        *(
            pytest.param(
                request(BODY, b"content-length: " + length, length=False), id=length.decode()
            )
            for length in (b"57, 57", b"+57", b"-1", b"0x39", b"5 7", b"9" * 30)
        ),
        pytest.param(
            request(b"zz\r\nabc\r\n0\r\n\r\n", b"transfer-encoding: chunked", length=False),
            id="a chunk without a length",
        ),
        pytest.param(
            request(b"f" * 20 + b"\r\nabc", b"transfer-encoding: chunked", length=False),
            id="a chunk without end",
        ),
    ],
)
async def test_a_request_of_doubtful_length_ends_its_connection(gateway, engine, data):
    """One refusal, and nothing of what follows is taken for a second request."""
    async with connect(gateway.url) as connection:
        await connection.send(data + GET)
        reply = await connection.reply()
        assert reply.status in (400, 501)
        assert reply.code in ("malformed-request", "not-implemented")
        assert reply.headers["connection"] == "close"
        assert await connection.rest() == b""
    await gateway.until_idle()
    assert not engine.last_body


async def test_a_body_is_never_taken_for_a_request(gateway, engine):
    """What a GET or a POST carries ends where it says, also where it looks like a request."""
    hidden = request(BODY)
    for data, status in (
        (request(hidden, line=b"GET /health HTTP/1.1"), 200),
        (request(hidden, line=b"POST /v1/nothing HTTP/1.1"), 404),
        (request(hidden), 400),
    ):
        async with connect(gateway.url) as connection:
            await connection.send(data)
            assert (await connection.reply()).status == status
            assert await connection.rest() == b""
    await gateway.until_idle()
    assert not engine.last_body


# Who would steer


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param((b"x-heliostat-cluster: pool:elsewhere",), id="cluster"),
        pytest.param((b"X-HELIOSTAT-CLUSTER: pool:elsewhere",), id="cluster, in capitals"),
        pytest.param((b"x-heliostat-cluster: peer:west",), id="region"),
        pytest.param((b"x-heliostat-ticket: 1", b"x-heliostat-ticket: 2"), id="ticket"),
        pytest.param((b"x-heliostat-pool: elsewhere",), id="pool"),
        pytest.param((b"x-heliostat-origin: gw", b"x-heliostat-hold: 3000"), id="peer's terms"),
        pytest.param((b"x-heliostat-residency: nowhere",), id="peer's residency"),
        pytest.param((b"x-heliostat-entrance: federation",), id="entrance"),
        pytest.param((b"x-heliostat-declaration: x",), id="declaration"),
        pytest.param((b"x-kept-x-heliostat-origin: gw",), id="what is set aside for peers"),
        pytest.param((b"x-gateway-destination-endpoint: ELSEWHERE",), id="endpoint"),
        pytest.param((b"x-gateway-destination-endpoint-subset: ELSEWHERE",), id="subset"),
        pytest.param((b"x-forwarded-client-cert: URI=spiffe://x",), id="identity"),
        pytest.param((b"x-envoy-max-retries: 0", b"x-envoy-retry-on: none"), id="retries"),
        pytest.param((b"x-envoy-upstream-rq-timeout-ms: 1",), id="time-out"),
        pytest.param((b"x-envoy-original-path: /metrics",), id="path"),
        pytest.param((b"x-envoy-internal: true", b"x-envoy-ratelimited: true"), id="Envoy's own"),
        pytest.param((b"connection: x-heliostat-ticket, content-length",), id="hop by hop"),
        pytest.param((b"x-http-method-override: GET",), id="method"),
        pytest.param((b"x-original-url: /metrics", b"x-rewrite-url: /metrics"), id="URL"),
    ],
)
async def test_what_a_client_says_of_the_way_has_no_effect(gateway, engine, engines, fields):
    """The request goes where its model is, is retried, measured and finished as any other."""
    other = await engines()
    await gateway.add_pool("elsewhere", other.address)
    fields = [field.replace(b"ELSEWHERE", other.address.encode()) for field in fields]
    for data in (
        request(BODY, *fields),
        in_chunks(trailers=b"".join(field + b"\r\n" for field in fields)),
    ):
        reply = await exchange(gateway.url, data)
        assert (reply.status, json.loads(reply.content)["served_by"]) == (200, engine.address)
        ticket = engine.last_headers["x-heliostat-ticket"]
        assert len(ticket) > 10, "the router's own"
        said = dict(field.decode().lower().split(": ") for field in fields)
        kept = {name for name, value in said.items() if engine.last_headers.get(name) == value}
        assert not [name for name in kept if name.startswith(STRIPPED)]
    await gateway.until_idle()


# Who is slow


async def test_who_never_ends_a_request_is_cut_off_and_holds_up_nobody(start_gateway, engines):
    """Headers or bodies that come byte by byte end with 408, while others are served as ever."""
    engine = await engines()
    stubborn = {
        "headers": request(BODY)[:40],
        "a header that grows": b"POST / HTTP/1.1\r\nx: ",
        "a body": request(BODY)[:-50],
        "chunks": request(b"fff\r\n", b"transfer-encoding: chunked", length=False),
        "a body that is awaited": request(BODY, b"expect: 100-continue")[: -len(BODY)],
    }

    async with start_gateway(
        request_headers_timeout_seconds=0.4, request_timeout_seconds=0.8
    ) as own:

        async def drip(connection):
            while True:
                await connection.send(b"1")
                await asyncio.sleep(0.05)

        async def suffer(start):
            async with connect(own.url) as connection:
                await connection.send(start)
                dripping = asyncio.create_task(drip(connection))
                try:
                    reply = await connection.reply()
                    if reply.status == 100:
                        reply = await connection.reply()
                    return reply.status, reply.code
                finally:
                    dripping.cancel()

        await own.add_pool("m", engine.address)
        slow = [asyncio.create_task(suffer(start)) for start in [*stubborn.values()] * 10]
        served = 0
        while not all(task.done() for task in slow):
            assert (await own.chat("m")).status == 200
            served += 1
        assert set(await asyncio.gather(*slow)) == {(408, "client-too-slow")}
        assert served > 20
        await own.until_idle()
        assert engine.served == served


# Who sends much


async def test_the_largest_body_is_served_and_one_byte_more_is_not(start_gateway, engines):
    """32 MiB by default: whether the length is declared or not."""
    engine = await engines()
    limit_bytes = 32 * 1024 * 1024
    content = b'{"model":"m","prompt":"%s"}' % (b"x" * (limit_bytes - 25))
    assert len(content) == limit_bytes

    async with start_gateway(body_limit_bytes=limit_bytes, message_timeout_seconds=10) as own:

        async def post(data):
            async with own.client.post(own.url + "/v1/chat/completions", data=data) as response:
                return response.status

        async def pieces(data):
            for start in range(0, len(data), 1024 * 1024):
                yield data[start : start + 1024 * 1024]

        await own.add_pool("m", engine.address)
        assert await post(pieces(content)) == 200
        assert len(engine.last_body["prompt"]) == limit_bytes - 25
        assert await post(content + b" ") == 413
        assert await post(pieces(content + b" ")) == 413
        await own.until_idle()
        assert engine.served == 1
