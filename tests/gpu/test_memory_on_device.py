"""The micro-batch that is chosen from the GPU's free memory, tried: the step with it fits, and wastes little."""

import pytest
import torch

from raylens.config import RunConfig, apply_overrides, validated
from raylens.inputs.preprocess import CLIP_MEAN, CLIP_STD
from raylens.models import DualEncoder
from raylens.train.engine.forward import PairForward, pair_loss
from raylens.train.engine.gradcache import gradcache_backward
from raylens.train.engine.micro_batch import fitting_micro_batch, random_micro_batch
from raylens.workloads.recipes import vit_b32

BATCH = 2**16
LEAST, MOST = 0.25, 0.95
"""Share of the GPU's memory that such a step may take."""


@pytest.mark.parametrize("changes", [(), ("towers.checkpoint_blocks=true",), ("precision=fp32",)])
def test_a_step_with_the_chosen_micro_batch_fits(gpu: torch.device, changes: tuple[str, ...]) -> None:
    tree = vit_b32().model_dump(mode="json")
    assignments = [
        "precision=amp_bf16",
        f"global_batch={BATCH}",
        "scale.workers=1",
        "objective.products=bf16",
        *changes,
    ]
    config = validated(RunConfig, apply_overrides(tree, assignments))
    forward = PairForward(DualEncoder(config.model, end_id=49_407, mean=CLIP_MEAN, std=CLIP_STD), config).to(gpu)
    chosen = fitting_micro_batch(forward, config, gpu, 1)
    assert 64 <= chosen <= BATCH
    torch.cuda.reset_peak_memory_stats()
    micros = [random_micro_batch(config, chosen, 49_407, gpu) for _ in range(2)]
    loss, _ = gradcache_backward(forward, micros, lambda all_: pair_loss(all_, config.objective), _backward)
    assert torch.isfinite(loss)
    peak, whole = torch.cuda.max_memory_allocated(), torch.cuda.get_device_properties(gpu).total_memory
    del forward, micros
    torch.cuda.empty_cache()  # the next test looks at what is free
    assert LEAST * whole < peak < MOST * whole, f"{chosen} pairs took {peak / 2**30:.1f} of {whole / 2**30:.1f} GiB"


def _backward(loss: torch.Tensor, last: bool) -> None:
    del last
    loss.backward()
