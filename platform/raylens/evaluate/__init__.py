"""The evaluation of encoders: features computed once, metrics with intervals, and a report."""

from typing import TYPE_CHECKING

from raylens.lazy import lazy_face

if TYPE_CHECKING:
    from raylens.evaluate.captions import NearestCaptions, nearest_captions, pick_examples
    from raylens.evaluate.classification import ZeroShotResult, zero_shot, zero_shot_from_features
    from raylens.evaluate.features import ImageFeatures, image_features
    from raylens.evaluate.intervals import Interval, clopper_pearson
    from raylens.evaluate.labelled import CLASSES_FILE, ClassList, EvaluationSet, LabelledImage, LabelledShards
    from raylens.evaluate.metrics import Goal, Metric, cost, goal_of
    from raylens.evaluate.report import render_report, write_report
    from raylens.evaluate.retrieval import recalls

__all__ = [
    "CLASSES_FILE",
    "ClassList",
    "EvaluationSet",
    "Goal",
    "ImageFeatures",
    "Interval",
    "LabelledImage",
    "LabelledShards",
    "Metric",
    "NearestCaptions",
    "ZeroShotResult",
    "clopper_pearson",
    "cost",
    "goal_of",
    "image_features",
    "nearest_captions",
    "pick_examples",
    "recalls",
    "render_report",
    "write_report",
    "zero_shot",
    "zero_shot_from_features",
]

__getattr__ = lazy_face(
    __name__,
    {
        "CLASSES_FILE": "labelled",
        "ClassList": "labelled",
        "EvaluationSet": "labelled",
        "Goal": "metrics",
        "ImageFeatures": "features",
        "Interval": "intervals",
        "LabelledImage": "labelled",
        "LabelledShards": "labelled",
        "Metric": "metrics",
        "NearestCaptions": "captions",
        "ZeroShotResult": "classification",
        "clopper_pearson": "intervals",
        "cost": "metrics",
        "goal_of": "metrics",
        "image_features": "features",
        "nearest_captions": "captions",
        "pick_examples": "captions",
        "recalls": "retrieval",
        "render_report": "report",
        "write_report": "report",
        "zero_shot": "classification",
        "zero_shot_from_features": "classification",
    },
)
