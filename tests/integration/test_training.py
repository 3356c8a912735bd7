"""Training for real: Ray Data, Ray Train, DeepSpeed; against a plain torch loop over the same plan."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from raylens.config import RunConfig, apply_overrides, validated
from raylens.data.block import BlockMaker
from raylens.data.reader import open_reader
from raylens.data.verify import Topology, verify
from raylens.errors import (
    ClusterError,
    ManifestError,
    NotFoundError,
    QuarantineError,
)
from raylens.messages import quiet
from raylens.registry import Registry
from raylens.storage import Store, open_store
from raylens.train import RunResult, train
from raylens.train.checkpoint.store import Checkpoints
from raylens.train.loop.events import Checkpointed, Metrics, Restarting, RunEvent
from raylens.train.run.prepare import prepare
from raylens.train.run.worker import build_model
from raylens.train.runs.jsonl import EVALUATIONS, read_metrics, read_records
from tests.shared_ray import CPUS

MakeShards = Callable[..., Store]
LIKE_TORCH = 8
"""Steps for which a run's losses are those of plain torch but for rounding, which grows from step to step."""

pytestmark = pytest.mark.usefixtures("cluster")


def small(tmp_path: Path, data: Store, **changes: object) -> RunConfig:
    tree = {
        "name": "small",
        "storage": str(tmp_path / "runs"),
        "global_batch": 12,
        "data": {"train": data.uri, "chunk_size": 4, "chunks_per_block": 4, "crop_min_scale": 0.7},
        "model": {
            "embed_dim": 16,
            "image": {"size": 16, "patch": 8, "width": 32, "layers": 2, "heads": 2},
            "text": {"context": 12, "vocab": 600, "width": 32, "layers": 1, "heads": 2},
        },
        "optim": {"peak_lr": 2e-3, "schedule": {"warmup_steps": 2}, "eps": 1e-6, "clip_norm": 1.0},
        "length": {"samples_seen": 12 * 8},
        "checkpoint": {"every_steps": 4, "keep_last": 2},
        "log_every_steps": 1,
    }
    return validated(RunConfig, apply_overrides(tree, [f"{key}={value}" for key, value in changes.items()]))


def reference_losses(config: RunConfig, steps: int | None = None) -> list[float]:
    """The same run in one process: plan, torch's AdamW and clipping, the dense loss in fp64."""
    ready = prepare(config, quiet)
    maker = BlockMaker(
        ready.plan, tuple(manifest.home for manifest in ready.manifests), ready.store.uri, ready.preprocess,
        ready.tokenizer.to_json(), config.model.text.context, config.data.crop_min_scale, config.data.max_pixels,
    )  # fmt: skip
    model = build_model(config, ready.tokenizer, ready.preprocess)
    decayed = [p for n, p in model.named_parameters() if p.ndim > 1 or "class_embedding" in n]
    spared = [p for n, p in model.named_parameters() if not (p.ndim > 1 or "class_embedding" in n)]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.optim.weight_decay}, {"params": spared, "weight_decay": 0.0}],
        betas=(config.optim.beta1, config.optim.beta2),
        eps=config.optim.eps,
    )
    losses = []
    for step in range(steps or ready.steps):
        first = step * config.global_batch
        block = maker.make(first, first + config.global_batch)
        images, ids = (torch.from_numpy(block[name]) for name in ("image", "ids"))
        image_BD, text_BD, log_scale, _ = model(images, ids)
        logits = log_scale.double().exp() * image_BD.double() @ text_BD.double().T
        target = torch.arange(len(logits))
        loss = (
            torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.T, target)
        ) / 2
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optim.clip_norm)
        warm = 2
        scale = (step + 1) / warm if step < warm else 0.5 * (1 + np.cos(np.pi * (step - warm) / (ready.steps - warm)))
        for group in optimizer.param_groups:
            group["lr"] = config.optim.peak_lr * float(scale)
        optimizer.step()
        losses.append(loss.item())
    return losses


