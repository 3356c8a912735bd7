"""The ingress deployment: the API, over a handle to the replicas."""

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from raylens.errors import OverloadedError, UnavailableError
from raylens.serve.app import build_app
from raylens.serve.messages import (
    Classification,
    Embeddings,
    Failed,
    Identity,
    Item,
    Picture,
    Refusal,
)
from raylens.serve.settings import ServeSettings

__all__ = ["Gateway", "HandleBackend"]


class HandleBackend:
    """The `Backend` of a Ray Serve handle."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def embed(self, items: Sequence[Item], model: str | None = None) -> Embeddings | Refusal:
        """See `Backend`."""
        answer: Embeddings | Refusal = await _answer(self._handle.embed.remote(items, model))
        return answer

    async def classify(
        self, images: Sequence[Picture | Failed], prompts: Sequence[Sequence[str]], model: str | None = None
    ) -> Classification | Refusal:
        """See `Backend`."""
        answer: Classification | Refusal = await _answer(self._handle.classify.remote(images, prompts, model))
        return answer

    async def describe(self) -> Identity:
        """See `Backend`."""
        identity: Identity = await _answer(self._handle.describe.remote())
        return identity

    async def probe(self) -> Refusal | None:
        """See `Backend`."""
        refusal: Refusal | None = await _answer(self._handle.probe.remote())
        return refusal


async def _answer(response: Any) -> Any:
    """The value of a call to a replica, Ray Serve's refusals in our words."""
    try:
        return await response
    except BackPressureError:
        raise OverloadedError("all replicas are busy and their queues full; try again in a moment") from None
    except (RayActorError, DeploymentUnavailableError):
        raise UnavailableError("the replica that had this request is gone; send it again") from None
    except asyncio.CancelledError:
        response.cancel()
        raise


class Gateway:
    """Holds no model; Ray Serve asks it for the ASGI application when the process has started."""

    def __init__(self, replicas: DeploymentHandle, settings: ServeSettings) -> None:
        self._backend = HandleBackend(replicas)
        self._settings = settings

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_app(self._backend, self._settings)
