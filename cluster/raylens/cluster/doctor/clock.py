"""How far the clocks of the nodes are apart."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from raylens.cluster.doctor.findings import CLUSTER, Finding, Status

__all__ = ["Offset", "judge_clocks", "offset_of"]

CHECK = "clock"
MILD, BAD = 1.0, 60.0
"""Seconds. Beyond the first, logs and the verdict on what bounds a run mislead; tokens and signatures come after."""


@dataclass(frozen=True)
class Offset:
    """Of a node's clock from this process's."""

    seconds: float
    """Above 0 where the node's is ahead."""
    bound: float
    """The truth is no farther away than this."""


def offset_of(rounds: Sequence[tuple[float, float, float]]) -> Offset:
    """From questions for the time: when each was sent, what the node's clock said, and when the answer came.

    As NTP does (RFC 5905): the answer's time is taken to be in the middle, wrong by half the way at the most; the
    quickest round says most.
    """
    sent, told, came = min(rounds, key=lambda one: one[2] - one[0])
    return Offset(told - (sent + came) / 2, (came - sent) / 2)


def judge_clocks(offsets: Mapping[str, Offset]) -> Iterator[Finding]:
    """Each node against the middle of all, and the two that are farthest apart."""
    if not offsets:
        return
    middle = sorted(one.seconds for one in offsets.values())[len(offsets) // 2]
    for name, one in offsets.items():
        apart = one.seconds - middle
        sure = max(0.0, abs(apart) - one.bound)
        found = f"{apart:+.3f} s from the others, known to {one.bound:.3f} s"
        advice = "synchronise the node's clock (chrony, systemd-timesyncd)"
        if sure > BAD:
            advice += ": object stores refuse requests that are signed minutes away"
        status: Status = "failed" if sure > BAD else "warning" if sure > MILD else "ok"
        yield Finding(CHECK, name, status, found, advice if status != "ok" else "", f"{apart:+.3f} s")
    low, high = (pick(offsets.items(), key=lambda item: item[1].seconds) for pick in (min, max))
    if low[0] != high[0]:
        spread = high[1].seconds - low[1].seconds
        yield Finding(CHECK, CLUSTER, "ok", f"{spread:.3f} s between {low[0]} and {high[0]}", short=f"{spread:.3f} s")
