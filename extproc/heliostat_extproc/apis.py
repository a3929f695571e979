"""The APIs that clients may ask for, in one table; an engine has others, for its operators alone.

docs/apis.md tells clients the same.
"""

from dataclasses import dataclass
from enum import StrEnum


class BodyFormat(StrEnum):
    """How a request's body names the model and carries the prompt."""

    JSON = "json"
    FORM = "form"
    """multipart/form-data, with a file."""


@dataclass(frozen=True, slots=True)
class Api:
    """What the gateway must know of one path; all take POST."""

    path: str
    body: BodyFormat = BodyFormat.JSON
    computes: bool = True
    """Whether the engine computes the prompt, which is then in its cache."""
    generates: bool = True
    """Whether there are output tokens."""
    opens_with_token: bool = True
    """Whether the first byte of a streamed answer is its first token."""
    stateless: bool = True
    """Whether a request carries all that it needs; else it may refer to what one engine keeps."""


_APIS = (
    Api("/v1/chat/completions"),
    Api("/v1/completions"),
    Api("/v1/responses", opens_with_token=False, stateless=False),
    Api("/v1/messages"),
    Api("/v1/audio/transcriptions", body=BodyFormat.FORM),
    Api("/v1/audio/translations", body=BodyFormat.FORM),
    *(
        Api(path, generates=False)
        for path in (
            *("/v1/embeddings", "/pooling", "/classify"),
            *("/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank"),
        )
    ),
    *(
        Api(path, computes=False, generates=False)
        for path in ("/tokenize", "/detokenize", "/v1/messages/count_tokens")
    ),
)

APIS = {api.path: api for api in _APIS}
"""What is routed, by path."""

HEALTH_PATHS = frozenset(("/health", "/healthz"))
MODELS_PATH = "/v1/models"

PATHS_WITHOUT_ROUTER = frozenset((*APIS, "/health", MODELS_PATH))
"""What an engine may be asked for by a gateway whose router is away."""
