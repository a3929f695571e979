"""The paths that clients may ask for: an engine has others, which are for its operators alone."""

INFERENCE_PATHS = frozenset(
    f"{prefix}/{name}"
    for prefix, names in {
        "/v1": (
            *("chat/completions", "completions", "responses", "embeddings", "messages"),
            *("score", "rerank"),
        ),
        "": ("tokenize", "detokenize", "score", "rerank", "pooling", "classify"),
    }.items()
    for name in names
)
"""What is routed, all by POST: the paths of an engine that take a model."""

HEALTH_PATHS = frozenset(("/health", "/healthz"))
MODELS_PATH = "/v1/models"

PATHS_WITHOUT_ROUTER = INFERENCE_PATHS | {"/health", MODELS_PATH}
"""What an engine may be asked for by a gateway whose router is away."""
