"""What a gateway is answered: the pick in a header and in metadata alike, and bodies in chunks."""

from collections.abc import Iterator, Sequence

from heliostat_extproc.endpoint_picker.names import LARGEST_CHUNK_BYTES
from heliostat_extproc.envoy import wire
from heliostat_extproc.ext_proc_wire import Part, set_header
from heliostat_extproc.upb import ProcessingResponse


def pick_answer(
    part: Part, endpoints: Sequence[str], *, new_length: int | None = None
) -> ProcessingResponse:
    """Name the endpoint and, in order, those for retries, with the answer to this message.

    Without endpoints the choice is the gateway's: what the client may have named is taken off.
    `new_length` is the body's, where it is not as the client sent it.
    """
    response = ProcessingResponse()
    mutation = getattr(response, part).response.header_mutation
    if new_length is not None:
        set_header(mutation.set_headers, "content-length", str(new_length))
    if not endpoints:
        mutation.remove_headers.append(wire.ENDPOINT_KEY)
        return response
    destination = ",".join(endpoints)
    set_header(mutation.set_headers, wire.ENDPOINT_KEY, destination)
    metadata = response.dynamic_metadata.fields[wire.LB_NAMESPACE].struct_value.fields
    metadata[wire.ENDPOINT_KEY].string_value = destination
    return response


def body_answers(part: str, body: bytes, *, end_of_stream: bool) -> Iterator[bytes]:
    """Give a streamed body back in chunks that every gateway takes, one at least."""
    for start in range(0, len(body) or 1, LARGEST_CHUNK_BYTES):
        response = ProcessingResponse()
        chunk = getattr(response, part).response.body_mutation.streamed_response
        chunk.body = body[start : start + LARGEST_CHUNK_BYTES]
        chunk.end_of_stream = end_of_stream and start + LARGEST_CHUNK_BYTES >= len(body)
        yield bytes(response.SerializeToString())
