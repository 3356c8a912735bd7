"""A load program in a process of its own: `load_program.py SPEC.json`, where ``SPEC`` has

    url, bodies (a file with one JSON body a line), connections, seconds, warm (seconds that do not count), rate

``rate`` requests a second begin at constant intervals, whatever the answers (open loop); without it each connection
sends the next request when the last is answered (closed loop). Prints one JSON object: answers by status, and latencies
in seconds of those that were answered well, by their arrival.
"""

import asyncio
import itertools
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp


class Load:
    """One run."""

    def __init__(self, spec: dict[str, Any], session: aiohttp.ClientSession) -> None:
        self._spec, self._session = spec, session
        self._bodies = itertools.cycle(Path(spec["bodies"]).read_bytes().splitlines())
        self._begin = time.perf_counter()
        self.statuses: Counter[str] = Counter()
        self.seconds: list[float] = []

    async def one(self, body: bytes) -> None:
        """Send a request; what is answered after the warm-up counts."""
        began = time.perf_counter()
        try:
            async with self._session.post(
                self._spec["url"], data=body, headers={"content-type": "application/json"}
            ) as answer:
                await answer.read()
                status = str(answer.status)
        except (aiohttp.ClientError, TimeoutError) as error:
            status = type(error).__name__
        ended = time.perf_counter()
        counts = ended if self._spec.get("rate") is None else began
        if self._spec["warm"] <= counts - self._begin <= self._spec["warm"] + self._spec["seconds"]:
            self.statuses[status] += 1
            if status == "200":
                self.seconds.append(ended - began)

    async def closed(self) -> None:
        """Each connection for itself."""
        until = self._begin + self._spec["warm"] + self._spec["seconds"]

        async def connection() -> None:
            while time.perf_counter() < until:
                await self.one(next(self._bodies))

        await asyncio.gather(*(connection() for _ in range(self._spec["connections"])))

    async def open(self) -> None:
        """At constant intervals."""
        interval = 1 / self._spec["rate"]
        tasks = []
        for number in range(int((self._spec["warm"] + self._spec["seconds"]) / interval)):
            await asyncio.sleep(max(0.0, self._begin + number * interval - time.perf_counter()))
            tasks.append(asyncio.create_task(self.one(next(self._bodies))))
        await asyncio.gather(*tasks)


async def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    connector = aiohttp.TCPConnector(limit=0 if spec.get("rate") else spec["connections"])
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=120)) as session:
        load = Load(spec, session)
        await (load.open() if spec.get("rate") else load.closed())
    print(json.dumps({"statuses": load.statuses, "seconds": load.seconds}))


if __name__ == "__main__":
    asyncio.run(main())
