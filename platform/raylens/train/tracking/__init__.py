"""Tools that follow a run besides its own folder: TensorBoard, MLflow, W&B, Prometheus."""

from raylens.train.tracking.trackers import Trackers

__all__ = ["Trackers"]
