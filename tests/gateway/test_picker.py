"""The endpoint picker over TCP, as gateways of others ask it, by a real gRPC client."""

import asyncio
import platform
import ssl
from datetime import UTC, datetime

import grpc
import pytest
from envoy.service.ext_proc.v3 import external_processor_pb2 as ext_proc
from envoy.service.ext_proc.v3.external_processor_pb2_grpc import ExternalProcessorStub
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from heliostat_extproc.certificates import CertificateFiles, make_self_signed
from heliostat_extproc.ext_proc_wire import PROCESSOR_SERVICE
from heliostat_extproc.listeners import PickerAddress
from heliostat_extproc.process import RouterStartError

pytestmark = [pytest.mark.gateway, pytest.mark.asyncio(loop_scope="module")]

SERVING = health_pb2.HealthCheckResponse.SERVING
DEADLINE_SECONDS = 20.0


def channel(port, certificate, name):
    """A client that trusts this certificate alone."""
    credentials = grpc.ssl_channel_credentials(certificate)
    options = [("grpc.ssl_target_name_override", name), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options)


async def health(client, service):
    request = health_pb2.HealthCheckRequest(service=service)
    return (await HealthStub(client).Check(request, timeout=5)).status


async def pick(client, model):
    """Ask as a gateway does, held for a while or not; give the answer to the body."""
    stream = ExternalProcessorStub(client).Process(timeout=DEADLINE_SECONDS)
    await stream.write(conversation_headers())
    await stream.read()
    body = b'{"model": "%s", "messages": []}' % model.encode()
    await stream.write(
        ext_proc.ProcessingRequest(request_body=ext_proc.HttpBody(body=body, end_of_stream=True))
    )
    answer = await stream.read()
    while answer.HasField("override_message_timeout"):
        answer = await stream.read()
    await stream.done_writing()
    return answer


def conversation_headers():
    message = ext_proc.ProcessingRequest()
    for key, value in ((":method", "POST"), (":path", "/v1/chat/completions")):
        message.request_headers.headers.headers.add(key=key, raw_value=value.encode())
    message.protocol_config.request_body_mode = 2
    return message


async def fetch_certificate(port):
    """Take whatever certificate is served, as a gateway that verifies nothing."""
    fetched = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
    return fetched.encode()


async def test_a_gateway_may_ask_over_tls(start_gateway, engines, free_port):
    """Without files the certificate is the router's own; health and picks come over it."""
    engine = await engines()
    picker = PickerAddress(f"127.0.0.1:{free_port}", tls=True)
    async with start_gateway(picker=picker) as own:
        await own.add_pool("m", engine.address)
        certificate = await fetch_certificate(free_port)
        async with channel(free_port, certificate, platform.node()) as client:
            for service in ("", "liveness", "readiness", PROCESSOR_SERVICE):
                assert await health(client, service) == SERVING
            answer = await pick(client, "m")
        metadata = answer.dynamic_metadata["envoy.lb"]
        assert metadata["x-gateway-destination-endpoint"] == engine.address
        await own.until_idle()


async def test_the_engines_key_is_not_told_over_the_network(
    start_gateway, engines, tmp_path, free_port
):
    """Anyone who reaches the picker could ask for it; the router's own Envoy sends it."""
    engine = await engines()
    file = tmp_path / "api-key"
    file.write_text("secret-key")
    picker = PickerAddress(f"127.0.0.1:{free_port}")
    async with start_gateway(picker=picker, engine_key_file=file) as own:
        await own.add_pool("m", engine.address)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{free_port}") as client:
            answer = await pick(client, "m")
        assert answer.request_body.response.header_mutation.set_headers
        assert b"secret-key" not in answer.SerializeToString()
        assert (await own.chat("m")).status == 200
        assert engine.last_headers["authorization"] == "Bearer secret-key"


@pytest.mark.parametrize("tls", [False, True])
async def test_over_the_network_there_is_the_picker_alone(start_gateway, free_port, tls):
    """Configuration and access logs are for the router's own Envoy: others could mislead it."""
    async with start_gateway(picker=PickerAddress(f"127.0.0.1:{free_port}", tls=tls)):
        if tls:
            client = channel(free_port, await fetch_certificate(free_port), platform.node())
        else:
            client = grpc.aio.insecure_channel(f"127.0.0.1:{free_port}")
        async with client:
            assert await health(client, "readiness") == SERVING
            for method in (
                "envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
                "envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs",
            ):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await client.stream_stream(f"/{method}")(iter(())).read()
                assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def write_pair(folder, name):
    pair = make_self_signed(name, datetime.now(UTC))
    (folder / "tls.crt").write_bytes(pair.certificate)
    (folder / "tls.key").write_bytes(pair.key)
    return pair


async def test_a_new_certificate_is_served_without_restart(start_gateway, tmp_path, free_port):
    """Each connection gets the files as they are; while they do not fit, the last that did."""
    first = write_pair(tmp_path, "one.example")
    files = CertificateFiles(tmp_path / "tls.crt", tmp_path / "tls.key")
    picker = PickerAddress(f"127.0.0.1:{free_port}", tls=True, certificate=files)
    async with (
        start_gateway(picker=picker),
        channel(free_port, first.certificate, "one.example") as client,
    ):
        assert await health(client, "") == SERVING
        second = make_self_signed("two.example", datetime.now(UTC))
        files.certificate.write_bytes(second.certificate)
        async with channel(free_port, first.certificate, "one.example") as another:
            assert await health(another, "") == SERVING
        files.key.write_bytes(second.key)
        async with channel(free_port, second.certificate, "two.example") as renewed:
            assert await health(renewed, "") == SERVING
        assert await health(client, "") == SERVING


async def test_files_that_do_not_fit_are_refused_at_the_start(start_gateway, tmp_path, free_port):
    """The error says which file is wrong."""
    write_pair(tmp_path, "one.example")
    other = make_self_signed("two.example", datetime.now(UTC))
    (tmp_path / "tls.key").write_bytes(other.key)
    files = CertificateFiles(tmp_path / "tls.crt", tmp_path / "tls.key")
    picker = PickerAddress(f"127.0.0.1:{free_port}", tls=True, certificate=files)
    with pytest.raises(RouterStartError, match=r"tls\.key is not the key of"):
        async with start_gateway(picker=picker):
            pass
