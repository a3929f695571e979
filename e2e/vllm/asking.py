"""Prompts, requests and waiting, for all tests here."""

import random
import time
from collections.abc import Callable
from typing import Any

from installation import MODEL


def made_words(seed: int, words: int) -> str:
    """Text of made words, the same for the same seed."""
    rng = random.Random(seed)
    return " ".join("".join(rng.choices("bdfgjklmnprstaeiou", k=6)) for _ in range(words))


def greedy(content: str, max_tokens: int = 24) -> dict[str, Any]:
    """A request whose answer depends on its prompt alone."""
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": max_tokens,
        "temperature": 0,
    }


def wait_for(condition: Callable[[], bool], what: str, timeout_seconds: float = 10.0) -> None:
    """Wait for a condition with a deadline."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
