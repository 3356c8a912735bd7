"""The embedding API: registry in, HTTP out, on Ray Serve."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raylens.serve.client import AsyncEmbeddingClient, EmbeddingClient
    from raylens.serve.launch import RunningService, serve_model, serve_service
    from raylens.serve.service import ServiceConfig
    from raylens.serve.settings import ServeSettings

__all__ = [
    "AsyncEmbeddingClient",
    "EmbeddingClient",
    "RunningService",
    "ServeSettings",
    "ServiceConfig",
    "serve_model",
    "serve_service",
]

_HOMES = {
    "AsyncEmbeddingClient": "client",
    "EmbeddingClient": "client",
    "RunningService": "launch",
    "ServeSettings": "settings",
    "ServiceConfig": "service",
    "serve_model": "launch",
    "serve_service": "launch",
}


def __getattr__(name: str) -> Any:
    """Import on first use: Ray Serve and torch take seconds, and a client needs neither."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
