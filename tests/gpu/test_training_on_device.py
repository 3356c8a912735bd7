"""Whole runs on one GPU: Ray Data, Ray Train, NCCL and DeepSpeed, beside plain torch on the CPU."""

from pathlib import Path

import pytest
import torch

from raylens.config import RunConfig
from raylens.messages import quiet
from raylens.registry import Registry
from raylens.storage import open_store
from raylens.train import RunResult, train
from raylens.train.checkpoint.store import Checkpoints
from raylens.train.loop.events import Metrics, RunEvent, Started
from raylens.train.runs.jsonl import read_metrics
from tests.integration.test_training import MakeShards, reference_losses, small

pytestmark = pytest.mark.usefixtures("cluster")

ON_GPU = {"resources.workers": 1, "resources.gpus_per_worker": 1}
ROUNDING = {"fp32": 2e-3, "amp_bf16": 3e-2}
"""Relative, of a loss; torch multiplies fp32 convolutions, which cut the patches, in TF32 on a GPU."""


def losses_of(result: RunResult) -> list[float]:
    return [record["loss"] for record in read_metrics(open_store(result.run_uri))]


def check_encoder(config: RunConfig, result: RunResult) -> int:
    """That it gives unit vectors; its parameters."""
    _, encoder = Registry(config.registry_uri).load(str(result.version))
    vectors = encoder.encode_texts(["a red cat", "a small house"])
    assert torch.allclose(vectors.norm(dim=-1), torch.ones(2), atol=1e-5)
    return sum(parameter.numel() for parameter in encoder.model.parameters())


@pytest.mark.parametrize(("precision", "stage"), [("fp32", 1), ("amp_bf16", 1), ("amp_bf16", 3)])
def test_a_run_on_the_gpu_learns_as_plain_torch_on_the_cpu(
    tmp_path: Path, make_shards: MakeShards, precision: str, stage: int
) -> None:
    changes = {**ON_GPU, "precision": precision, "zero.stage": stage}
    config, heard = small(tmp_path, make_shards(40), **changes), list[RunEvent]()
    result = train(config, say=quiet, on_event=heard.append)
    losses = losses_of(result)
    assert losses == pytest.approx(reference_losses(config), rel=ROUNDING[precision])
    assert losses[-1] < losses[0]
    parameters = check_encoder(config, result)
    # The record has the GPU's memory: weights, gradients, masters and moments are there at least.
    records = [event.record for event in heard if isinstance(event, Metrics)]
    assert 20 * parameters < records[-1].memory_bytes < torch.cuda.get_device_properties(0).total_memory


def test_a_run_on_the_cpu_of_a_machine_with_a_gpu(tmp_path: Path, make_shards: MakeShards) -> None:
    config = small(tmp_path, make_shards(40), **{"resources.workers": 1})
    assert losses_of(train(config, say=quiet)) == pytest.approx(reference_losses(config), rel=2e-4)


def test_a_run_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(tmp_path: Path, make_shards: MakeShards) -> None:
    config = small(tmp_path, make_shards(40), **ON_GPU, **{"precision": "amp_bf16", "optim.ema_decay": 0.9})
    whole = train(config, say=quiet)
    losses, kept = losses_of(whole), Checkpoints(open_store(whole.run_uri))
    assert kept.steps() == [4, 8]
    kept.delete(8)
    heard: list[RunEvent] = []
    again = train(config, say=quiet, on_event=heard.append)
    assert again.resumed_at == 4
    assert heard[0] == Started(4, 8, 1, 12, 1)
    assert losses_of(again) == pytest.approx(losses, rel=1e-3)  # a GPU adds in another order from run to run


def test_micro_batches_have_the_gradient_of_the_whole_batch(tmp_path: Path, make_shards: MakeShards) -> None:
    data, losses = make_shards(40), []
    for micro_batch in (12, 3):
        changes = {
            **ON_GPU,
            "name": f"of-{micro_batch}",
            "resources.micro_batch": micro_batch,
            "objective.matmul_precision": "tf32",
        }
        losses.append(losses_of(train(small(tmp_path, data, **changes), say=quiet)))
    assert losses[0] == pytest.approx(losses[1], rel=2e-3)
