"""Trackers, which record a run outside its folder: TensorBoard, MLflow, W&B and Prometheus."""

from raylens.train.tracking.trackers import Trackers

__all__ = ["Trackers"]
