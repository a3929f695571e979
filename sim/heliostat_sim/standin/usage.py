"""Usage objects: vLLM gives whole answers, ends of streams and single chunks different ones."""

from heliostat_sim.engine import Finished


def whole_usage(event: Finished, *, chat: bool) -> dict[str, object]:
    """Return the usage of an answer that does not stream."""
    return _counts(event.prompt_tokens, event.output_tokens) | {
        "prompt_tokens_details": {
            "cached_tokens": event.cached_tokens,
            "created_cache_tokens": event.stored_tokens if chat else None,
            "multimodal_tokens": None,
        },
        "completion_tokens_details": None,
    }


def stream_usage(event: Finished, *, chat: bool) -> dict[str, object]:
    """Return the usage of a stream's last chunk."""
    details = {"cached_tokens": event.cached_tokens}
    if chat:
        details["created_cache_tokens"] = event.stored_tokens
    return _counts(event.prompt_tokens, event.output_tokens) | {"prompt_tokens_details": details}


def chunk_usage(prompt_tokens: int, output_tokens: int) -> dict[str, object]:
    """Return the usage of one chunk, for a client that wants it continuously."""
    return _counts(prompt_tokens, output_tokens) | {"completion_tokens_details": None}


def _counts(prompt_tokens: int, output_tokens: int) -> dict[str, object]:
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + output_tokens,
        "completion_tokens": output_tokens,
    }
