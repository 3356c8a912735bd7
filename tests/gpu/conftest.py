"""GPU tests are collected everywhere and skipped where there is no GPU."""

from collections.abc import Iterator

import pytest
import torch

from tests.shared_ray import SHARED, SharedRay


@pytest.fixture(autouse=True, scope="session")
def gpu() -> torch.device:
    """The device; of the session, so that nothing is started for tests that are skipped."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    return torch.device("cuda")


@pytest.fixture(scope="session")
def shared_ray() -> Iterator[SharedRay]:
    """The cluster that modules share, of the integration tests too."""
    yield SHARED
    SHARED.end()


@pytest.fixture(scope="module")
def cluster(gpu: torch.device, shared_ray: SharedRay) -> Iterator[None]:
    """Ray, as the commands start it, shared with the other modules: what a module starts on it, it ends."""
    with shared_ray.lent():
        yield
