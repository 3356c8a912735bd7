"""The ingress deployment: the API, over handles to the replicas."""

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
    """The `Embedder` of a Ray Serve handle."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def embed(
        self, items: Sequence[Item], digest: str | None = None, *, bulk: bool = False
    ) -> Embeddings | Refusal:
        """See `Embedder`."""
        answer: Embeddings | Refusal = await self._ask("embed", items, digest, bulk=bulk, context=request_context())
        return answer

    async def describe(self) -> Description:
        """See `Embedder`."""
        description: Description = await self._ask("describe")
        return description

    async def probe(self) -> Refusal | None:
        """See `Embedder`."""
        refusal: Refusal | None = await self._ask("probe")
        return refusal

    async def _ask(self, method: str, *arguments: Any, **named: Any) -> Any:
        """Asked once more where the replica was lost on the way: to embed twice does no harm."""
        try:
            return await _answer(getattr(self._handle, method).remote(*arguments, **named))
        except UnavailableError:
            return await _answer(getattr(self._handle, method).remote(*arguments, **named))


async def _answer(response: Any) -> Any:
    """The value of a call to a replica, Ray Serve's refusals in our words."""
    try:
        return await response
    except BackPressureError:
        raise OverloadedError("all replicas are busy and their queues full; try again in a moment") from None
    except (RayActorError, DeploymentUnavailableError, AioRpcError):
        # AioRpcError: of a connection that broke while the answer was on its way. Ray Serve translates UNAVAILABLE
        # alone, and what a dying process leaves behind may be CANCELLED or INTERNAL as well.
        raise UnavailableError("the replica that had this request is gone; send it again") from None
    except asyncio.CancelledError:
        response.cancel()
        raise


class Gateway:
    """Holds no model; Ray Serve asks it for the ASGI application when the process has started.

    Args:
        references: under which each model is served.
        handles: for each model those of its text and its image replicas, one after the other.
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
