"""Tenants at a real Envoy: who is let in, by key or token, for how much, and what engines see."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from heliostat_extproc.envoy.client_identity import TokenSettings

pytestmark = [pytest.mark.gateway, pytest.mark.asyncio(loop_scope="module")]

MODEL = "chat"
ACME, OTHER, NEW = "sk-acme-0123456789", "sk-other-0123456789", "sk-new-0123456789ab"
DEADLINE_SECONDS = 20.0


def declare(file, text: str) -> None:
    """Replace the file of tenants in one step."""
    draft = file.with_suffix(".draft")
    draft.write_text(text)
    draft.rename(file)


async def ask(gateway, model: str = MODEL, **headers: str) -> tuple[int, dict[str, str], Any]:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    url = gateway.url + "/v1/chat/completions"
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    async with gateway.client.post(url, json=body, headers=sent) as response:
        received = {name.lower(): value for name, value in response.headers.items()}
        return response.status, received, await response.json()


def bearer(key: str) -> str:
    return f"Bearer {key}"


async def test_only_tenants_are_let_in(start_gateway, engines, tmp_path):
    """Without a key, or with a wrong one, there is an error of the API's shape; engines see no
    key and no tenant, and what a client says of its tenant has no effect."""
    file, engine = tmp_path / "tenants.yaml", await engines()
    declare(file, f"tenants: [{{name: acme, keys: [{ACME}]}}, {{name: other, inflightLimit: 1}}]")
    async with start_gateway(tenants_file=file) as own:
        await own.add_pool(MODEL, engine.address)
        for headers in ({}, {"authorization": bearer("wrong")}, {"x_api_key": "wrong"}):
            status, sent, body = await ask(own, **headers)
            assert status == 401
            assert sent["x-heliostat-reason"] == body["error"]["code"] == "unauthenticated"
            assert body["error"]["type"] == "authentication_error"
            assert sent["www-authenticate"] == "Bearer"
        both = {"authorization": bearer(ACME), "x_api_key": "another"}
        for headers in ({"authorization": bearer(ACME)}, {"x_api_key": ACME}, both):
            status, _, _ = await ask(own, **headers, x_heliostat_tenant="other")
            assert status == 200
            assert not {"authorization", "x-api-key", "x-heliostat-tenant"} & set(
                engine.last_headers
            )
        text = await metrics(own)
        assert 'tenant_requests_total{outcome="admitted",tenant="acme"} 3.0' in text
        assert 'tenant="other"' not in text
        async with own.client.get(own.url + "/v1/models") as response:
            assert response.status == 401


async def test_keys_are_rotated_under_way(start_gateway, engines, tmp_path):
    """A new key is good and an old one is not once the file says so; what runs goes on."""
    file, engine = tmp_path / "tenants.yaml", await engines()
    declare(file, f"tenants: [{{name: acme, keys: [{ACME}]}}]")
    async with start_gateway(tenants_file=file) as own:
        await own.add_pool(MODEL, engine.address)
        engine.release.clear()
        running = asyncio.create_task(ask(own, authorization=bearer(ACME)))
        async with asyncio.timeout(DEADLINE_SECONDS):
            while own.view(MODEL).inflight == 0:  # noqa: ASYNC110 - a view is asked
                await asyncio.sleep(0.01)
        declare(file, f"tenants: [{{name: acme, keys: [{NEW}]}}]")
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (await ask(own, "none", authorization=bearer(NEW)))[0] != 404:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert (await ask(own, "none", authorization=bearer(ACME)))[0] == 401
        engine.release.set()
        assert (await running)[0] == 200
        declare(file, "tenants: broken")
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not await problems(own):  # noqa: ASYNC110 - a report is polled
                await asyncio.sleep(0.05)
        assert (await ask(own, authorization=bearer(NEW)))[0] == 200
        declare(file, "tenants: []")
        async with asyncio.timeout(DEADLINE_SECONDS):
            while (await ask(own, authorization=bearer(NEW)))[0] != 401:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def test_a_tenant_is_held_to_its_limits(start_gateway, engines, tmp_path):
    """What is beyond them is refused with a Retry-After, at once, and another tenant is not."""
    file, engine = tmp_path / "tenants.yaml", await engines()
    declare(
        file,
        f"tenants: [{{name: acme, keys: [{ACME}], inflightLimit: 2}},"
        f" {{name: other, keys: [{OTHER}], requestsPerMinute: 2, burst: 2}}]",
    )
    async with start_gateway(tenants_file=file) as own:
        await own.add_pool(MODEL, engine.address)
        engine.release.clear()
        acme, other = {"authorization": bearer(ACME)}, {"authorization": bearer(OTHER)}
        running = [asyncio.create_task(ask(own, **acme)) for _ in range(2)]
        async with asyncio.timeout(DEADLINE_SECONDS):
            while own.view(MODEL).inflight + own.view(MODEL).queued < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        status, sent, _ = await ask(own, **acme)
        assert (status, sent["x-heliostat-reason"]) == (429, "inflight-limited")
        engine.release.set()
        assert [(await one)[0] for one in running] == [200, 200]
        await own.until_idle()
        assert (await ask(own, **acme))[0] == 200
        assert [(await ask(own, **other))[0] for _ in range(3)] == [200, 200, 429]
        status, sent, _ = await ask(own, **other)
        assert (status, sent["x-heliostat-reason"]) == (429, "rate-limited")
        assert 25 <= int(sent["retry-after"]) <= 30
        told = own.router.observation.stories(None, 10)
        limited = {
            one["tenant"]: one["outcome"] for one in told if "limited" in str(one["outcome"])
        }
        assert limited == {"acme": "inflight-limited", "other": "rate-limited"}
        assert {one["tenant"] for one in told if one["pool"]} == {"acme", "other"}


async def test_a_tenants_residency_binds_its_requests(start_gateway, engines, tmp_path):
    """Confined to another region, its requests are refused here, also while the router is away; it
    cannot widen that itself."""
    file, engine = tmp_path / "tenants.yaml", await engines()
    declare(file, f"tenants: [{{name: acme, keys: [{ACME}], residency: [eu]}}]")
    async with start_gateway(tenants_file=file) as own:
        await own.add_pool(MODEL, engine.address)
        for more in ({}, {"x_data_residency": "us"}, {"x_data_residency": "eu"}):
            status, sent, _ = await ask(own, authorization=bearer(ACME), **more)
            assert (status, sent["x-heliostat-reason"]) == (421, "residency")
        await own.router.stop()
        status, sent, _ = await ask(own, authorization=bearer(ACME))
        assert (status, sent["x-heliostat-reason"]) == (503, "router-unavailable")


async def test_tokens_name_the_tenant(start_gateway, engines, tmp_path):
    """A token of the issuer lets its tenant in; another issuer's, an old one, one for somebody
    else, one without end, one in a URL and one of an unknown tenant do not; with the router away,
    which alone knows the tenants, nobody is let in."""
    file, engine = tmp_path / "tenants.yaml", await engines()
    declare(file, "tenants: [{name: acme}]")
    key, foreign = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    claims = {"iss": "https://id.example", "aud": "heliostat", "org": "acme"}
    claims["exp"] = str(int(time.time()) + 600)
    async with issuer(key) as keys_url:
        tokens = TokenSettings("https://id.example", keys_url, ("heliostat",), tenant_claim="org")
        async with start_gateway(tenants_file=file, tokens=tokens) as own:
            await own.add_pool(MODEL, engine.address)
            good = token(key, claims)
            async with asyncio.timeout(DEADLINE_SECONDS):
                while (await ask(own, authorization=bearer(good)))[0] != 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert "authorization" not in engine.last_headers
            old = token(key, claims | {"exp": str(int(time.time()) - 600)})
            elsewhere = token(key, claims | {"aud": "other"})
            for wrong in (token(foreign, claims), old, elsewhere, "no-token", ACME):
                status, sent, body = await ask(own, authorization=bearer(wrong))
                assert (status, body["error"]["code"]) == (401, "unauthenticated")
                assert sent["x-heliostat-reason"] == "unauthenticated"
                assert sent["www-authenticate"].startswith("Bearer realm=")
            endless = {name: value for name, value in claims.items() if name != "exp"}
            assert (await ask(own, authorization=bearer(token(key, endless))))[0] == 401
            async with own.client.get(own.url + f"/v1/models?access_token={good}") as response:
                assert response.status == 401
            stranger = bearer(token(key, claims | {"org": "nobody"}))
            status, sent, _ = await ask(own, authorization=stranger)
            assert (status, sent["x-heliostat-reason"]) == (403, "unknown-tenant")
            sent = {"authorization": stranger}
            async with own.client.get(own.url + "/v1/models", headers=sent) as response:
                assert response.status == 403
            await own.router.stop()
            for one in (stranger, bearer(good)):
                status, sent, _ = await ask(own, authorization=one)
                assert (status, sent["x-heliostat-reason"]) == (503, "router-unavailable")


async def metrics(gateway) -> str:
    async with gateway.client.get(gateway.router.admin_url + "/metrics") as response:
        return await response.text()


async def problems(gateway) -> list[str]:
    async with gateway.client.get(gateway.router.admin_url + "/pools") as response:
        found: list[str] = (await response.json())["problems"]
    return found


@asynccontextmanager
async def issuer(key: ec.EllipticCurvePrivateKey) -> AsyncIterator[str]:
    """Serve the key set of an issuer."""
    numbers = key.public_key().public_numbers()
    jwk = {"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "1", "use": "sig"}
    jwk |= {"x": encoded(numbers.x.to_bytes(32)), "y": encoded(numbers.y.to_bytes(32))}

    async def serve(_request: web.Request) -> web.Response:
        return web.json_response({"keys": [jwk]})

    application = web.Application()
    application.router.add_get("/keys", serve)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        port = runner.addresses[0][1]
        yield f"http://127.0.0.1:{port}/keys"
    finally:
        await runner.cleanup()


def token(key: ec.EllipticCurvePrivateKey, claims: dict[str, str]) -> str:
    """Sign a token (RFC 7519) with ES256."""
    body = {name: int(value) if name == "exp" else value for name, value in claims.items()}
    parts = ({"alg": "ES256", "typ": "JWT", "kid": "1"}, body)
    signed = ".".join(encoded(json.dumps(part).encode()) for part in parts)
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{encoded(r.to_bytes(32) + s.to_bytes(32))}"


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
