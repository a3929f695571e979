"""The names one engine answers to: its model under one or several, and its LoRA adapters."""

import time
import uuid
from collections.abc import Sequence
from http import HTTPStatus

import msgspec

from heliostat_sim.standin.errors import ApiError, invalid_request, unknown_model


class LoadAdapterBody(msgspec.Struct):
    """The body of /v1/load_lora_adapter."""

    lora_name: str | None = None
    lora_path: str | None = None
    load_inplace: bool = False


class UnloadAdapterBody(msgspec.Struct):
    """The body of /v1/unload_lora_adapter."""

    lora_name: str | None = None


class ServedModels:
    """Looks names up, and lists and changes them as vLLM does.

    names -- the model's, the first one leading
    root -- where the model was loaded from
    lora -- whether adapters may be loaded
    """

    def __init__(
        self,
        names: Sequence[str],
        root: str,
        limit_tokens: int,
        adapters: Sequence[tuple[str, str]],
        *,
        lora: bool,
    ) -> None:
        self._names = tuple(names)
        self._root = root
        self._limit_tokens = limit_tokens
        self._adapters = dict(adapters)
        self._lora = lora
        self._created = int(time.time())

    def find(self, name: str | None) -> str | None:
        """Return the adapter that a request names; None if it names the model.

        Raises ApiError (404) if the name is not served.
        """
        if not name or name in self._names:
            return None
        if name in self._adapters:
            return name
        raise unknown_model(name, ", ".join(self._names))

    def answer_name(self, adapter: str | None) -> str:
        """Return the name that answers carry."""
        return self._names[0] if adapter is None else adapter

    def load(self, body: LoadAdapterBody) -> str:
        """Load an adapter; return what vLLM says. Raises ApiError."""
        name, path = body.lora_name, body.lora_path
        if not name or not path:
            raise _wrong_input("Both 'lora_name' and 'lora_path' must be provided.")
        if name in self._adapters and not body.load_inplace:
            raise _wrong_input(
                f"The lora adapter '{name}' has already been loaded. If you want to load the "
                "adapter in place, set 'load_inplace' to True."
            )
        if not self._lora:
            raise invalid_request("LoRA is not enabled. Use --enable-lora to enable LoRA.")
        self._adapters[name] = path
        return f"Success: LoRA adapter '{name}' added successfully."

    def unload(self, body: UnloadAdapterBody) -> str:
        """Unload an adapter; return what vLLM says. Raises ApiError."""
        name = body.lora_name
        if not name:
            raise _wrong_input("'lora_name' needs to be provided to unload a LoRA adapter.")
        if self._adapters.pop(name, None) is None:
            raise ApiError(
                HTTPStatus.NOT_FOUND,
                f"The lora adapter '{name}' cannot be found.",
                kind="NotFoundError",
            )
        return f"Success: LoRA adapter '{name}' removed successfully."

    def cards(self) -> list[dict[str, object]]:
        """Return the entries of /v1/models."""
        models = [self._card(name, self._root, None, self._limit_tokens) for name in self._names]
        parent = self._names[0]
        adapters = [self._card(name, path, parent, None) for name, path in self._adapters.items()]
        return models + adapters

    def _card(
        self, name: str, root: str, parent: str | None, limit_tokens: int | None
    ) -> dict[str, object]:
        return {
            "id": name,
            "object": "model",
            "created": self._created,
            "owned_by": "vllm",
            "root": root,
            "parent": parent,
            "max_model_len": limit_tokens,
            "permission": [_permission(self._created)],
        }


def _wrong_input(message: str) -> ApiError:
    return ApiError(HTTPStatus.BAD_REQUEST, message, kind="InvalidUserInput")


def _permission(created: int) -> dict[str, object]:
    """Return what every client may do with the model."""
    return {
        "id": f"modelperm-{uuid.uuid4().hex[:16]}",
        "object": "model_permission",
        "created": created,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
