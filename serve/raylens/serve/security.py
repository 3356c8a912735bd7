"""Who may call, how often, and from which web pages."""

from typing import Annotated

from pydantic import Field

from raylens.config import Node
from raylens.serve.gateway.fetch import UrlConfig

__all__ = ["SecurityConfig"]


class SecurityConfig(Node):
    """The service's protection."""

    keys: str | None = None
    """File of API keys, a path or URI that the gateways can read; None lets everybody call. `raylens serve key`
    makes an entry."""
    items_per_second: Annotated[float, Field(gt=0)] | None = None
    """For each key that has no limit of its own, or for all callers together where there are no keys; by gateway."""
    origins: tuple[str, ...] = ()
    """Web pages that may call from a browser, as ``https://example.org``; ``*`` for all."""
    urls: UrlConfig = UrlConfig()
    """Images by URL."""
