"""A record of a run in one line."""

from raylens.report.numbers import count_text, duration_text, memory_text, percent_text, rate_text
from raylens.train.loop.metrics import Record

__all__ = ["progress_line", "time_left"]


def progress_line(record: Record) -> str:
    """What a person follows: how well it learns, how fast, and what holds it up."""
    parts = [
        f"loss {record.loss:.3f}",
        f"scale {record.logit_scale:.1f}",
        f"{rate_text(record.samples_per_second, 'pairs')}",
    ]
    if record.epoch is not None:
        parts.insert(0, f"epoch {record.epoch:.2f}")
    if record.mfu is not None:
        parts.append(f"MFU {percent_text(record.mfu, 0)}")
    parts.append(
        f"{record.bound}-bound: {percent_text(record.data_wait, 0)} data wait, {record.data_cores:.1f} data cores"
    )
    if record.memory_bytes:
        parts.append(f"{memory_text(record.memory_bytes)} per worker")
    if record.substituted:
        parts.append(f"{record.substituted} bad samples replaced (see quarantine/)")
    if record.truncated:
        parts.append(f"{count_text(record.truncated, 'captions')} cut at the context")
    if record.skipped:
        parts.append(f"{count_text(record.skipped, 'steps')} skipped")
    return "  ".join(parts)


def time_left(record: Record, steps: int) -> str:
    """To the last step at the present speed; empty at the end."""
    left = steps - record.step
    if left <= 0 or record.samples_per_second <= 0:
        return ""
    return f"{duration_text(left * record.samples_seen / record.step / record.samples_per_second)} left"
