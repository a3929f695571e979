"""Sends the router's spans to an OpenTelemetry collector: in batches, apart from every request.

The SDK would cost each traced request more than its decision, and two dependencies; all that is
needed here is one call of one service. A collector that is away costs spans, which are counted,
and nothing else.
"""

import asyncio
from collections import deque
from types import ModuleType
from typing import Any

import grpc
import structlog
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from heliostat_extproc.observing.request_record import RequestRecord
from heliostat_extproc.observing.spans import count_decisions, decision_spans, put_attributes
from heliostat_extproc.observing.trace_settings import TraceSettings

MOST_WAITING = 2048
"""Requests whose spans wait to be sent."""
MOST_IN_BATCH = 256
_SEND_SECONDS = 1.0
_TIMEOUT_SECONDS = 5.0
_METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

_messages: ModuleType = trace_service_pb2
_log = structlog.get_logger(__name__)


class SpanExporter:
    """Collects the requests of recorded traces, and sends their spans; `run` does not return.

    xds-protos has the messages under the names of an older OTLP: on the wire an instrumentation
    library is what is called a scope today.
    """

    def __init__(self, settings: TraceSettings, router: str) -> None:
        self._collector = settings.collector
        self._resource = _messages.ExportTraceServiceRequest().resource_spans.add().resource
        put_attributes(
            self._resource,
            {"service.name": f"{settings.service}-router", "service.instance.id": router or None},
        )
        self._waiting: deque[RequestRecord] = deque()
        self._reached = True
        self.lost_spans = 0

    def tell(self, record: RequestRecord) -> None:
        """Send the spans of a request that has ended, soon."""
        if record.trace is None:
            return
        if len(self._waiting) < MOST_WAITING:
            self._waiting.append(record)
        else:
            self.lost_spans += count_decisions(record)

    async def run(self) -> None:
        """Send what there is, again and again, until cancelled."""
        async with grpc.aio.insecure_channel(self._collector) as channel:
            export = channel.unary_unary(
                _METHOD,
                request_serializer=_messages.ExportTraceServiceRequest.SerializeToString,
                response_deserializer=_messages.ExportTraceServiceResponse.FromString,
            )
            try:
                while True:
                    await asyncio.sleep(_SEND_SECONDS)
                    await self._send(export)
            finally:
                await asyncio.shield(self._send(export))

    async def _send(self, export: "grpc.aio.UnaryUnaryMultiCallable[Any, Any]") -> None:
        while self._waiting:
            count = min(len(self._waiting), MOST_IN_BATCH)
            batch = [self._waiting.popleft() for _ in range(count)]
            try:
                await export(self._request(batch), timeout=_TIMEOUT_SECONDS)
                self._reached = True
            except grpc.aio.AioRpcError as error:
                self.lost_spans += sum(map(count_decisions, batch))
                if self._reached:
                    self._reached = False
                    _log.warning("no spans can be sent", reason=error.code().name)
                return
            except Exception:
                self.lost_spans += sum(map(count_decisions, batch))
                _log.exception("spans could not be written")

    def _request(self, batch: list[RequestRecord]) -> Any:
        request = _messages.ExportTraceServiceRequest()
        told = request.resource_spans.add()
        told.resource.CopyFrom(self._resource)
        scope = told.instrumentation_library_spans.add()
        scope.instrumentation_library.name = "heliostat"
        for record in batch:
            scope.spans.extend(decision_spans(record))
        return request
