"""Names for classes that no type checker sees: generated protobuf code builds them at import."""

from types import ModuleType

from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.http.ext_proc.v3 import processing_mode_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

_core: ModuleType = base_pb2
_modes: ModuleType = processing_mode_pb2
_ext_proc: ModuleType = external_processor_pb2

HeaderValueOption = _core.HeaderValueOption
ProcessingMode = _modes.ProcessingMode
ProcessingRequest = _ext_proc.ProcessingRequest
ProcessingResponse = _ext_proc.ProcessingResponse

_health: ModuleType = health
_health_messages: ModuleType = health_pb2
_health_service: ModuleType = health_pb2_grpc

HealthServicer = _health.aio.HealthServicer
HealthCheckResponse = _health_messages.HealthCheckResponse
add_health_servicer = _health_service.add_HealthServicer_to_server
