"""A TCP proxy before a server that can be taken away for a while: nobody listens, and open connections break."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Outage"]


class Outage:
    """Forwards ``uri`` to ``endpoint`` from a thread of its own, while it is up."""

    def __init__(self, endpoint: str) -> None:
        split = urlsplit(endpoint)
        self._target = (split.hostname, split.port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="outage", daemon=True)
        self._thread.start()
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._port = 0
        self.up()

    @property
    def uri(self) -> str:
        """The endpoint that clients use."""
        return f"http://127.0.0.1:{self._port}"

    def up(self) -> None:
        """Listen, at the same port as before."""
        self._run(self._listen())

    def down(self) -> None:
        """Refuse everybody, and hang up on those who are there."""
        self._run(self._hang_up())

    def close(self) -> None:
        """For good."""
        self.down()
        self._run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _hang_up(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._open):
            writer.transport.abort()

    async def _end(self) -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        if rest:
            # They end by themselves, now that both sides are gone; one that is cancelled while it connects would leave
            # its connection open.
            _, late = await asyncio.wait(rest, timeout=10)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the next round

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        back: asyncio.StreamWriter | None = None
        try:
            back_reader, back = await asyncio.open_connection(*self._target)
            self._open.add(back)
            await asyncio.gather(_pump(reader, back), _pump(back_reader, writer))
        except OSError:
            pass  # whoever is on the other side sees it as well
        finally:
            for one in (writer, back):
                if one is not None:
                    self._open.discard(one)
                    one.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()
