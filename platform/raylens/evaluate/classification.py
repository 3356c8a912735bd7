"""Zero-shot classification (Radford et al. 2021, section 3.1).

Shapes: N images, C classes, k classes listed.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from raylens.evaluate.decide import UNDECIDED, Decisions, decide
from raylens.evaluate.features import ImageFeatures, image_features
from raylens.evaluate.intervals import Interval, clopper_pearson
from raylens.evaluate.labelled import ClassList, EvaluationSet, LabelledImage, lint_prompts
from raylens.evaluate.metrics import Metric

if TYPE_CHECKING:
    import pyarrow as pa

    from raylens.models import ZeroShotClassifier
    from raylens.registry import Encoder

__all__ = ["ZeroShotResult", "zero_shot", "zero_shot_from_features"]

TOP = 5
FEWEST_FOR_TOP5 = 6


@dataclass(frozen=True, eq=False)
class ZeroShotResult:
    """The result of a zero-shot classification, with everything that a report needs. All its numbers are finite."""

    name: str
    classes: tuple[str, ...]
    templates: tuple[str, ...]
    confidence: float
    rank_N: NDArray[np.int64]
    """The rank of each image's true class, as in `Decisions.rank_N`."""
    count_C: NDArray[np.int64]
    """The number of images of each class."""
    confusion_CC: NDArray[np.int64]
    """The number of images by true class (row) and prediction (column); undecided images are in no column."""
    unreadable: tuple[tuple[str, str], ...]
    """The uid and the reason of each unreadable image; these images are in no other number."""
    lint: tuple[str, ...]
    """The warnings about the prompts (see `lint_prompts`)."""
    table: "pa.Table"
    """A row per image: uid, label, prediction, rank, top_ids, top_logits; null where a logit is not finite."""

    @property
    def n(self) -> int:
        """The number of images that were classified."""
        return len(self.rank_N)

    @property
    def correct(self) -> int:
        """The number of images whose true class leads alone."""
        return int((self.rank_N == 1).sum())

    @property
    def undecided(self) -> int:
        """The number of images with a logit that is not finite; they count as wrong."""
        return int((self.rank_N == UNDECIDED).sum())

    @property
    def accuracy(self) -> float:
        """The share of images that are correct."""
        return self.correct / self.n

    @property
    def interval(self) -> Interval:
        """The Clopper-Pearson interval of the accuracy."""
        return clopper_pearson(self.correct, self.n, self.confidence)

    @property
    def mean_per_class(self) -> float:
        """The mean of the classes' accuracies, over the classes that have images."""
        seen_C = self.count_C > 0
        return float((self.confusion_CC.diagonal()[seen_C] / self.count_C[seen_C]).mean())

    @property
    def top5(self) -> float | None:
        """The share of images whose true class is among the top five, with ties against it; None below six classes."""
        if len(self.classes) < FEWEST_FOR_TOP5:
            return None
        return float(((self.rank_N >= 1) & (self.rank_N <= TOP)).mean())

    @property
    def chance(self) -> float:
        """The accuracy of guessing a class uniformly at random."""
        return 1.0 / len(self.classes)

    @property
    def majority(self) -> float:
        """The accuracy of always predicting the most frequent class."""
        return float(self.count_C.max() / self.n)

    def metrics(self) -> Iterator[Metric]:
        """Yield the metrics of the model, except those that are not defined."""
        yield Metric("accuracy", self.accuracy, "max")
        yield Metric("mean_per_class", self.mean_per_class, "max")
        if self.top5 is not None:
            yield Metric("top5", self.top5, "max")

    def facts(self) -> dict[str, float | int]:
        """The context of the metrics: their uncertainty, the accuracy of guessing, and counts of images."""
        return {
            "accuracy_low": self.interval.low,
            "accuracy_high": self.interval.high,
            "confidence": self.confidence,
            "chance": self.chance,
            "majority": self.majority,
            "n": self.n,
            "unreadable": len(self.unreadable),
            "undecided": self.undecided,
        }

    def to_json(self) -> str:
        """Return metrics with goals, classes, confusion matrix, lint and unreadable images as JSON without NaN."""
        measured = {metric.name: metric.value for metric in self.metrics()}
        fields = {
            "name": self.name,
            "metrics": {"top5": None, **measured, **self.facts()},  # null below six classes: the key is always there
            "goals": {metric.name: metric.goal for metric in self.metrics()},
            "classes": self.classes,
            "templates": self.templates,
            "confusion": self.confusion_CC.tolist(),
            "lint": self.lint,
            "unreadable": [{"uid": uid, "reason": reason} for uid, reason in self.unreadable],
        }
        return json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def zero_shot(
    encoder: "Encoder",
    evaluation_set: EvaluationSet,
    confidence: float = 0.95,
    *,
    batch: int = 64,
    progress: Callable[[int], None] | None = None,
) -> ZeroShotResult:
    """Classify images by the nearest of the averaged prompt embeddings.

    Ties count as wrong (see `decide`); unreadable images are listed and left out.

    Args:
        encoder: the encoder of images and prompts.
        evaluation_set: the task, whose images are read once.
        confidence: the confidence level of the interval around the accuracy.
        batch: the number of images embedded together.
        progress: a function that is called after each batch with the number of images read so far.

    Raises:
        ConfigError: ``confidence`` or ``batch`` is out of range.
        DataError: no image is readable, a uid is repeated, or a label is not the index of a class.
    """
    clopper_pearson(0, 1, confidence)  # an invalid confidence must not cost a pass over the images
    features = image_features(encoder, _labels_in_range(evaluation_set), batch, progress)
    classifier = encoder.classifier(evaluation_set.prompts())
    lint = lint_prompts(evaluation_set, encoder.tokenizer, encoder.context)
    return zero_shot_from_features(features, classifier, evaluation_set, confidence, lint=lint)


