"""The floor: the least that a picker in Python on the router's own libraries can cost.

It reads both of Envoy's messages and answers each with one that was made at the start, always the
same endpoint. It keeps no account, looks into no body and hears nothing of the answer.

    python bench/gateway_bench/floor.py --socket floor.sock --endpoint 127.0.1.1:9400
"""

import argparse
import asyncio
from typing import Any

import grpc
import uvloop

from heliostat_extproc.ext_proc_wire import PROCESSOR_SERVICE
from heliostat_extproc.upb import HeaderValueOption, ProcessingRequest, ProcessingResponse

ENDPOINT_KEY = "x-gateway-destination-endpoint"
_MESSAGE_BYTES = 256 * 1024 * 1024


def _pass() -> Any:
    response = ProcessingResponse()
    response.request_headers.SetInParent()
    return response


def _pick(endpoint: str) -> Any:
    response = ProcessingResponse()
    option = response.request_body.response.header_mutation.set_headers.add()
    option.append_action = HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
    option.header.key = ENDPOINT_KEY
    option.header.raw_value = endpoint.encode()
    lb = response.dynamic_metadata.fields["envoy.lb"].struct_value.fields
    lb[ENDPOINT_KEY].string_value = endpoint
    return response


async def serve(socket: str, endpoint: str) -> None:
    """Answer until killed."""
    pass_on, pick = _pass(), _pick(endpoint)

    async def process(_messages: object, context: Any) -> None:
        while isinstance(message := await context.read(), ProcessingRequest):
            is_body = message.WhichOneof("request") == "request_body"
            await context.write(pick if is_body else pass_on)

    method = grpc.stream_stream_rpc_method_handler(
        process,
        request_deserializer=ProcessingRequest.FromString,
        response_serializer=ProcessingResponse.SerializeToString,
    )
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", _MESSAGE_BYTES)])
    handler = grpc.method_handlers_generic_handler(PROCESSOR_SERVICE, {"Process": method})
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--endpoint", required=True)
    options = parser.parse_args()
    uvloop.run(serve(options.socket, options.endpoint))
