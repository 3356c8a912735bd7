"""Sweeps: a search space over keys of a run's configuration, searched with Ray Tune; each trial is a training run."""

from raylens.tune.config import SweepConfig
from raylens.tune.domain import Domain
from raylens.tune.sweep import SweepResult, sweep

__all__ = ["Domain", "SweepConfig", "SweepResult", "sweep"]
