"""The settings of evaluation during a run, on images that it does not train on; they do not change the training."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from raylens.config.data import SourceConfig, from_uri
from raylens.config.node import Node
from raylens.names import EVALUATION_SET_NAME

__all__ = ["EvaluationConfig", "Goal"]

RECALLS = (1, 5, 10)

Goal = Literal["max", "min"]
"""Whether a higher or a lower value of a metric is better, in the terms of Ray Tune."""


class EvaluationConfig(Node):
    """The evaluation during a run, which all workers share; without ``pairs`` and ``zero_shot`` there is none."""

    every_steps: Annotated[int, Field(gt=0)] = 1000
    """Steps between evaluations; the last step is always evaluated."""
    pairs: SourceConfig | None = None
    """Image-text pairs for the validation loss and for retrieval in both directions: a URI, or as in ``data.train``."""
    most_pairs: Annotated[int, Field(gt=1, le=65_536)] = 4096
    """The most of ``pairs`` that are used, evenly spaced. Each worker keeps the pixels of its share in memory."""
    zero_shot: dict[str, SourceConfig] = {}  # noqa: RUF012 (pydantic copies it)
    """Names of evaluation sets, each with its labelled shards and their ``classes.json``, as `raylens evaluate` reads
    them; all images are used, and kept in memory like ``pairs``."""

    @field_validator("pairs", mode="before")
    @classmethod
    def _uri_alone(cls, pairs: object) -> object:
        return from_uri(pairs)

    @field_validator("zero_shot", mode="before")
    @classmethod
    def _uris_alone(cls, sets: object) -> object:
        return {name: from_uri(source) for name, source in sets.items()} if isinstance(sets, dict) else sets

    @field_validator("zero_shot")
    @classmethod
    def _plain_names(cls, sets: dict[str, SourceConfig]) -> dict[str, SourceConfig]:
        for name in sets:
            if not EVALUATION_SET_NAME.fits(name):
                raise ValueError(f"zero_shot has {name!r}: {EVALUATION_SET_NAME.fix}")
        return sets

    @property
    def anything(self) -> bool:
        """Whether there is anything to evaluate."""
        return self.pairs is not None or bool(self.zero_shot)

    def metrics(self, *, retrieval: bool) -> dict[str, Goal]:
        """Return the names of the metrics that the evaluator yields, with their goals.

        Args:
            retrieval: whether the objective embeds texts in the joint space.
        """
        ways = ("image_to_text", "text_to_image") if retrieval else ()
        metrics: dict[str, Goal] = {}
        if self.pairs is not None:
            metrics |= {"validation_loss": "min"}
            metrics |= {f"{way}_recall_{k}": "max" for way in ways for k in RECALLS}
        return metrics | {f"zero_shot_{name}": "max" for name in self.zero_shot}
