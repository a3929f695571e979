"""The same handler in a server of grpcio, for callers that are not the router's own Envoy."""

from typing import Any, NoReturn, TypeAlias

import grpc

from heliostat_extproc.grpc_streams.message_stream import Handler

_Context: TypeAlias = grpc.aio.ServicerContext[bytes, bytes]


def generic_handler(path: str, handler: Handler) -> "grpc.GenericRpcHandler[Any, Any]":
    """Register a handler by its path, `/SERVICE/METHOD`, without (de)serialisers."""

    async def serve(_messages: object, context: _Context) -> None:
        await handler(_Stream(context))

    _, service, method = path.split("/")
    methods = {method: grpc.stream_stream_rpc_method_handler(serve)}
    return grpc.method_handlers_generic_handler(service, methods)


class _Stream:
    """A call of grpcio's as `MessageStream`."""

    def __init__(self, context: _Context) -> None:
        self._context = context

    async def read(self) -> bytes | None:
        message = await self._context.read()
        return message if isinstance(message, bytes) else None

    async def write(self, message: bytes) -> None:
        await self._context.write(message)

    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        await self._context.abort(code, details)
        raise AssertionError("abort has not raised")

    def metadata(self, name: str) -> str:
        metadata = self._context.invocation_metadata() or ()
        return ",".join(str(value) for key, value in metadata if key == name)