def check_like_plain_torch(config: RunConfig, result: RunResult, steps: int | None = None) -> None:
    """The losses, up to a step where it is a long run: rounding grows on the way; and that the encoder can be used."""
    losses = [record["loss"] for record in read_metrics(open_store(result.run_uri))]
    assert losses[:steps] == pytest.approx(reference_losses(config, steps), rel=2e-4)
    check_encoder(config)


def check_encoder(config: RunConfig) -> None:
    _, encoder = Registry(config.registry_uri).load(config.name)
    vectors = encoder.encode_texts(["a red cat", "a small house"])
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(2), atol=1e-5)


@pytest.mark.slow
def test_workers_and_stage_may_change_at_every_interruption(tmp_path: Path, make_shards: MakeShards) -> None:
    """Ctrl-C saves and ends; another number of workers at another stage goes on, over the same global batches.

    The first three workers, at ZeRO 1, train like plain torch to the last digits.
    """
    steps = 300  # enough for both interruptions where steps are fast and events are late
    length = {"length.samples_seen": 12 * steps, "checkpoint.every_steps": 10}
    config = small(tmp_path, make_shards(40), **length)
    interrupted = []
    for workers, stage, presses in ((3, 1, True), (1, 3, True), (4, 2, False)):
        changes = [f"resources.workers={workers}", f"zero.stage={stage}"]
        scaled = validated(RunConfig, apply_overrides(config.model_dump(), changes))
        interrupted.append(_train(scaled, presses=presses))
    assert interrupted[0] < interrupted[1] < steps
    records = read_metrics(open_store(config.storage) / "small")
    ready = prepare(config, quiet)
    spans = Topology(((0, 3), (interrupted[0], 1), (interrupted[1], 4)))
    expected = verify(ready.plan, 12, [Topology(((0, 1),)), spans], steps).hashes
    assert [word for record in records for word in record["sample_hashes"]] == list(expected)
    assert [record["step"] for record in records] == list(range(1, steps + 1))
    # Rounding grows as training goes on; until a while after the first change it has not grown.
    reference = reference_losses(config, steps=interrupted[0] + 20)
    losses = [record["loss"] for record in records]
    assert losses[: len(reference)] == pytest.approx(reference, rel=2e-3)
    assert losses[:LIKE_TORCH] == pytest.approx(reference[:LIKE_TORCH], rel=2e-4)
    check_encoder(config)


def _train(config: RunConfig, *, presses: bool) -> int:
    """Train; if told so, press Ctrl-C at the second checkpoint that is heard of. The step at which it ended."""
    heard: list[int] = []

    def on_event(event: RunEvent) -> None:
        if isinstance(event, Checkpointed):
            heard.append(event.step)
            if presses and len(heard) == 2:
                os.kill(os.getpid(), signal.SIGINT)

    if presses:
        with pytest.raises(KeyboardInterrupt):
            train(config, say=quiet, on_event=on_event)
    else:
        train(config, say=quiet, on_event=on_event)
    return Checkpoints(open_store(config.storage) / config.name).steps()[-1]


def test_a_warning_before_the_end_makes_a_checkpoint_at_once(tmp_path: Path, make_shards: MakeShards) -> None:
    """SIGTERM to a worker of two at ZeRO 3, as machines send it that are about to be taken away.

    The run goes on, and until the warning it has trained like plain torch.
    """
    steps = 300  # events are heard twice a second: there must be steps left then, however fast they are
    changes = {
        "length.samples_seen": 12 * steps,
        "checkpoint.every_steps": 1000,
        "zero.stage": 3,
        "resources.workers": 2,
    }
    config = small(tmp_path, make_shards(40), **changes)
    heard: list[RunEvent] = []
    told: list[int] = []

    def on_event(event: RunEvent) -> None:
        heard.append(event)
        if isinstance(event, Metrics) and event.record.step >= 20 and not told:
            told.append(event.record.step)
            _workers()[-1].terminate()

    result = train(config, say=quiet, on_event=on_event)
    saved = [event.step for event in heard if isinstance(event, Checkpointed)]
    assert len(saved) == 2
    assert told[0] <= saved[0] < steps
    assert saved[1] == steps
    assert not [event for event in heard if isinstance(event, Restarting)]
    check_like_plain_torch(config, result, LIKE_TORCH)