def zero_shot_from_features(
    features: ImageFeatures,
    classifier: "ZeroShotClassifier",
    classes: ClassList,
    confidence: float = 0.95,
    *,
    lint: tuple[str, ...] = (),
) -> ZeroShotResult:
    """Classify features that exist already; `zero_shot` computes them first.

    Raises:
        ConfigError: ``confidence`` is not between 0 and 1.
        DataError: a label is not the index of a class.
    """
    C, labels_N = len(classes.classes), features.labels_N
    for uid, label in zip(features.uids, labels_N.tolist(), strict=True):
        classes.check_label(label, f"image {uid!r}")
    decisions = decide(features.features_ND, classifier.class_CD.numpy(), labels_N, classifier.logit_scale, min(TOP, C))
    decided_N = decisions.prediction_N != UNDECIDED
    confusion_CC = np.zeros((C, C), dtype=np.int64)
    np.add.at(confusion_CC, (labels_N[decided_N], decisions.prediction_N[decided_N]), 1)
    return ZeroShotResult(
        name=classes.name,
        classes=tuple(classes.classes),
        templates=tuple(classes.templates),
        confidence=confidence,
        rank_N=decisions.rank_N,
        count_C=np.bincount(labels_N, minlength=C),
        confusion_CC=confusion_CC,
        unreadable=features.unreadable,
        lint=lint,
        table=_table(features, decisions),
    )


def _labels_in_range(evaluation_set: EvaluationSet) -> Iterator[LabelledImage]:
    """Yield the images; an invalid label stops the pass at that image, not at the end."""
    for item in evaluation_set.images:
        evaluation_set.check_label(item.label, f"image {item.uid!r}")
        yield item


def _table(features: ImageFeatures, decisions: Decisions) -> "pa.Table":
    import pyarrow as pa

    undecided_N = decisions.prediction_N == UNDECIDED
    k = decisions.top_ids_Nk.shape[1]

    def listed(values_Nk: NDArray[np.generic], kind: "pa.DataType") -> "pa.Array":
        flat = pa.array(values_Nk.reshape(-1), kind)
        return pa.FixedSizeListArray.from_arrays(flat, k, mask=pa.array(undecided_N))

    return pa.table(
        {
            "uid": pa.array(features.uids, pa.string()),
            "label": pa.array(features.labels_N, pa.int32()),
            "prediction": pa.array(decisions.prediction_N, pa.int32(), mask=undecided_N),
            "rank": pa.array(decisions.rank_N, pa.int32(), mask=undecided_N),
            "top_ids": listed(decisions.top_ids_Nk, pa.int32()),
            "top_logits": listed(decisions.top_logits_Nk, pa.float32()),
        }
    )
