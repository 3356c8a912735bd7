"""What a result of Ray Tune makes of a trial's record."""

from collections.abc import Collection, Mapping
from typing import Any

from raylens.tune.trials import Copied, Measured, TrialRecord

__all__ = ["measured"]


def measured(
    old: TrialRecord, result: Mapping[str, Any], values: Mapping[str, Any], metrics: Collection[str], seconds: float
) -> TrialRecord:
    """The record after an evaluation.

    Args:
        old: before it.
        result: as `raylens.tune.reporter` makes it.
        values: of the trial, from now on.
        metrics: names of what is kept of the result.
        seconds: of the trial's own time, by now.
    """
    found = {key: float(result[key]) for key in metrics if isinstance(result.get(key), int | float)}
    one = Measured(step=result["steps"], samples=result["samples"], seconds=seconds, metrics=found)
    copies, curve = old.copies, old.curve
    if "copied_of" in result and result["run"] != old.run:
        copies = [*copies, _copied(len(curve), result, values)]
    first = copies[-1].at if copies else 0
    # A trial that went on from an older checkpoint reports again what it reported before.
    curve = [other for place, other in enumerate(curve) if place < first or other.step < one.step]
    done = bool(result["of_steps"]) and one.step >= result["of_steps"]
    return old.with_(
        curve=[*curve, one],
        copies=copies,
        values=dict(values),
        run=result["run"],
        seconds=seconds,
        state="finished" if done else "running",
    )


def _copied(at: int, result: Mapping[str, Any], values: Mapping[str, Any]) -> Copied:
    return Copied(
        at=at,
        of=result["copied_of"],
        step=result["copied_step"],
        samples=result["copied_samples"],
        values=dict(values),
    )
