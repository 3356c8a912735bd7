"""The embedding service: it serves models of the registry over HTTP, on Ray Serve."""

from typing import TYPE_CHECKING

from raylens.lazy import lazy_face

if TYPE_CHECKING:
    from raylens.serve.client.client import AsyncEmbeddingClient, EmbeddingClient
    from raylens.serve.config import ServeSettings, ServiceConfig
    from raylens.serve.deploy.launch import RunningService, serve_model, serve_service

__all__ = [
    "AsyncEmbeddingClient",
    "EmbeddingClient",
    "RunningService",
    "ServeSettings",
    "ServiceConfig",
    "serve_model",
    "serve_service",
]

# Ray Serve and torch take seconds, and a client needs neither.
__getattr__ = lazy_face(
    __name__,
    {
        "AsyncEmbeddingClient": "client.client",
        "EmbeddingClient": "client.client",
        "RunningService": "deploy.launch",
        "ServeSettings": "config",
        "ServiceConfig": "config",
        "serve_model": "deploy.launch",
        "serve_service": "deploy.launch",
    },
)
