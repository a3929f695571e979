"""The protobuf classes of the hot path.

Generated modules build their classes at import, where no type checker sees them: here they get
names once.
"""

from types import ModuleType

from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.http.ext_proc.v3 import processing_mode_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2

_core: ModuleType = base_pb2
_modes: ModuleType = processing_mode_pb2
_ext_proc: ModuleType = external_processor_pb2

HeaderValueOption = _core.HeaderValueOption
ProcessingMode = _modes.ProcessingMode
ProcessingRequest = _ext_proc.ProcessingRequest
ProcessingResponse = _ext_proc.ProcessingResponse
