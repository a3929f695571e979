"""vLLM's --api-key: every path below /v1 wants it, the others do not."""

import secrets

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

_UNAUTHORIZED = msgspec.json.encode({"error": "Unauthorized"})


def require_api_key(api_key: str) -> Middleware:
    """Return a middleware that answers 401 to whoever lacks the key."""
    expected = f"Bearer {api_key}".encode()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode()
        if request.path.startswith("/v1") and not secrets.compare_digest(given, expected):
            return web.Response(status=401, body=_UNAUTHORIZED, content_type="application/json")
        return await handler(request)

    return check
