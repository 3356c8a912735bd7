"""The ingress deployment of Ray Serve: the API over handles to the replicas."""

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from grpc.aio import AioRpcError  # type: ignore[import-untyped]
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from raylens.errors import OverloadedError, UnavailableError
from raylens.serve.config import SecurityConfig, ServeSettings
from raylens.serve.gateway.app import build_app
from raylens.serve.gateway.catalogue import Catalogue, ServedModel
from raylens.serve.gateway.circuit_breaker import CircuitBreaker
from raylens.serve.gateway.model_router import ModelRouter
from raylens.serve.messages import Description, Embeddings, Item, Refusal
from raylens.serve.tracing import request_context

__all__ = ["Gateway", "HandleEmbedder", "Ingress"]


class HandleEmbedder:
    """An `Embedder` that calls replicas through a Ray Serve handle."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def embed(
        self, items: Sequence[Item], digest: str | None = None, *, bulk: bool = False
    ) -> Embeddings | Refusal:
        """Implement `Embedder.embed`: call a replica, within this request's trace."""
        answer: Embeddings | Refusal = await self._ask("embed", items, digest, bulk=bulk, sender=request_context())
        return answer

    async def describe(self) -> Description:
        """Implement `Embedder.describe`: call a replica."""
        description: Description = await self._ask("describe")
        return description

    async def probe(self) -> Refusal | None:
        """Implement `Embedder.probe`: call a replica."""
        refusal: Refusal | None = await self._ask("probe")
        return refusal

    async def _ask(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Call a replica, and another one if it was lost on the way: embedding twice does no harm."""
        try:
            return await _answer(getattr(self._handle, method).remote(*arguments, **options))
        except UnavailableError:
            return await _answer(getattr(self._handle, method).remote(*arguments, **options))


async def _answer(response: Any) -> Any:
    """Return the value of a call to a replica; translate Ray Serve's errors."""
    try:
        return await response
    except BackPressureError:
        raise OverloadedError("all replicas are busy and their queues are full; try again in a moment") from None
    except (RayActorError, DeploymentUnavailableError, AioRpcError):
        # AioRpcError: the connection broke during the answer. Ray Serve translates only UNAVAILABLE, but a
        # dying process may cause CANCELLED or INTERNAL as well.
        raise UnavailableError("the replica that had this request was lost; send it again") from None
    except asyncio.CancelledError:
        response.cancel()
        raise


class Gateway:
    """The gateway, which holds no model; Ray Serve asks it for the ASGI application when its process has started.

    Args:
        references: the references of the models.
        settings: limits of requests.
        security: keys, rates and origins.
        handles: for each model the handle of its text replicas, then that of its image replicas.
    """

    def __init__(
        self,
        references: Sequence[str],
        settings: ServeSettings,
        security: SecurityConfig,
        *handles: DeploymentHandle,
    ) -> None:
        embedders = [CircuitBreaker(HandleEmbedder(handle)) for handle in handles]
        pairs = zip(embedders[::2], embedders[1::2], strict=True)
        self._catalogue = Catalogue(
            [
                ServedModel(reference, ModelRouter(text, image, settings))
                for reference, (text, image) in zip(references, pairs, strict=True)
            ]
        )
        self._settings, self._security = settings, security

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_app(self._catalogue, self._settings, self._security, adds_request_id=False)


Ingress = serve.ingress()(Gateway)
"""The gateway as Ray Serve runs it."""
