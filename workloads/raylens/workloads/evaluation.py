"""The evaluation of a registered model on labelled shards, with its report."""

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq

from raylens.config import SourceConfig
from raylens.evaluate import (
    LabelledImage,
    LabelledShards,
    ZeroShotResult,
    nearest_captions,
    pick_examples,
    write_report,
    zero_shot,
)
from raylens.registry import Encoder, Registry, Version
from raylens.report import count_text, percent_text
from raylens.storage import Store, open_store
from raylens.train.runs import read_metrics

__all__ = ["Evaluation", "evaluate_model"]

CAPTIONS = 400
"""Number of captions of the evaluated shards among which the report searches those nearest to an image."""


@dataclass(frozen=True)
class Evaluation:
    """The results of an evaluation, and the location of its report."""

    model: str
    accuracy: float
    interval: tuple[float, float]
    images: int
    unreadable: int
    chance: float
    final_loss: float | None
    report: str

    @property
    def headline(self) -> str:
        """The result in one line."""
        low, high = self.interval
        bad = f"; {self.unreadable} unreadable" if self.unreadable else ""
        return (
            f"zero-shot accuracy {percent_text(self.accuracy)} (95% interval {percent_text(low)} to "
            f"{percent_text(high)}) on {count_text(self.images, 'images')}, chance {percent_text(self.chance, 0)}{bad}"
        )


def evaluate_model(registry: str, reference: str, data: Store, out: Store) -> Evaluation:
    """Classify the images of labelled shards zero-shot, and write a report, metrics and a table of all images.

    Args:
        registry: URI of the registry.
        reference: ``name``, ``name@3`` or ``name@alias``.
        data: shards whose samples have a ``label`` in their ``json``, and a ``classes.json`` beside them.
        out: receives ``report.html``, ``zero_shot.json`` and ``examples.parquet``.

    Raises:
        NotFoundError: the model or ``classes.json`` does not exist.
        DataError: a sample has no label.
    """
    version, encoder = Registry(registry).load(reference)
    shards = LabelledShards.open(SourceConfig(uri=data.uri))
    images, captions = _read(shards)
    result = zero_shot(encoder, shards.classes.with_images(images))
    out.write("zero_shot.json", result.to_json().encode())
    out.write("examples.parquet", _parquet(result.table))
    curve = _report(version, encoder, data, out, result, images, captions)
    return Evaluation(
        model=str(version),
        accuracy=result.accuracy,
        interval=(result.interval.low, result.interval.high),
        images=result.n,
        unreadable=len(result.unreadable),
        chance=result.chance,
        final_loss=curve[-1]["loss"] if curve else None,
        report=f"{out.describe()}/report.html",
    )


def _read(shards: LabelledShards) -> tuple[list[LabelledImage], list[str]]:
    images: list[LabelledImage] = []
    captions: list[str] = []
    for image, caption in chain.from_iterable(shards.samples(shard) for shard in shards.shards):
        images.append(image)
        if caption and len(captions) < CAPTIONS:
            captions.append(caption)
    return images, list(dict.fromkeys(captions))


def _report(
    version: Version,
    encoder: Encoder,
    data: Store,
    out: Store,
    result: ZeroShotResult,
    images: list[LabelledImage],
    captions: list[str],
) -> list[dict[str, float]]:
    run = version.lineage.run
    curve = read_metrics(open_store(run)) if run else []
    chosen = set(pick_examples(result))
    shown = [image for image in images if image.uid in chosen]
    nearest = nearest_captions(encoder, shown, captions) if captions else []
    facts = {
        "Model": f"{version} ({version.digest[:12]})",
        "Run": open_store(run).describe() if run else "unknown",
        "Training data": version.lineage.training_data,
        "Evaluated on": data.describe(),
        "Date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    title = f"{version.name}: zero-shot evaluation"
    contrastive = version.lineage.objective in (None, "softmax")  # of the others ln(B) is no landmark
    batch = version.lineage.global_batch if contrastive else None
    write_report(out, title=title, zero_shot=result, curve=curve, nearest=nearest, facts=facts, global_batch=batch)
    return curve


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())
