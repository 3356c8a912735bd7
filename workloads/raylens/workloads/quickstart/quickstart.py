"""The quickstart on one machine: pack, train, register, evaluate, serve, check."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice

import numpy as np

from raylens.config import RunConfig, SourceConfig, apply_overrides, merge, validated
from raylens.data import Source
from raylens.errors import ServingError
from raylens.inputs import fill_templates
from raylens.ports import free_port
from raylens.registry import Encoder, Registry, Version
from raylens.serve import EmbeddingClient, serve_model
from raylens.storage import Store, open_store
from raylens.train import train
from raylens.workloads.evaluation import evaluate_model
from raylens.workloads.pages.terminal import Terminal
from raylens.workloads.quickstart.digits import CLASSES, TEMPLATES, DigitShards, pack_digits
from raylens.workloads.recipes import digits

__all__ = ["QuickstartResult", "quickstart", "quickstart_config"]

TOLERANCE = 1e-4
"""Largest difference between a served and an offline value: both are fp32, batched differently."""
CHECKED = 8


@dataclass(frozen=True)
class QuickstartResult:
    """The results of the quickstart, which ``--json`` prints."""

    zero_shot_accuracy: float
    zero_shot_interval: tuple[float, float]
    held_out_scans: int
    train_pairs: int
    steps: int
    resumed_at: int
    final_loss: float | None
    model: str
    run: str
    report: str
    registry: str
    served_max_difference: float
    seconds: Mapping[str, float]

    def as_dict(self) -> dict[str, object]:
        """Return the results as plain values for JSON."""
        return asdict(self)


def quickstart_config(storage: Store, assignments: Sequence[str] = ()) -> RunConfig:
    """Return the digits recipe with everything under one folder."""
    places = {
        "data": {"train": (storage / "data" / "train").uri},
        "storage": (storage / "runs").uri,
        "registry": (storage / "registry").uri,
    }
    return validated(RunConfig, apply_overrides(merge(digits().model_dump(mode="json"), places), assignments))


def quickstart(
    uri: str,
    terminal: Terminal,
    *,
    assignments: Sequence[str] = (),
    port: int = 0,
    inherited: Mapping[str, str] | None = None,
) -> QuickstartResult:
    """Run every stage for real; Ray must be initialised. Run again, it resumes or reuses what is there.

    Args:
        uri: folder or ``s3://bucket/prefix`` for everything that is written.
        terminal: shows the progress.
        assignments: changes to the digits recipe, ``key=value``.
        port: of the embedding API; 0 takes a free one.
        inherited: variables that Ray was started with; see `raylens.serve.serve_service`.

    Raises:
        RaylensError: what went wrong, in one line.
    """
    storage, clock = open_store(uri), _Clock()
    terminal.title("1  Pack 1,797 digit scans as image-text shards")
    shards = pack_digits(storage / "data")
    terminal.say(f"{shards.train_samples} to train on, {shards.held_out_samples} held out: {storage.describe()}/data")
    clock.lap("pack")
    terminal.title("2  Train: Ray Data -> Ray Train -> DeepSpeed ZeRO")
    config = quickstart_config(storage, assignments)
    run = train(config, say=terminal.say, on_event=terminal.on_event)
    terminal.say(f"registered as {run.version} in {open_store(config.registry_uri).describe()}")
    clock.lap("train")
    terminal.title("3  Evaluate: zero-shot on the held-out scans")
    evaluation = evaluate_model(config.registry_uri, str(run.version), shards.held_out, open_store(run.run_uri))
    terminal.say(evaluation.headline)
    clock.lap("evaluate")
    terminal.title("4  Serve: embed over HTTP and compare with offline values")
    difference = _serve_and_check(config, run.version, shards, port, terminal, inherited)
    clock.lap("serve")
    return QuickstartResult(
        zero_shot_accuracy=evaluation.accuracy,
        zero_shot_interval=evaluation.interval,
        held_out_scans=evaluation.images,
        train_pairs=run.samples,
        steps=run.steps,
        resumed_at=run.resumed_at,
        final_loss=evaluation.final_loss,
        model=str(run.version),
        run=open_store(run.run_uri).describe(),
        report=evaluation.report,
        registry=open_store(config.registry_uri).describe(),
        served_max_difference=difference,
        seconds=clock.laps,
    )


def _serve_and_check(
    config: RunConfig,
    version: Version,
    shards: DigitShards,
    port: int,
    terminal: Terminal,
    inherited: Mapping[str, str] | None,
) -> float:
    _, encoder = Registry(config.registry_uri).load(str(version))
    images, texts = _some_pairs(shards.held_out)
    with serve_model(
        registry=config.registry_uri,
        reference=str(version),
        port=port or free_port(),
        precision="fp32",
        inherited=inherited,
        on_progress=terminal.say,
    ) as service:
        terminal.say(f"{version} answers at {service.url}")
        with EmbeddingClient(service.url) as client:
            difference = check_served(client, encoder, images, texts)
    terminal.say(
        f"{len(images)} images, {len(texts)} texts and a classification agree to {difference:.1e}; API stopped"
    )
    return difference


def _some_pairs(store: Store) -> tuple[list[bytes], list[str]]:
    source, shards = Source.open(SourceConfig(uri=store.uri))
    samples = list(islice(source.walk(shards[0]), CHECKED))
    return [s.image for s in samples if s.image], [s.caption for s in samples if s.caption]


def check_served(client: EmbeddingClient, encoder: Encoder, images: list[bytes], texts: list[str]) -> float:
    """Return the largest difference between the API's answers and the encoder's offline values.

    Raises:
        ServingError: the difference is above `TOLERANCE`.
    """
    prompts = fill_templates(CLASSES, TEMPLATES)
    pixels_BD = encoder.encode_images(images)
    pairs = {
        "text embedding": (client.embed(texts), encoder.encode_texts(texts).numpy()),
        "image embedding": (client.embed(images), pixels_BD.numpy()),
        "zero-shot probability": (
            client.classify(images, CLASSES, TEMPLATES),
            encoder.classifier(prompts).probabilities(pixels_BD).numpy(),
        ),
    }
    worst = 0.0
    for what, (served, offline) in pairs.items():
        difference = float(np.abs(np.asarray(served) - offline).max())
        if not difference <= TOLERANCE:
            raise ServingError(
                f"served {what} differs from the offline value by {difference:.2e} (allowed {TOLERANCE})"
            )
        worst = max(worst, difference)
    return worst


class _Clock:
    """Measures the seconds of each stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._mark = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps[name] = round(now - self._mark, 1)
        self._mark = now
