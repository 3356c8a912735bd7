"""The bare service of services.py: `bare_serve.py PORT`, until its standard input ends.

What Ray Serve's own first page shows, with one import: a deployment whose constructor imports torch. Ray is started as
`raylens serve` starts it. Prints its phases as one JSON object when it answers.
"""

import json
import os
import secrets
import sys
import time

BEGAN = time.perf_counter()

import ray  # noqa: E402 (its import is the first phase)
from ray import serve  # noqa: E402

IMPORTED = time.perf_counter()


@serve.deployment
class Answers:
    def __init__(self) -> None:
        import torch

        self.one = torch.ones(1)

    def __call__(self) -> float:
        return float(self.one)


def main() -> None:
    # As our own session does, so that the bare one answers to nobody else either.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    ray.init(
        address="local", num_cpus=int(sys.argv[2]), include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    up = time.perf_counter()
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    started = time.perf_counter()
    serve.run(Answers.bind())  # type: ignore[attr-defined]  # (Ray publishes no types)
    ready = time.perf_counter()
    phases = {"imports": IMPORTED - BEGAN, "ray": up - IMPORTED, "serve": started - up, "replicas": ready - started}
    print(json.dumps(phases), flush=True)
    sys.stdin.read()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
