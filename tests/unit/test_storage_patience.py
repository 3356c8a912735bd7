"""How long a failing read is tried again."""

import time

import pytest

from raylens.storage import patience
from raylens.storage.patience import Patience

FAST = 1 / 200


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """All times 200 times shorter; their proportions stay."""
    for name in ("FIRST_PAUSE_SECONDS", "LONGEST_PAUSE_SECONDS", "NO_CONNECTION_SECONDS"):
        monkeypatch.setattr(patience, name, getattr(patience, name) * FAST)


def attempts(*, met: bool) -> tuple[int, float]:
    """How many there are where each one fails, and the seconds between the first and the last, unscaled."""
    began, asked, count = time.monotonic(), Patience(), 1
    while asked.wait(met=met):
        count += 1
    return count, (time.monotonic() - began) / FAST


def test_a_busy_store_gets_all_attempts_in_about_a_minute() -> None:
    tried = [attempts(met=True) for _ in range(20)]
    assert {count for count, _ in tried} == {patience.ATTEMPTS}
    assert all(1 < seconds < 100 for _, seconds in tried)
    assert len({round(seconds) for _, seconds in tried}) > 5, "machines that fail together must not return together"


def test_a_store_that_is_down_is_given_up_sooner() -> None:
    tried = [attempts(met=False) for _ in range(20)]
    assert all(seconds < 20 and count > 3 for count, seconds in tried)
    assert sum(seconds for _, seconds in tried) / len(tried) > 2


def test_one_answer_proves_that_it_is_not_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "NO_CONNECTION_SECONDS", 0)
    asked = Patience()
    assert asked.wait(met=True)
    assert asked.wait(met=False)
    assert not Patience().wait(met=False)


def test_a_hundred_thousand_reads_survive_one_fault_in_twenty() -> None:
    assert 100_000 * 0.05**patience.ATTEMPTS < 1e-5
