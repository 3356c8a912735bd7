"""How long a failing read is tried again."""

import pytest

from raylens.storage.s3 import reads
from raylens.storage.s3.reads import Patience


class Clock:
    """Time that passes where somebody sleeps, and nowhere else: how busy the machine is means nothing."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(reads, "time", clock)
    return clock


def attempts(clock: Clock, *, met: bool) -> tuple[int, float]:
    """How many there are where each one fails, and the seconds between the first and the last."""
    began, asked, count = clock.now, Patience(), 1
    while asked.wait(met=met):
        count += 1
    return count, clock.now - began


def test_a_busy_store_gets_all_attempts_in_about_a_minute(clock: Clock) -> None:
    tried = [attempts(clock, met=True) for _ in range(200)]
    assert {count for count, _ in tried} == {reads.ATTEMPTS}
    assert all(1 < seconds < 48 for _, seconds in tried)  # below 1: one in forty million
    assert 20 < sum(seconds for _, seconds in tried) / len(tried) < 28  # eight times its deviation on either side
    assert len({round(seconds) for _, seconds in tried}) > 5, "machines that fail together must not return together"


def test_a_store_that_is_down_is_given_up_sooner(clock: Clock) -> None:
    assert reads.NO_CONNECTION_SECONDS == 10
    tried = [attempts(clock, met=False) for _ in range(200)]
    assert all(seconds < 10 and count > 3 for count, seconds in tried)
    assert sum(seconds for _, seconds in tried) / len(tried) > 2


def test_one_answer_proves_that_it_is_not_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reads, "NO_CONNECTION_SECONDS", 0)
    asked = Patience()
    assert asked.wait(met=True)
    assert asked.wait(met=False)
    assert not Patience().wait(met=False)


def test_a_hundred_thousand_reads_survive_one_fault_in_twenty() -> None:
    assert 100_000 * 0.05**reads.ATTEMPTS < 1e-5
