"""The metric of a sweep's trials against each searched key, a small plot a key."""

from collections.abc import Iterator

from raylens.report.page import Panel
from raylens.tune.comparable import Point
from raylens.tune.report.drawing import Dot, Frame, Mark, drawing
from raylens.report.axis import trials_text
from raylens.tune.report.view import Shown
from raylens.tune.trials import TrialRecord

__all__ = ["key_frame", "scatter_panels"]

WIDTH, HEIGHT = 344.0, 232.0


def scatter_panels(shown: Shown) -> list[Panel]:
    """One a key, in the order of the space; a key without any trial is left out."""
    return [panel for key in shown.scales if (panel := _panel(shown, key)) is not None]


def key_frame(shown: Shown, key: str) -> Frame:
    """Where a value of the key and one of the metric are drawn."""
    return Frame(shown.scales[key], shown.metric_scale, 52, 12, WIDTH - 66, HEIGHT - 56)


def _panel(shown: Shown, key: str) -> Panel | None:
    frame = key_frame(shown, key)
    points = sorted(
        (point for point in shown.drawn if key in point.values),
        key=lambda point: (shown.is_best(point), point.trial.state == "finished"),
    )
    failed = [trial for trial in _failed(shown) if key in trial.values]
    dots = [mark for point in points for mark in _dot(point, key, frame, shown)]
    crosses = [mark for trial in failed for mark in _cross(trial, key, frame, shown)]
    if not dots and not crosses:
        return None
    marks = [*frame.grid(), *crosses, *dots]
    return Panel(key, drawing(WIDTH, HEIGHT, marks), _says(shown, key, points, failed))


def _failed(shown: Shown) -> list[TrialRecord]:
    """Those that ended without any value of the metric."""
    return [trial for trial in shown.trials if trial.state == "failed" and not _measured(trial, shown.metric)]


def _measured(trial: TrialRecord, metric: str) -> bool:
    return any(metric in one.metrics for one in trial.curve)


def _dot(point: Point, key: str, frame: Frame, shown: Shown) -> Iterator[Mark]:
    place, trial = frame.at(point.values[key], point.metric), point.trial
    if place is None:
        return
    beyond = not frame.y_scale.low <= point.metric <= frame.y_scale.high
    kind = "dot best" if shown.is_best(point) else f"dot {trial.state}"
    yield Dot(*place, kind, shown.says(trial), "triangle" if beyond else "circle")


def _cross(trial: TrialRecord, key: str, frame: Frame, shown: Shown) -> Iterator[Mark]:
    """At the worse edge."""
    across = frame.x_scale.place(trial.values[key])
    if across is not None:
        yield Dot(frame.x(across), frame.y(1.0 if shown.lower else 0.0), "cross", f"{trial.name}, failed", "cross")


def _says(shown: Shown, key: str, points: list[Point], failed: list[TrialRecord]) -> str:
    scale = shown.metric_scale
    beyond = sum(not scale.low <= point.metric <= scale.high for point in points)
    without = sum(key not in point.values for point in shown.points)
    says = [trials_text(len(points))]
    if beyond:
        says.append(f"{beyond:,} far worse at the edge (triangles)")
    if failed:
        says.append(f"{len(failed):,} failed without a value at the edge (crosses)")
    if without:
        says.append(f"the key does not apply to {without:,}")
    return "; ".join(says) + "."
