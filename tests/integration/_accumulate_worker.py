"""What a rank does for test_accumulation.py: steps of the real engine."""

from typing import TYPE_CHECKING, Any

import torch

from raylens.models import DualEncoder
from raylens.train.engine.forward import build_forward
from raylens.train.engine.zero import ZeroEngine
from raylens.train.loop.schedule import TrainingProgress
from tests.helpers.ranks import share

if TYPE_CHECKING:
    from raylens.config import RunConfig


def take_steps(case: dict[str, Any], rank: int, size: int) -> dict[str, Any]:
    """The statistics of the steps, and this rank's part of the weights after them."""
    config: RunConfig = case["config"]
    model = DualEncoder(config.model, end_id=1, mean=(0.5,) * 3, std=(0.5,) * 3, bias=config.objective.bias)
    model.load_state_dict(case["weights"])
    micro_batch = config.worker_batch // case["micro_batches"]
    engine = ZeroEngine(config, build_forward(model, config), micro_batch, torch.device("cpu"))
    stats = [engine.train_step(share(batch, rank, size), TrainingProgress(0, 1)) for batch in case["batches"]]
    return {"stats": stats, "tensors": engine.state.snapshot().tensors}
