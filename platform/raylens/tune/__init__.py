"""Sweeps: a space over any key of a run's configuration, searched on Ray Tune, each trial a training run."""

from raylens.tune.config import SweepConfig
from raylens.tune.domain import Domain
from raylens.tune.sweep import SweepResult, sweep

__all__ = ["Domain", "SweepConfig", "SweepResult", "sweep"]
