"""The state of a run, its duration, and its last event, derived from ``events.jsonl``."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

__all__ = ["ENDS", "UNFINISHED", "UNKNOWN", "event_text", "state_of", "time_text", "wall_seconds", "wanted_steps"]

Event = Mapping[str, Any]

ENDS = ("finished", "failed", "interrupted")
UNFINISHED = "unfinished"
"""State of a run that is running or was killed; the time of its last event shows which is likelier."""
UNKNOWN = "unknown"
"""State of a run without events."""

STEPS = re.compile(r"(\d{1,15}) steps\b")


def state_of(events: Sequence[Event]) -> str:
    """Return the state of a run: one of `ENDS`, `UNFINISHED` or `UNKNOWN`.

    A run that was asked to stop also ends with "finished"; the events before it show that it was interrupted.
    """
    if not events:
        return UNKNOWN
    last = events[-1].get("event")
    if last not in ENDS:
        return UNFINISHED
    if last == "finished" and _was_stopped(events):
        return "interrupted"
    return str(last)


def _was_stopped(events: Sequence[Event]) -> bool:
    for event in reversed(events[:-1]):
        if event.get("event") == "stopping":
            step, wanted = event.get("step"), wanted_steps(events)
            return not (isinstance(step, int) and wanted is not None and step >= wanted)
        if event.get("event") in ("started", *ENDS):
            return False
    return False


def wanted_steps(events: Sequence[Event]) -> int | None:
    """Return the number of steps that the run was last started for; None if no event has it."""
    for event in reversed(events):
        match = STEPS.search(str(event.get("text"))) if event.get("event") == "started" else None
        if match:
            return int(match.group(1))
    return None


def wall_seconds(events: Sequence[Event]) -> float | None:
    """Return the seconds from start to last event, summed over all starts of the run; None if no event has a time."""
    total, begin, last, restarting, known = 0.0, None, None, False, False
    for event in events:
        now = _moment(event)
        if now is None:
            continue
        kind = event.get("event")
        if begin is None or last is None or (kind == "started" and not restarting):
            # The time between the last event of a run that was killed and its next start does not count.
            total += (last - begin).total_seconds() if begin and last else 0.0
            begin = now
        known = known or last is not None
        restarting = kind == "restarting" or (restarting and kind != "started")
        last = now
        if kind in ENDS:
            total, begin = total + (last - begin).total_seconds(), None
    total += (last - begin).total_seconds() if begin and last else 0.0
    return max(total, 0.0) if known else None


def event_text(event: Event) -> str:
    """Return an event as one line: when, what, and why."""
    what, step, text = event.get("event"), event.get("step"), str(event.get("text") or "")
    at = f" at step {step}" if step is not None else ""
    return f"{time_text(event)} {what or 'event'}{at}{f': {text}' if text else ''}".strip()


def time_text(event: Event) -> str:
    """Return the time of an event in UTC, to the second, or the text as it is if it is not a time."""
    now = _moment(event)
    return now.strftime("%Y-%m-%d %H:%M:%S") if now else str(event.get("time") or "")


def _moment(event: Event) -> datetime | None:
    try:
        now = datetime.fromisoformat(str(event.get("time")))
    except ValueError:
        return None
    return now.replace(tzinfo=UTC) if now.tzinfo is None else now.astimezone(UTC)
