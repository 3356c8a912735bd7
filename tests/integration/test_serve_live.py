"""A service under load: replicas that come and go with it, and that are lost."""

import asyncio
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from tests.helpers.serving import CAPTIONS, ONE, Callers, Site, kill, running, site_in

pytestmark = pytest.mark.slow

GROWING = ONE | {
    "max_replicas": 2, "items_per_replica": 100, "look_back_s": 1, "upscale_delay_s": 0.5, "downscale_delay_s": 1
}  # fmt: skip


@pytest.fixture(scope="module")
def site(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site_in(tmp_path_factory.mktemp("site"), GROWING) as made:
        yield made


def test_replicas_come_with_a_step_of_load_and_go_with_it(site: Site) -> None:
    async def scene() -> None:
        assert running("plants-text") == 1
        async with Callers(site.service, site.key, "plants", callers=3, texts=1000) as load:
            await load.until(lambda: running("plants-text") == 2, "the most replicas")
        assert load.answers[-1].status_code == 200
        # A replica whose first batches were slow, as on a busy machine, may take the wait for too long.
        assert {answer.json()["error"]["code"] for answer in load.answers if answer.is_error} <= {"overloaded"}
        await load.until(lambda: running("plants-text") == 1, "one replica again")

    asyncio.run(scene())


def test_a_replica_that_is_killed_under_load_costs_at_most_what_it_had(site: Site) -> None:
    callers = 6

    async def scene() -> list[httpx.Response]:
        async with Callers(site.service, site.key, "pets", callers=callers, texts=200) as load:
            await load.until(lambda: len(load.answers) > 2 * callers, "the first answers")
            kill("pets-text")
            before = len(load.answers)
            await load.until(lambda: len(load.answers) > before + 4 * callers, "answers after the loss")
        return load.answers

    answers = asyncio.run(scene())
    lost = [answer for answer in answers if answer.status_code != 200]
    # What was in flight there is sent once more by the gateway, and fails only if that meets the dead replica too.
    assert len(lost) <= callers
    assert {answer.json()["error"]["code"] for answer in lost} <= {"unavailable"}
    assert {answer.status_code for answer in answers[-callers:]} == {200}


def test_a_replica_that_is_killed_costs_no_request(site: Site) -> None:
    """Its requests are sent to another one, or wait for the one that replaces it."""
    with site.client("plants") as client:
        before = client.embed(CAPTIONS)
        kill("plants-text")
        fresh = [f"{caption} again" for caption in CAPTIONS]
        assert client.embed(fresh).shape == before.shape
        np.testing.assert_allclose(client.embed(CAPTIONS), before, atol=1e-5)
