"""One Ray cluster for all modules of a test process that leave it as they found it."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import pytest
import ray

from raylens.cluster import session
from raylens.serve.deploy.environment import environment, haproxy_ports

__all__ = ["CPUS", "S3_ENVIRONMENT", "SHARED", "SharedRay"]

CPUS = 6
"""Four workers, the stream and one to spare; two trials of a sweep with two workers each, and their streams."""
IDLE_SECONDS = 60.0
S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "raylens-tests",
    "AWS_SECRET_ACCESS_KEY": "no-secret-at-all",
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""Ray's processes inherit the environment of its start, so the credentials are there when it starts."""


class SharedRay:
    """A cluster that is started for the first module that wants it, and lent to one after the other."""

    def __init__(self) -> None:
        self._running = ExitStack()
        self.inherited: Mapping[str, str] = {}
        """Variables of services that its processes have."""

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Ray is initialised inside, and everything that ran in it has ended at the end.

        Whoever leaves something that holds CPUs fails, and the next one gets another cluster.
        """
        if not ray.is_initialized():
            with pytest.MonkeyPatch.context() as patch:
                for name, value in S3_ENVIRONMENT.items():
                    patch.setenv(name, value)
                self.inherited = self._running.enter_context(
                    session(num_cpus=CPUS, environment=environment() | haproxy_ports())
                )
        yield
        held = self._held()
        if held:
            self.end()
        assert not held, f"{held} of the shared cluster's CPUs are still held: see what this module started"

    def end(self) -> None:
        """Stop it, where it runs; whoever borrows it next starts another."""
        self._running.close()

    def _held(self) -> float:
        """CPUs in use, after a while in which what has ended gives them back."""
        deadline = time.monotonic() + IDLE_SECONDS
        while True:
            held = float(ray.cluster_resources().get("CPU", 0.0) - ray.available_resources().get("CPU", 0.0))
            if not held or time.monotonic() > deadline:
                return held
            time.sleep(0.2)


SHARED = SharedRay()
