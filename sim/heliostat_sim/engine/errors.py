"""Why an engine refuses a request."""


class EngineError(Exception):
    """Any refusal by the engine model."""


class EngineOverloadedError(EngineError):
    """The engine holds as many unfinished requests as it may."""


class RequestTooLongError(EngineError):
    """Prompt and output together can never fit in the KV cache."""
