"""The exact shards, keys, crops and captions of a batch, without decoding an image."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from raylens.data.bijection import uniforms
from raylens.data.manifest import Manifest
from raylens.data.plan import Draws, Plan

__all__ = ["ExplainedSample", "explain"]

COLUMNS = ("key", "width", "height", "caption_count", "image_length")


@dataclass(frozen=True)
class ExplainedSample:
    """One sample of a batch, with its crop and caption."""

    position: int
    """Position of the sample in the plan."""
    source: int
    """Index of the data set in the configuration."""
    epoch: int
    """Epoch of that data set, from 0."""
    sample: int
    """Sample number within that data set, in manifest order."""
    shard: str
    key: str
    width: int
    """Width of the whole image in pixels."""
    height: int
    bytes: int
    """Size of the image file in bytes."""
    crop: tuple[float, float, float, float]
    """Left, top, right and bottom of the crop, in pixels of the whole image."""
    caption: int
    """Index of the chosen caption, from 0."""
    captions: int

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return asdict(self)


def explain(
    plan: Plan, manifests: Sequence[Manifest], positions: Sequence[int], crop_min_scale: float
) -> list[ExplainedSample]:
    """Return the samples at positions of the plan.

    Args:
        plan: the order.
        manifests: the manifests of the plan's data sets.
        positions: positions in any order.
        crop_min_scale: ``data.crop_min_scale``; 1 means the centre crop.

    Raises:
        ManifestError: a part of a manifest is damaged.
    """
    located = plan.locate(np.asarray(positions, dtype=np.int64))
    draws = [Draws.of(values) for values in uniforms(plan.draw_keys(located), 4)]
    rows: list[dict[str, Any]] = [{} for _ in positions]
    for number, manifest in enumerate(manifests):
        here = np.flatnonzero(located.source == number).tolist()
        samples = located.sample[here].tolist()
        for row_number, sample, row in zip(here, samples, manifest.rows(samples, COLUMNS), strict=True):
            shard = int(np.searchsorted(manifest.starts, sample, side="right")) - 1
            rows[row_number] = {**row, "shard": manifest.shards[shard].path}
    columns = (located.source.tolist(), located.epoch.tolist(), located.sample.tolist())
    return [
        ExplainedSample(
            position=int(position),
            source=source,
            epoch=epoch,
            sample=sample,
            shard=row["shard"],
            key=row["key"],
            width=row["width"],
            height=row["height"],
            bytes=row["image_length"],
            crop=draw.box(row["width"], row["height"], crop_min_scale),
            caption=draw.choose(row["caption_count"]),
            captions=row["caption_count"],
        )
        for position, source, epoch, sample, draw, row in zip(positions, *columns, draws, rows, strict=True)
    ]
