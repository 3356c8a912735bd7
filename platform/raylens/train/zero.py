"""DeepSpeed ZeRO behind four calls: the only file that imports deepspeed."""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from raylens.config import RunConfig
from raylens.errors import CheckpointError
from raylens.models import DualEncoder
from raylens.models.training import prepare_towers
from raylens.objectives import capped_log_scale, contrastive_loss, sigmoid_loss
from raylens.train.loop import Batch, StepStats
from raylens.train.optimizer import adamw

__all__ = ["ZeroEngine", "fp32_weights"]

TAG = "state"


class ContrastiveStep(nn.Module):
    """Towers and objective as one module, because ZeRO-3 gathers parameters where a module's forward begins."""

    def __init__(self, model: DualEncoder, config: RunConfig) -> None:
        super().__init__()
        self.model = model
        self.max_logit_scale = config.objective.max_logit_scale
        self.autocast = config.precision == "amp_bf16"

    def forward(self, image_BSSC: Tensor, ids_BT: Tensor) -> tuple[Tensor, Tensor]:
        """A worker's pairs to the loss over the global batch and the log of the logit scale in use."""
        with torch.autocast(image_BSSC.device.type, dtype=torch.bfloat16, enabled=self.autocast):
            image_BD, text_BD, log_scale, bias = self.model(image_BSSC, ids_BT)
        log_scale = capped_log_scale(log_scale, self.max_logit_scale)
        if bias is not None:
            return sigmoid_loss(image_BD, text_BD, log_scale, bias), log_scale.detach()
        return contrastive_loss(image_BD, text_BD, log_scale), log_scale.detach()


class ZeroEngine:
    """One worker's share of the training state.

    Every method is collective: all workers call it, in the same order.
    """

    def __init__(self, config: RunConfig, model: DualEncoder, device: torch.device) -> None:
        deepspeed = _deepspeed()
        step = ContrastiveStep(prepare_towers(model, config.towers), config).to(device)
        self._device = device
        self._engine: Any = deepspeed.initialize(
            model=step, optimizer=adamw(step, config.optim), config=_deepspeed_config(config)
        )[0]

    def train_step(self, batch: Batch, lr: float) -> StepStats:
        """Forward, backward and update on the worker's share of the global batch."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        image_BSSC = torch.from_numpy(batch.image_BSSC).to(self._device, non_blocking=True)
        ids_BT = torch.from_numpy(batch.ids_BT).to(self._device, non_blocking=True)
        loss, log_scale = self._engine(image_BSSC, ids_BT)
        self._engine.backward(loss)
        self._engine.step()
        return StepStats(float(loss), float(log_scale.exp()), float(self._engine.get_global_grad_norm() or 0.0))

    def save(self, folder: Path) -> None:
        """Write this worker's part of the state into a folder of its own."""
        self._engine.save_checkpoint(str(folder), tag=TAG, save_latest=False)

    def load(self, folder: Path) -> None:
        """Read the state back from a folder that holds at least this worker's part.

        Raises:
            CheckpointError: DeepSpeed finds no state there.
        """
        path, _ = self._engine.load_checkpoint(str(folder), tag=TAG)
        if path is None:
            raise CheckpointError(f"DeepSpeed found no state in {folder}")


def fp32_weights(folder: Path, stage: int) -> dict[str, Tensor]:
    """The model's weights in fp32 from a folder that holds the state of all workers."""
    _deepspeed()
    if stage == 0:
        # Written by raylens, its hash checked against the checkpoint's manifest; plain tensors all the same.
        state = torch.load(folder / TAG / "mp_rank_00_model_states.pt", map_location="cpu", weights_only=False)
        weights = state["module"]
    else:
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

        with _hushed():
            weights = get_fp32_state_dict_from_zero_checkpoint(str(folder), tag=TAG)
    # clone(): consolidated tensors may be views into one large buffer, which safetensors would write again and again.
    return {name.removeprefix("model."): tensor.detach().float().clone() for name, tensor in weights.items()}


def _deepspeed_config(config: RunConfig) -> dict[str, Any]:
    return {
        "train_batch_size": config.global_batch,
        "train_micro_batch_size_per_gpu": config.worker_batch,
        "gradient_accumulation_steps": 1,
        # Always given: DeepSpeed's own default clips at 1.0.
        "gradient_clipping": config.optim.clip_norm,
        "zero_optimization": {"stage": config.zero.stage},
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 2**31,
    }


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """DeepSpeed's conversion prints its steps and a progress bar."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def _deepspeed() -> Any:
    """Import DeepSpeed without its habit of compiling a CPU kernel at first use (a minute, and a compiler)."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed
    import deepspeed.ops

    if not torch.cuda.is_available():
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
