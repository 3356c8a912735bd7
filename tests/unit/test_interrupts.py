"""Ctrl-C and SIGTERM: the first asks for an end in order, the second ends, and afterwards all is as it was."""

import signal
import threading

import pytest

from raylens.interrupts import SIGNALS, Interrupts, signal_handlers, sigterm_interrupts
from tests.helpers.said import Said


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_asks_for_an_end_in_order_and_the_second_ends(number: signal.Signals) -> None:
    said, stops = Said(), list[int]()
    before = [signal.getsignal(one) for one in SIGNALS]
    interrupts = Interrupts(said, "it is saved")
    interrupts.stop = lambda: stops.append(interrupts.count)
    with interrupts:
        signal.raise_signal(number)
        assert (stops, len(said.lines)) == ([1], 1)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert (stops, len(said.lines), interrupts.count) == ([1], 1, 2)
    assert [signal.getsignal(one) for one in SIGNALS] == before


def test_a_third_does_not_find_the_second_s_work_half_done() -> None:
    done: list[str] = []

    def abort() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        done.append("aborted")

    interrupts = Interrupts(Said(), "it is saved")
    interrupts.abort = abort
    with interrupts:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert (done, interrupts.count) == (["aborted"], 2)


def test_sigterm_is_answered_like_ctrl_c() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), sigterm_interrupts():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_another_thread_leaves_signals_alone() -> None:
    before, inside = signal.getsignal(signal.SIGINT), list[object]()

    def run() -> None:
        with Interrupts(Said(), "nothing"), signal_handlers({signal.SIGUSR1: signal.SIG_IGN}):
            inside.extend([signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGUSR1)])

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert inside == [before, signal.getsignal(signal.SIGUSR1)]
