"""Sweeps: a search space over keys of a run's configuration, searched with Ray Tune; each trial is a training run."""

from typing import TYPE_CHECKING

from raylens.lazy import lazy_face
from raylens.tune.config import SweepConfig
from raylens.tune.domain import Domain
from raylens.tune.sweep import SweepResult, sweep

if TYPE_CHECKING:
    from raylens.tune.best import promote
    from raylens.tune.config import BudgetConfig, SchedulerConfig
    from raylens.tune.monitor import PARTS
    from raylens.tune.paths import BEST, CONFIG, REPORT, STOP, parent_of, read_config
    from raylens.tune.results import Configuration, ranked, verdict
    from raylens.tune.space import with_values
    from raylens.tune.sweep import GUESSED_STEPS
    from raylens.tune.trials import SweepRecord, TrialRecord, read_or_new_sweep, read_sweep

__all__ = [
    "BEST",
    "CONFIG",
    "GUESSED_STEPS",
    "PARTS",
    "REPORT",
    "STOP",
    "BudgetConfig",
    "Configuration",
    "Domain",
    "SchedulerConfig",
    "SweepConfig",
    "SweepRecord",
    "SweepResult",
    "TrialRecord",
    "parent_of",
    "promote",
    "ranked",
    "read_config",
    "read_or_new_sweep",
    "read_sweep",
    "sweep",
    "verdict",
    "with_values",
]

__getattr__ = lazy_face(
    __name__,
    {
        "BEST": "paths",
        "CONFIG": "paths",
        "GUESSED_STEPS": "sweep",
        "PARTS": "monitor",
        "REPORT": "paths",
        "STOP": "paths",
        "BudgetConfig": "config",
        "Configuration": "results",
        "SchedulerConfig": "config",
        "SweepRecord": "trials",
        "TrialRecord": "trials",
        "parent_of": "paths",
        "promote": "best",
        "ranked": "results",
        "read_config": "paths",
        "read_or_new_sweep": "trials",
        "read_sweep": "trials",
        "verdict": "results",
        "with_values": "space",
    },
)
