"""GPU tests are collected everywhere and skipped where there is no GPU."""

from collections.abc import Iterator

import pytest
import torch

from raylens.cluster import session


@pytest.fixture(autouse=True, scope="session")
def gpu() -> torch.device:
    """The device; of the session, so that nothing is started for tests that are skipped."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    return torch.device("cuda")


@pytest.fixture(scope="module")
def cluster(gpu: torch.device) -> Iterator[None]:
    """Ray, as the commands start it, for one module of tests."""
    with session(num_cpus=6):
        yield
