"""A load program in a process of its own: `load_program.py SPEC.json`, where ``SPEC`` has

    url, bodies (a file with one JSON body a line), connections, seconds, warm (seconds before the measurement), rate

``rate`` requests a second begin at constant intervals, whatever the answers (open loop); without it each connection
sends the next request when the last is answered (closed loop). It prints one JSON object: the number of answers by
status, and the latencies of the successful ones in seconds.
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
    """A run of the load program: the answers and latencies that count."""

    def __init__(self, spec: dict[str, Any], session: aiohttp.ClientSession) -> None:
        self._spec, self._session = spec, session
        self._bodies = itertools.cycle(Path(spec["bodies"]).read_bytes().splitlines())
        self._begin = time.perf_counter()
        self.statuses: Counter[str] = Counter()
        self.seconds: list[float] = []

    async def send(self, body: bytes) -> None:
        """Send a request; it counts if it falls into the time after the warm-up."""
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
        """Run a closed loop on each connection."""
        until = self._begin + self._spec["warm"] + self._spec["seconds"]

        async def connection() -> None:
            while time.perf_counter() < until:
                await self.send(next(self._bodies))

        await asyncio.gather(*(connection() for _ in range(self._spec["connections"])))

    async def open(self) -> None:
        """Run an open loop: begin requests at constant intervals."""
        interval = 1 / self._spec["rate"]
        tasks = []
        for number in range(int((self._spec["warm"] + self._spec["seconds"]) / interval)):
            await asyncio.sleep(max(0.0, self._begin + number * interval - time.perf_counter()))
            tasks.append(asyncio.create_task(self.send(next(self._bodies))))
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
