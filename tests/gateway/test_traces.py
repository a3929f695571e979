"""Traces through a real Envoy, as a real OTLP receiver gets them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from heliostat_extproc.observing.spans import SPAN_NAME
from heliostat_extproc.observing.trace_settings import TraceSettings

pytestmark = [pytest.mark.gateway, pytest.mark.asyncio(loop_scope="module")]

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
CLIENT_SPAN = "b7ad6b7169203331"


@dataclass
class Receiver:
    """A collector that keeps every span, with the name of the service that has told it."""

    address: str = ""
    spans: list[tuple[str, Any]] = field(default_factory=list)

    def handler(self) -> grpc.GenericRpcHandler:
        """The service by which it is told."""
        method = grpc.unary_unary_rpc_method_handler(
            self.export,
            request_deserializer=trace_service_pb2.ExportTraceServiceRequest.FromString,
            response_serializer=trace_service_pb2.ExportTraceServiceResponse.SerializeToString,
        )
        service = "opentelemetry.proto.collector.trace.v1.TraceService"
        return grpc.method_handlers_generic_handler(service, {"Export": method})

    async def export(self, request, _context):
        for told in request.resource_spans:
            service = attributes(told.resource)["service.name"]
            self.spans += [
                (service, span)
                for scope in told.instrumentation_library_spans
                for span in scope.spans
            ]
        return trace_service_pb2.ExportTraceServiceResponse()

    def of(self, service: str, trace_id: str | None = None) -> list[Any]:
        """The spans of a service, of this trace."""
        return [
            span
            for name, span in self.spans
            if name == service and trace_id in (None, span.trace_id.hex())
        ]


def attributes(owner: Any) -> dict[str, Any]:
    """The attributes of a span, an event or a resource."""
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in owner.attributes}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver on a port of its own."""
    server, receiver = grpc.aio.server(), Receiver()
    server.add_generic_rpc_handlers((receiver.handler(),))
    receiver.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield receiver
    await server.stop(None)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(start_gateway, receiver):
    """A gateway that records the traces of those who have one, and of no others."""
    traces = TraceSettings(receiver.address, sample_ratio=0.0)
    async with start_gateway(traces=traces) as running:
        yield running


async def ask(gateway, pool: str, traceparent: str | None) -> None:
    headers = {} if traceparent is None else {"traceparent": traceparent}
    body = {"model": pool, "messages": [{"role": "user", "content": "Secret words"}]}
    url = gateway.url + "/v1/chat/completions"
    async with gateway.client.post(url, json=body, headers=headers) as response:
        assert response.status == 200


async def test_a_recorded_trace_runs_from_the_client_to_the_engine(
    gateway, engines, receiver, eventually
):
    """Envoy's span is the client's child, the decision one of Envoy's, and the engine another's."""
    engine = await engines()
    await gateway.add_pool("traced", engine.address)
    await gateway.until_waiting("traced", 0)
    await ask(gateway, "traced", f"00-{TRACE_ID}-{CLIENT_SPAN}-01")
    version, trace_id, parent, flags = engine.last_headers["traceparent"].split("-")
    assert (version, trace_id, flags) == ("00", TRACE_ID, "01")
    await eventually(lambda: receiver.of("heliostat-router", TRACE_ID), "the decision is told")
    await eventually(
        lambda: parent in {s.span_id.hex() for s in receiver.of("heliostat-gateway", TRACE_ID)},
        "the span whose id the engine got is told",
    )
    (decision,) = receiver.of("heliostat-router", TRACE_ID)
    proxy = {span.span_id: span for span in receiver.of("heliostat-gateway", TRACE_ID)}
    ancestor = decision
    while ancestor.parent_span_id in proxy:
        ancestor = proxy[ancestor.parent_span_id]
    assert ancestor is not decision
    assert ancestor.parent_span_id.hex() == CLIENT_SPAN
    assert decision.name == SPAN_NAME
    assert ancestor.start_time_unix_nano <= decision.start_time_unix_nano + 5_000_000
    assert decision.start_time_unix_nano <= decision.end_time_unix_nano


async def test_a_decisions_span_has_its_explanation_and_no_word_of_the_prompt(
    gateway, engines, receiver, eventually
):
    """Rule, winner, and an event for each candidate with its costs."""
    first, second = await engines(), await engines()
    await gateway.add_pool("explained-trace", first.address, second.address)
    await gateway.until_waiting("explained-trace", 0)
    trace_id = TRACE_ID[::-1]
    await ask(gateway, "explained-trace", f"00-{trace_id}-{CLIENT_SPAN}-01")
    await eventually(lambda: receiver.of("heliostat-router", trace_id), "the decision is told")
    (span,) = receiver.of("heliostat-router", trace_id)
    told = attributes(span)
    assert told["heliostat.pool"] == "explained-trace"
    assert told["heliostat.rule"] == "least-cost"
    assert told["heliostat.eligible"] == 2
    candidates = {
        attributes(event)["heliostat.endpoint"]: attributes(event) for event in span.events
    }
    assert set(candidates) == {first.address, second.address}
    assert candidates[told["heliostat.winner"]]["heliostat.verdict"] == "won"
    assert all(candidate["heliostat.cost_seconds"] > 0 for candidate in candidates.values())
    assert b"Secret" not in span.SerializeToString()


@pytest.mark.parametrize("traceparent", [None, f"00-{'1' * 32}-{CLIENT_SPAN}-00", "nonsense"])
async def test_nothing_is_told_of_what_nobody_records(
    gateway, engines, receiver, eventually, traceparent
):
    """With nothing sampled here, only a client's own recorded trace is told of."""
    engine = await engines()
    recorded = {span.trace_id.hex() for span in receiver.of("heliostat-router")}
    await gateway.add_pool("untraced", engine.address)
    await gateway.until_waiting("untraced", 0)
    await ask(gateway, "untraced", traceparent)
    assert not engine.last_headers["traceparent"].endswith("-01")
    marker = f"{len(receiver.spans) + 1:032x}"
    await ask(gateway, "untraced", f"00-{marker}-{CLIENT_SPAN}-01")
    await eventually(lambda: receiver.of("heliostat-router", marker), "what came after is told")
    told = [s for s in receiver.of("heliostat-router") if s.trace_id.hex() not in recorded]
    assert [span.trace_id.hex() for span in told] == [marker]