@pytest.mark.slow
def test_checkpoints_by_the_clock_have_metrics_to_be_compared_by(tmp_path: Path, make_shards: MakeShards) -> None:
    changes = {
        "length.samples_seen": 12 * 60,
        "checkpoint.every_steps": "null",
        "checkpoint.every_minutes": 0.002,
        "checkpoint.keep_last": 60,
        "checkpoint.keep_best": 1,
        "evaluation.every_steps": 1000,
        "evaluation.pairs": make_shards(12, name="heldout").uri,
    }
    config, heard = small(tmp_path, make_shards(40), **changes), list[RunEvent]()
    result = train(config, say=quiet, on_event=heard.append)
    saved = [event.step for event in heard if isinstance(event, Checkpointed)]
    assert len(saved) > 1
    assert saved[-1] == 60
    checkpoints = Checkpoints(open_store(result.run_uri))
    assert checkpoints.steps() == saved
    losses = {row["step"]: row["validation_loss"] for row in read_records(open_store(result.run_uri), EVALUATIONS)}
    assert {step: checkpoints.manifest(step).metrics["validation_loss"] for step in saved} == losses
    records = [event.record for event in heard if isinstance(event, Metrics)]
    assert sum(record.paused_seconds for record in records) > 0
    assert records[0].paused_seconds == 0


def _workers() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if "RayTrainWorker" in "".join(p.cmdline())]


def test_bad_images_are_replaced_and_told_until_there_are_too_many(tmp_path: Path, make_shards: MakeShards) -> None:
    data = make_shards(40)
    config = small(tmp_path, data)
    reader = open_reader(prepare(config, quiet).manifests[0].home)

    def spoil(numbers: range) -> None:
        for sample in numbers:
            path = reader.shard_path(sample)
            start, length = (int(reader.index[name][sample]) for name in ("offset", "length"))
            whole = bytearray(data.read(path))
            whole[start + 43 : start + length] = bytes(length - 43)  # the header stays, the pixels go
            data.write(path, bytes(whole))

    spoil(range(1))
    heard: list[RunEvent] = []
    generous = validated(
        RunConfig, apply_overrides(config.model_dump(), ["name=generous", "data.quarantine_budget=0.5"])
    )
    train(generous, say=quiet, on_event=heard.append)
    counted = [event.record.substituted for event in heard if isinstance(event, Metrics)][-1]
    assert counted in (2, 3)  # 96 samples of 40: every sample comes two or three times
    assert (open_store(config.storage) / "generous").list("quarantine")
    spoil(range(1, 30))
    strict = validated(RunConfig, apply_overrides(config.model_dump(), ["name=strict"]))
    with pytest.raises((QuarantineError, ManifestError), match=r"could not be used|cannot be used"):
        train(strict, say=quiet)


@pytest.mark.slow
def test_a_shard_that_vanishes_ends_the_run_and_is_named(tmp_path: Path, make_shards: MakeShards) -> None:
    data = make_shards(40)
    config = small(tmp_path, data, **{"length.samples_seen": 12 * 600, "checkpoint.every_steps": 50})

    def on_event(event: RunEvent) -> None:
        if isinstance(event, Metrics):
            data.delete("000002.tar")

    with pytest.raises(NotFoundError, match=r"cannot read .*000002\.tar") as caught:
        train(config, say=quiet, on_event=on_event)
    assert "\n" not in str(caught.value)


def test_too_few_cpus_says_so_at_once(tmp_path: Path, make_shards: MakeShards) -> None:
    config = small(tmp_path, make_shards(40), **{"resources.workers": CPUS})
    told = rf"resources\.workers = {CPUS} .* need {CPUS + 1} CPUs .* the cluster has {CPUS}"
    with pytest.raises(ClusterError, match=told):
        train(config, say=quiet)
