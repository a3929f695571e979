"""Sends one request and says how it ended; no failure of the service escapes as an exception."""

import time
from collections.abc import Sequence

import aiohttp

from heliostat_cli.loading.histogram import DurationHistogram
from heliostat_cli.loading.options import GatewayError, LoadOptions
from heliostat_cli.loading.report import Outcome
from heliostat_cli.loading.wire import AnswerReader, encode_request, error_code

_HEADERS = {"Content-Type": "application/json", "Accept": "text/event-stream"}
_MAX_ERROR_BYTES = 65_536


class Client:
    """Chat completions at one URL."""

    def __init__(self, http: aiohttp.ClientSession, url: str, model: str) -> None:
        self._http = http
        self._url = f"{url.rstrip('/')}/v1/chat/completions"
        self._model = model

    async def ask(
        self,
        messages: Sequence[bytes],
        output_tokens: int,
        token_gaps: DurationHistogram,
        keep_text: bool,
        due_at: float | None = None,
    ) -> Outcome:
        """Send one request and read its whole answer.

        Times count from `due_at` (by `time.perf_counter`) where the request had its time, so that
        a late sender does not flatter the service; else from now.
        """
        sent_at = time.perf_counter() if due_at is None else due_at
        body = encode_request(self._model, messages, output_tokens)
        reader = AnswerReader(token_gaps, keep_text)
        answered = False
        try:
            async with self._http.post(self._url, data=body, headers=_HEADERS) as response:
                answered = True
                if response.status != 200:
                    return Outcome(failure=await _refusal(response))
                async for piece in response.content.iter_any():
                    reader.feed(piece, time.perf_counter())
        except TimeoutError:
            return Outcome(failure="timeout")
        except aiohttp.ClientConnectorError:
            return Outcome(failure="connection", connected=False)
        except (aiohttp.ClientError, OSError):
            cut = "truncated-stream" if answered else "connection"
            return Outcome(failure=reader.failure or cut)
        return _outcome(reader, sent_at, time.perf_counter())


async def _refusal(response: aiohttp.ClientResponse) -> str:
    code = error_code(await response.content.read(_MAX_ERROR_BYTES))
    return f"{response.status} {code}" if code else str(response.status)


def _outcome(reader: AnswerReader, sent_at: float, ended_at: float) -> Outcome:
    if reader.failure is not None:
        return Outcome(failure=reader.failure)
    if not reader.is_done:
        return Outcome(failure="truncated-stream")
    if reader.first_content_at is None:
        return Outcome(failure="no-output")
    usage = reader.usage
    return Outcome(
        ttft_seconds=reader.first_content_at - sent_at,
        e2e_seconds=ended_at - sent_at,
        prompt_tokens=usage.prompt_tokens if usage else 0,
        output_tokens=usage.output_tokens if usage else reader.content_chunks,
        cached_tokens=usage.cached_tokens if usage else None,
        escaped_text=reader.escaped_text,
    )


async def fetch_model(http: aiohttp.ClientSession, options: LoadOptions) -> str:
    """The model to ask for: the one of the options, else the first that the gateway lists.

    Raises GatewayError if nothing answers at the URL, or if no model is known.
    """
    url = f"{options.url.rstrip('/')}/v1/models"
    try:
        async with http.get(url, timeout=aiohttp.ClientTimeout(total=10)) as response:
            if options.model is not None:
                return options.model
            if response.status != 200:
                raise GatewayError(f"{url} answers {response.status}: name the model with --model")
            listing = await response.json(content_type=None)
    except (aiohttp.ClientConnectionError, OSError) as error:
        raise GatewayError(
            f"nothing answers at {options.url}: start `heliostat gateway`, or `heliostat engine`"
            " for one engine alone, and name its address with --url"
        ) from error
    except (aiohttp.ClientError, ValueError) as error:
        raise GatewayError(f"{url} answers something that is not OpenAI's API: {error}") from error
    try:
        return str(listing["data"][0]["id"])
    except (LookupError, TypeError) as error:
        raise GatewayError(f"{url} lists no model: name one with --model") from error
