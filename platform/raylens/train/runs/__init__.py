"""Training runs as their folders describe them, read without Ray."""

from typing import TYPE_CHECKING

from raylens.lazy import lazy_face

if TYPE_CHECKING:
    from raylens.train.runs.events import event_text
    from raylens.train.runs.jsonl import EVALUATIONS, read_metrics, read_records
    from raylens.train.runs.listing import list_runs
    from raylens.train.runs.report import render_training_report, run_facts
    from raylens.train.runs.run_dir import CONFIG, RunFiles
    from raylens.train.runs.scores import best_row, last_row
    from raylens.train.runs.settings import changes, differing

__all__ = [
    "CONFIG",
    "EVALUATIONS",
    "RunFiles",
    "best_row",
    "changes",
    "differing",
    "event_text",
    "last_row",
    "list_runs",
    "read_metrics",
    "read_records",
    "render_training_report",
    "run_facts",
]

__getattr__ = lazy_face(
    __name__,
    {
        "CONFIG": "run_dir",
        "EVALUATIONS": "jsonl",
        "RunFiles": "run_dir",
        "best_row": "scores",
        "changes": "settings",
        "differing": "settings",
        "event_text": "events",
        "last_row": "scores",
        "list_runs": "listing",
        "read_metrics": "jsonl",
        "read_records": "jsonl",
        "render_training_report": "report",
        "run_facts": "report",
    },
)
