"""Evaluation in the course of a run, against the registered model evaluated by itself."""

import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pytest
import torch

from raylens.config import EvaluationConfig, RunConfig, SourceConfig, apply_overrides, validated
from raylens.data import Source
from raylens.data.pack import pack
from raylens.errors import ConfigError
from raylens.evaluate import ClassList, LabelledImage, zero_shot
from raylens.messages import quiet
from raylens.registry import Encoder, Registry
from raylens.storage import Store, open_store
from raylens.train import RunResult, train
from raylens.train.checkpoint.store import Checkpoints
from raylens.train.loop.events import Evaluated, RunEvent, Warned
from raylens.train.run.prepare import prepare
from raylens.train.runs.jsonl import EVALUATIONS, read_metrics, read_records
from raylens.train.runs.report import REPORT
from raylens.workloads.evaluation import evaluate_model
from tests.conftest import samples

if TYPE_CHECKING:
    from raylens.data.formats import RawSample

MakeShards = Callable[..., Store]
CLASSES = ClassList("thirds", ("first", "second", "third"), ("a {}.", "the {} one"))
TWO_WITH_DROPOUT = ("resources.workers=2", "towers.dropout=0.2")

pytestmark = pytest.mark.usefixtures("cluster")


def config_of(tmp_path: Path, train_on: Store, held_out: Store, *changes: str) -> RunConfig:
    tree = {
        "name": "evaluated",
        "storage": str(tmp_path / "runs"),
        "global_batch": 12,
        "data": {"train": train_on.uri, "chunk_size": 4, "chunks_per_block": 4},
        "model": {
            "embed_dim": 16,
            "image": {"size": 16, "patch": 8, "width": 32, "layers": 2, "heads": 2},
            "text": {"context": 12, "vocab": 600, "width": 32, "layers": 1, "heads": 2},
        },
        "optim": {"peak_lr": 5e-3, "schedule": {"warmup_steps": 2}, "eps": 1e-6, "ema_decay": 0.8},
        "length": {"samples_seen": 12 * 20},
        "checkpoint": {"every_steps": 6, "keep_last": 1, "keep_best": 1},
        "evaluation": {"every_steps": 7, "pairs": held_out.uri, "zero_shot": {"frank": held_out.uri}},
        "log_every_steps": 5,
    }
    return validated(RunConfig, apply_overrides(tree, changes))


def by_itself(encoder: Encoder, held_out: Store, config: RunConfig) -> dict[str, float]:
    """The same figures of all held-out pairs, by plain formulas in fp64."""
    source, shards = Source.open(SourceConfig(uri=held_out.uri))
    rows: list[tuple[str, RawSample]] = list(
        chain.from_iterable([(shard.path, sample) for sample in source.walk(shard)] for shard in shards)
    )
    samples = [sample for _, sample in rows]
    texts = [str(sample.caption) for sample in samples]
    image_ND = encoder.encode_images([sample.image or b"" for sample in samples]).double()
    text_ND = encoder.encode_texts(texts).double()
    losses = []
    for at in range(0, len(samples) - 11, 12):
        logits = encoder.logit_scale * image_ND[at : at + 12] @ text_ND[at : at + 12].T
        both = [torch.nn.functional.cross_entropy(one, torch.arange(12)) for one in (logits, logits.T)]
        losses.append(float(sum(both)) / 2)
    images = [LabelledImage(f"{path}/{one.key}", one.image or b"", one.meta["label"]) for path, one in rows]
    accuracy = zero_shot(encoder, CLASSES.with_images(images)).accuracy
    cosine_NN = (image_ND @ text_ND.T).numpy()
    found = []
    for row, own in enumerate(texts):
        nearest = sorted(set(texts), key=lambda text: -cosine_NN[row, texts.index(text)])
        found.append(nearest.index(own) < 5)
    return {
        "validation_loss": float(np.mean(losses)),
        "zero_shot_frank": accuracy,
        "image_to_text_recall_5": float(np.mean(found)),
    }


@dataclass(frozen=True)
class Run:
    """One that is over, and what was heard of it."""

    config: RunConfig
    held_out: Store
    result: RunResult
    heard: list[RunEvent]

    @classmethod
    def of(cls, folder: Path, *changes: str, evaluated: bool = True) -> Self:
        train_on, held_out = open_store(folder / "shards"), open_store(folder / "heldout")
        pack(samples(40), train_on, per_shard=10)
        pack(samples(37), held_out, per_shard=5)
        CLASSES.write(held_out)
        config, heard = config_of(folder, train_on, held_out, *changes), list[RunEvent]()
        if not evaluated:
            config = config.model_copy(update={"evaluation": EvaluationConfig()})
        return cls(config, held_out, train(config, say=quiet, on_event=heard.append), heard)

    def weights(self) -> dict[str, bytes]:
        encoder = Registry(self.config.registry_uri).load(str(self.result.version))[1]
        return {name: one.numpy().tobytes() for name, one in encoder.bundle.weights.items()}


