"""The server and a client of grpcio's understand each other."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from heliostat_extproc.grpc_streams.message_stream import Limits, MessageStream
from heliostat_extproc.grpc_streams.server import StreamServer
from heliostat_extproc.unix_socket import SocketTakenError

PATH = "/test.Service/Talk"
LARGEST_BYTES = 32 * 1024 * 1024
DEADLINE_SECONDS = 20

Serve = Callable[[MessageStream], Awaitable[None]]


async def echo(stream: MessageStream) -> None:
    """Send back whatever comes."""
    while (message := await stream.read()) is not None:
        await stream.write(message)


@asynccontextmanager
async def talking(
    folder: Path, handler: Serve
) -> AsyncIterator[tuple[StreamServer, grpc.aio.Channel]]:
    """Run a server with this handler, and a client's channel."""
    server = StreamServer({PATH: handler}, Limits(LARGEST_BYTES))
    await server.start(folder / "s.sock")
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(f"unix:{folder}/s.sock", options=options) as channel:
        async with asyncio.timeout(DEADLINE_SECONDS):
            yield server, channel
    await server.stop(0.0)


async def answers_to(
    call: grpc.aio.StreamStreamCall[bytes, bytes], *messages: bytes
) -> list[bytes]:
    """Say all of this, and hear all that comes."""
    for message in messages:
        await call.write(message)
    await call.done_writing()
    heard = []
    while isinstance(answer := await call.read(), bytes):
        heard.append(answer)
    return heard


async def test_messages_come_back_in_order(tmp_path: Path) -> None:
    """Empty ones, small ones, and one beyond every window."""
    sizes = (0, 1, 5, 16_379, 16_380, 65_535, 70_000, 20_000_000, 3)
    messages = [bytes([size % 251]) * size for size in sizes]
    async with talking(tmp_path, echo) as (_, channel):
        call = channel.stream_stream(PATH)()
        assert await answers_to(call, *messages) == messages
        assert await call.code() is grpc.StatusCode.OK


async def test_many_calls_at_once(tmp_path: Path) -> None:
    """Two hundred, each with its own messages, some too large for one frame."""
    async with talking(tmp_path, echo) as (_, channel):
        said = [[b"%d-%d" % (n, m) * (1 + 9000 * (n % 3)) for m in range(5)] for n in range(200)]
        heard = await asyncio.gather(
            *(answers_to(channel.stream_stream(PATH)(), *messages) for messages in said)
        )
    assert heard == said


async def test_the_caller_is_heard_beside_its_messages(tmp_path: Path) -> None:
    """Metadata comes, also where a block has come before; what is not said is empty."""

    async def tell(stream: MessageStream) -> None:
        await stream.write(f"{stream.metadata('entrance')}|{stream.metadata('other')}".encode())

    async with talking(tmp_path, tell) as (_, channel):
        for entrance in ("a", "a", "b", "a", "b"):
            said = (("entrance", entrance),)
            assert await answers_to(channel.stream_stream(PATH)(metadata=said)) == [
                f"{entrance}|".encode()
            ]


async def test_a_caller_that_leaves_cancels(tmp_path: Path) -> None:
    """What serves it ends, and says nothing more."""
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait(stream: MessageStream) -> None:
        begun.set()
        try:
            await stream.read()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.set()
            raise

    async with talking(tmp_path, wait) as (_, channel):
        call = channel.stream_stream(PATH)()
        await call.write(b"x")
        await begun.wait()
        call.cancel()
        await ended.wait()


@pytest.mark.parametrize("details", ["no", "100 % wrong: ümläut\nand more"])
async def test_a_status_arrives(tmp_path: Path, details: str) -> None:
    """With its details, before and after a first answer."""

    async def refuse(stream: MessageStream) -> None:
        if await stream.read() == b"answer first":
            await stream.write(b"well")
        await stream.abort(grpc.StatusCode.INVALID_ARGUMENT, details)

    async with talking(tmp_path, refuse) as (_, channel):
        for first in (b"answer first", b"do not"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await answers_to(channel.stream_stream(PATH)(), first)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert caught.value.details() == details


async def test_a_failure_ends_its_call_alone(tmp_path: Path) -> None:
    """The others go on, and so does the connection."""

    async def serve(stream: MessageStream) -> None:
        if await stream.read() == b"fail":
            raise RuntimeError("on purpose")
        await echo(stream)

    async with talking(tmp_path, serve) as (_, channel):
        other = channel.stream_stream(PATH)()
        await other.write(b"first")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answers_to(channel.stream_stream(PATH)(), b"fail")
        assert caught.value.code() is grpc.StatusCode.INTERNAL
        assert await answers_to(other, b"more") == [b"more"]


async def test_what_is_not_served_is_said(tmp_path: Path) -> None:
    """An unknown method, and a message that is too large."""
    async with talking(tmp_path, echo) as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answers_to(channel.stream_stream(PATH)(), b"x" * (LARGEST_BYTES + 1))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    server = StreamServer({}, Limits(LARGEST_BYTES))
    await server.start(tmp_path / "none.sock")
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/none.sock") as channel:
        call = channel.stream_stream(PATH)()
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
        assert await call.details() == f"no {PATH}"
    await server.stop(0.0)


async def test_a_server_that_stops_lets_calls_end(tmp_path: Path) -> None:
    """Within its grace; those that stay are cancelled."""
    async with talking(tmp_path, echo) as (server, channel):
        ending, staying = channel.stream_stream(PATH)(), channel.stream_stream(PATH)()
        for call in (ending, staying):
            await call.write(b"x")
            assert await call.read() == b"x"
        stopping = asyncio.create_task(server.stop(0.5))
        assert await answers_to(ending, b"last") == [b"last"]
        await stopping
        assert await staying.code() is grpc.StatusCode.CANCELLED


async def test_a_socket_is_taken_from_nobody_who_listens(tmp_path: Path) -> None:
    """A second server fails and leaves the first one's path; one that died is replaced."""
    path = tmp_path / "s.sock"
    async with talking(tmp_path, echo) as (_, channel):
        second = StreamServer({PATH: echo}, Limits(LARGEST_BYTES))
        with pytest.raises(SocketTakenError, match="somebody else listens"):
            await second.start(path)
        await second.stop(0.0)
        assert await answers_to(channel.stream_stream(PATH)(), b"x") == [b"x"]
        assert path.is_socket()
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    third = StreamServer({PATH: echo}, Limits(LARGEST_BYTES))
    await third.start(path)
    path.unlink()
    fourth = StreamServer({PATH: echo}, Limits(LARGEST_BYTES))
    await fourth.start(path)
    await third.stop(0.0)
    assert path.is_socket(), "it is the fourth's by now"
    await fourth.stop(0.0)
    assert not path.exists()


async def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    """A file of someone's is not a socket that was left behind."""
    path = tmp_path / "s.sock"
    path.write_text("mine")
    with pytest.raises(SocketTakenError, match="no socket"):
        await StreamServer({}, Limits(LARGEST_BYTES)).start(path)
    assert path.read_text() == "mine"
