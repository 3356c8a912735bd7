"""The check of clocks: how far those of the nodes are apart."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from raylens.cluster.doctor.findings import CLUSTER, Finding, Status

__all__ = ["Offset", "judge_clocks", "offset_of"]

CHECK = "clock"
MILD, BAD = 1.0, 60.0
"""Seconds between clocks that are a warning, because logs and measurements mislead, and a failure: stores refuse
signatures."""


@dataclass(frozen=True)
class Offset:
    """The offset of a node's clock from this process's clock."""

    seconds: float
    """Seconds by which the node's clock is ahead; negative if it is behind."""
    bound: float
    """The largest possible error of ``seconds``."""


def offset_of(rounds: Sequence[tuple[float, float, float]]) -> Offset:
    """Estimate a clock's offset from round trips, as NTP does (RFC 5905).

    The answer is assumed to lie in the middle of its round trip, which is wrong by at most half of the trip; so the
    quickest round trip is used.

    Args:
        rounds: for each question the time it was sent, the time of the node's clock, and the time of the answer.
    """
    sent, remote, received = min(rounds, key=lambda times: times[2] - times[0])
    return Offset(remote - (sent + received) / 2, (received - sent) / 2)


def judge_clocks(offsets: Mapping[str, Offset]) -> Iterator[Finding]:
    """Yield a finding for each node, compared with the median, and one for the two that are farthest apart."""
    if not offsets:
        return
    median = sorted(offset.seconds for offset in offsets.values())[len(offsets) // 2]
    for name, offset in offsets.items():
        apart = offset.seconds - median
        certain = max(0.0, abs(apart) - offset.bound)
        measured = f"{apart:+.3f} s from the others, known to {offset.bound:.3f} s"
        advice = "synchronise the node's clock (chrony, systemd-timesyncd)"
        if certain > BAD:
            advice += ": object stores refuse requests whose signatures are minutes old"
        status: Status = "failed" if certain > BAD else "warning" if certain > MILD else "ok"
        yield Finding(CHECK, name, status, measured, advice if status != "ok" else "", f"{apart:+.3f} s")
    low, high = (extreme(offsets.items(), key=lambda item: item[1].seconds) for extreme in (min, max))
    if low[0] != high[0]:
        spread = high[1].seconds - low[1].seconds
        yield Finding(CHECK, CLUSTER, "ok", f"{spread:.3f} s between {low[0]} and {high[0]}", short=f"{spread:.3f} s")