@pytest.fixture(scope="module")
def seen(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """By two workers, with dropout, of which there is none while they evaluate."""
    return Run.of(tmp_path_factory.mktemp("seen"), *TWO_WITH_DROPOUT)


def test_figures_are_those_of_the_registered_model(seen: Run) -> None:
    check_figures(seen, workers=2, tolerance=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("workers", "changes", "tolerance"),
    [
        (3, ("zero.stage=3", "resources.micro_batch=2"), 1e-5),
        (2, ("zero.stage=2", "precision=bf16"), 0.1),
    ],
)
def test_figures_of_parameters_in_parts_and_of_bf16(
    tmp_path: Path, workers: int, changes: tuple[str, ...], tolerance: float
) -> None:
    check_figures(Run.of(tmp_path, f"resources.workers={workers}", *changes), workers, tolerance)


def check_figures(run: Run, workers: int, tolerance: float) -> None:
    config, held_out, result, heard = run.config, run.held_out, run.result, run.heard
    rows = read_records(open_store(result.run_uri), EVALUATIONS)
    # Every 7 steps, at checkpoints that are to be compared, and at the end.
    assert [row["step"] for row in rows] == [6, 7, 12, 14, 18, 20]
    assert [
        {metric.name: metric.value for metric in event.metrics} for event in heard if isinstance(event, Evaluated)
    ] == [_metrics(row) for row in rows]
    encoder = Registry(config.registry_uri).load(str(result.version))[1]
    for name, value in by_itself(encoder, held_out, config).items():
        assert rows[-1][name] == pytest.approx(value, abs=tolerance), name
    checkpoints = Checkpoints(open_store(result.run_uri))
    losses = {row["step"]: row["validation_loss"] for row in rows if row["step"] in (6, 12, 18, 20)}
    assert checkpoints.steps() == sorted({20, min(losses, key=losses.__getitem__)})
    assert checkpoints.manifest(20).metrics == _metrics(rows[-1])
    assert checkpoints.manifest(20).goals == rows[-1]["goals"] == config.metrics
    record = read_metrics(open_store(result.run_uri))[-1]
    assert sum(record["positive_cosines"]) == 12
    assert sum(record["negative_cosines"]) == 12 * (12 // workers - 1)
    assert record["epoch"] == 6.0
    assert record["image_norm"] > 0
    assert record["memory_bytes"] > 100e6
    assert "<svg" in open_store(result.run_uri).read_text(REPORT)


def test_the_report_names_the_data_that_the_model_was_trained_on(seen: Run, tmp_path: Path) -> None:
    (manifest,) = prepare(seen.config, quiet).manifests
    lineage = Registry(seen.config.registry_uri).resolve(str(seen.result.version)).lineage
    assert (lineage.manifests, lineage.run, lineage.step) == ((manifest.digest,), seen.result.run_uri, 20)
    evaluate_model(seen.config.registry_uri, str(seen.result.version), seen.held_out, open_store(tmp_path))
    page = open_store(tmp_path).read_text("report.html")
    assert lineage.training_data == f"{seen.config.data.train[0].uri} ({manifest.digest[:12]})"
    assert re.search(rf"Training data</th>\s*<td>{re.escape(html.escape(lineage.training_data))}</td>", page)


def _metrics(row: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name not in ("step", "samples_seen", "seconds", "goals")}


def test_evaluating_changes_nothing_that_is_learned(seen: Run, tmp_path: Path) -> None:
    blind = Run.of(tmp_path, *TWO_WITH_DROPOUT, "checkpoint.keep_best=0", evaluated=False)
    assert not [event for event in blind.heard if isinstance(event, Evaluated)]
    assert blind.weights() == seen.weights()


def test_what_cannot_be_read_is_told_and_left_out(tmp_path: Path, make_shards: MakeShards) -> None:
    data, held_out = make_shards(40), make_shards(37, per_shard=5, name="heldout")
    config = config_of(tmp_path, data, held_out)
    with pytest.raises(ConfigError, match=r"evaluation\.zero_shot\.frank = .*heldout.*need a classes\.json"):
        train(config, say=quiet)
    CLASSES.write(held_out)
    held_out.delete("000003.tar")
    text = held_out.read("000001.tar")
    held_out.write("000001.tar", text.replace(b"\x89PNG", b"\x89GIF"))
    heard: list[RunEvent] = []
    train(config, say=quiet, on_event=heard.append)
    warnings = [event.text for event in heard if isinstance(event, Warned)]
    assert [text.startswith("evaluation after step 6: 5 images") for text in warnings] == [True]
