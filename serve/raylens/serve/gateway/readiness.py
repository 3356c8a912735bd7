"""Whether the models embed, asked once for all who want to know: who needs no key must not make work."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

__all__ = ["Readiness"]

KEPT_S = 1.0
"""For which an answer, good or bad, is given again."""


class Readiness:
    """Probes of all models, at most one after the other and with a pause in between.

    Args:
        probes: each raises what is wrong.
        timeout_s: for all of them together.
    """

    def __init__(self, probes: Sequence[Callable[[], Awaitable[object]]], timeout_s: float) -> None:
        self._probes, self._timeout_s = probes, timeout_s
        self._asking: asyncio.Task[None] | None = None
        self._known: Exception | None = None
        self._until = -1.0

    async def check(self) -> None:
        """Raises what a probe raised less than a second ago, or raises now; `TimeoutError` if one does not end."""
        if self._asking is None and time.monotonic() > self._until:
            self._asking = asyncio.create_task(self._ask())
        if self._asking is not None:
            await asyncio.shield(self._asking)  # which others wait for too
        if self._known is not None:
            raise self._known.with_traceback(None)

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.gather(*(probe() for probe in self._probes))
            self._known = None
        except Exception as error:  # noqa: BLE001 (raised by `check`, to each who asks)
            self._known = error
        finally:
            self._until = time.monotonic() + KEPT_S
            self._asking = None
