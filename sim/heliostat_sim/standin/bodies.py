"""How bodies come in and go out, the same for every path."""

import msgspec
from aiohttp import web

from heliostat_sim.standin.requests import Body, parse_body
from heliostat_sim.standin.validation import JSON_TYPE, wrong_content_type


async def read_json(request: web.Request) -> bytes:
    """Return the body. Raises ApiError (400) unless it claims to be JSON."""
    if request.content_type != JSON_TYPE:
        raise wrong_content_type()
    return await request.read()


async def read_body(request: web.Request, body_type: type[Body]) -> Body:
    """Return the typed body. Raises ApiError (400)."""
    return parse_body(await read_json(request), body_type)


def json_answer(body: object) -> web.Response:
    """Return a 200 with this JSON."""
    return web.Response(body=msgspec.json.encode(body), content_type=JSON_TYPE)
