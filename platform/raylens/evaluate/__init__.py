"""How good an encoder is: features once, then figures with intervals, and a report to look at."""

from raylens.evaluate.captions import NearestCaptions, nearest_captions, pick_examples
from raylens.evaluate.examples import CLASSES_FILE, ClassList, EvaluationSet, LabelledImage
from raylens.evaluate.features import ImageFeatures, image_features
from raylens.evaluate.intervals import Interval, clopper_pearson
from raylens.evaluate.report import render_report, write_report
from raylens.evaluate.zero_shot import ZeroShotResult, zero_shot, zero_shot_from_features

__all__ = [
    "CLASSES_FILE",
    "ClassList",
    "EvaluationSet",
    "ImageFeatures",
    "Interval",
    "LabelledImage",
    "NearestCaptions",
    "ZeroShotResult",
    "clopper_pearson",
    "image_features",
    "nearest_captions",
    "pick_examples",
    "render_report",
    "write_report",
    "zero_shot",
    "zero_shot_from_features",
]
