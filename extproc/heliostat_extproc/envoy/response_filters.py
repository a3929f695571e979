"""The filters that read answers on their way, for the access log; they hold and change nothing."""

from dataclasses import dataclass
from pathlib import Path

import betterproto2
from envoy_data_plane.envoy.config.core.v3 import DataSource
from envoy_data_plane.envoy.extensions.filters.http.lua.v3 import Lua
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.google.protobuf import Any, Struct
from envoy_data_plane.message_pool import default_message_pool

from heliostat_extproc.envoy import wire

_STREAM_ERROR_SCRIPT = Path(__file__).with_name("stream_error.lua")


@dataclass(eq=False, repr=False)
class TypedStruct(betterproto2.Message):
    """`xds.type.v3.TypedStruct`: the configuration of a filter newer than the typed messages."""

    type_url: str = betterproto2.field(1, betterproto2.TYPE_STRING)
    value: Struct | None = betterproto2.field(  # noqa: RUF009 - how betterproto2 declares fields
        2, betterproto2.TYPE_MESSAGE, optional=True
    )


default_message_pool.register_message("xds.type.v3", "TypedStruct", TypedStruct)


def token_usage_filter() -> HttpFilter:
    """Read the token counts that an answer reports."""
    extraction = {
        "include_unconfigured_routes": True,
        "default_llm_protocol": "OPENAI_CHAT_COMPLETIONS",
        "metadata_namespace": wire.USAGE_NAMESPACE,
    }
    manager = TypedStruct(
        type_url="type.googleapis.com/"
        "envoy.extensions.filters.http.ai_protocol_manager.v3.AiProtocolManager",
        value=Struct.from_dict({"response_handling": {"token_usage": extraction}}),
    )
    return HttpFilter(name="envoy.filters.http.ai_protocol_manager", typed_config=Any.pack(manager))


def stream_error_filter() -> HttpFilter:
    """Read the code of an error that comes as an event of a stream."""
    names = f'local namespace, key = "{wire.STREAM_NAMESPACE}", "{wire.STREAM_ERROR_KEY}"\n'
    script = DataSource(inline_string=names + _STREAM_ERROR_SCRIPT.read_text())
    return HttpFilter(
        name="envoy.filters.http.lua", typed_config=Any.pack(Lua(default_source_code=script))
    )
