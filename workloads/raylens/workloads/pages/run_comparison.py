"""Training runs beside each other: the settings that differ, their figures, and a page with their curves."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from raylens.errors import ConfigError, TrainingError
from raylens.report import ABSENT, Line, Panel, count_text, finite, legend_of, line_chart, number_text, render_page
from raylens.train.runs import RunFiles, best_row, differing, last_row

__all__ = ["Comparison"]

SAMPLES = "samples seen"
BETTER = {"min": "lower", "max": "higher"}
CURVES = (
    ("loss", "loss"),
    ("logit scale", "logit_scale"),
    ("learning rate", "lr"),
    ("pairs per second", "samples_per_second"),
)


@dataclass(frozen=True)
class Comparison:
    """The comparison of at least two different runs that have records."""

    runs: Sequence[RunFiles]

    def __post_init__(self) -> None:
        places = [run.place for run in self.runs]
        if len(places) < 2:
            raise ConfigError(f"{', '.join(places) or 'nothing'} cannot be compared alone: name two runs or more")
        twice = next((place for place in places if places.count(place) > 1), None)
        if twice is not None:
            raise ConfigError(f"{twice} is named twice: name each run once")
        for run in self.runs:
            if not run.records:
                raise TrainingError(
                    f"run {run.place} has no records: it has not trained log_every_steps steps yet, or its "
                    "metrics.jsonl is gone; leave it out"
                )

    @cached_property
    def names(self) -> list[str]:
        """The names of the runs, or their locations if two runs have the same name."""
        names = [run.name for run in self.runs]
        return names if len(set(names)) == len(names) else [run.place for run in self.runs]

    @cached_property
    def settings(self) -> dict[str, list[str]]:
        """The settings that differ, with their value in each run; name and storage are left out."""
        rows = differing([run.config for run in self.runs])
        return {
            key: [ABSENT if value is None else value for value in values]
            for key, values in rows.items()
            if key not in ("name", "storage")
        }

    @cached_property
    def figures(self) -> dict[str, list[str]]:
        """Last and best values, a row for each with a text for each run."""
        return {name: [texts.get(name, ABSENT) for texts in self._texts] for name in self._figure_names()}

    @property
    def metrics(self) -> list[str]:
        """The names of all metrics that were evaluated in any of the runs."""
        return sorted({metric for run in self.runs for metric in run.metrics})

    def page(self) -> str:
        """Return a self-contained HTML page; equal input gives equal bytes."""
        return render_page(
            "comparison.html.j2",
            "raylens.workloads.pages",
            title=", ".join(self.names),
            lines=legend_of(self.names),
            values=self.figures,
            settings=self.settings,
            panels=list(self._panels()),
        )

    @cached_property
    def _texts(self) -> list[dict[str, str]]:
        return [dict(_figures(run)) for run in self.runs]

    def _figure_names(self) -> list[str]:
        return list(dict.fromkeys(name for texts in self._texts for name in texts))

    def _panels(self) -> Iterator[Panel]:
        for title, key in CURVES:
            lines = [
                Line(
                    [run.samples_at(record) for record in run.records],
                    [finite(record.get(key)) for record in run.records],
                    number,
                )
                for number, run in enumerate(self.runs)
            ]
            yield Panel(title, line_chart(lines, SAMPLES), f"{title} against {SAMPLES}")
        for metric in self.metrics:
            goals = {goal for run in self.runs if metric in run.metrics and (goal := run.goal(metric))}
            better = f"; {BETTER[goals.pop()]} is better" if len(goals) == 1 else ""
            svg = line_chart([_evaluated(run, metric, number) for number, run in enumerate(self.runs)], SAMPLES)
            yield Panel(metric, svg, f"{metric} against {SAMPLES}{better}")


def _figures(run: RunFiles) -> Iterator[tuple[str, str]]:
    last, lowest = run.records[-1], best_row(run.records, "loss", "min")
    speeds = [speed for record in run.records if (speed := finite(record.get("samples_per_second"))) is not None]
    yield "state", run.state
    yield "steps", count_text(run.last_step)
    yield SAMPLES, count_text(run.samples_at(last))
    yield "last loss", number_text(last.get("loss"))
    if lowest is not None:
        yield "lowest loss", f"{number_text(lowest['loss'])} at step {lowest['step']:,}"
    yield "last logit scale", number_text(last.get("logit_scale"))
    yield "pairs per second (median)", number_text(statistics.median(speeds)) if speeds else ABSENT
    for metric in run.metrics:
        best, latest = best_row(run.evaluations, metric, run.goal(metric)), last_row(run.evaluations, metric)
        if latest is not None:
            yield f"last {metric}", number_text(latest[metric])
        if best is not None:
            yield f"best {metric}", f"{number_text(best[metric])} at step {best['step']:,}"


def _evaluated(run: RunFiles, metric: str, number: int) -> Line:
    known = [row for row in run.evaluations if finite(row.get(metric)) is not None]
    return Line([run.samples_at(row) for row in known], [finite(row[metric]) for row in known], number)
