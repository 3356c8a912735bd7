"""DeepSpeed ZeRO behind four calls: the only file that imports deepspeed."""

import contextlib
import io
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raylens.config import RunConfig
from raylens.errors import CheckpointError, TrainingError
from raylens.train.accumulate import Micro, over_pairs, over_samples
from raylens.train.forward import Forward, PairForward, pair_loss
from raylens.train.keys import sample_keys
from raylens.train.loop import Batch
from raylens.train.optimizer import adamw
from raylens.train.over_workers import gathered, mean_over_workers
from raylens.train.stats import StepStats

__all__ = ["ZeroEngine", "fp32_weights"]

TAG = "state"


class ZeroEngine:
    """One worker's share of the training state.

    Every method is collective: all workers call it, in the same order.
    """

    def __init__(self, config: RunConfig, forward: Forward, micro_batch: int, device: torch.device) -> None:
        deepspeed = _deepspeed()
        self._config, self._device = config, device
        self.micro_batch = micro_batch
        self._forward = forward
        self._engine: Any = deepspeed.initialize(
            model=forward,
            optimizer=adamw(forward, config.optim, guarded=config.zero.stage == 0),
            config=_deepspeed_config(config, micro_batch),
        )[0]

    def train_step(self, batch: Batch, lr: float) -> StepStats:
        """Forward, backward and update on the worker's share of the global batch; no update by what is not finite.

        Raises:
            TrainingError: the device has not enough memory.
        """
        try:
            return self._step(batch, lr)
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"scale.micro_batch = {self.micro_batch}: so many pairs do not fit the device ({error}); set half of "
                "it, or towers.checkpoint_blocks=true"
            ) from None

    def _step(self, batch: Batch, lr: float) -> StepStats:
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        micros = self._micros(batch)
        if isinstance(self._forward, PairForward):
            objective = self._config.objective
            loss, embedded = over_pairs(self._engine, micros, lambda all_: pair_loss(all_, objective), self._backward)
            log_scale, finite_b = embedded.log_scale, (embedded.image_BD + embedded.text_BD).isfinite().all(dim=1)
        else:
            loss_b, log_scale = over_samples(self._engine, micros, self._backward)
            loss, finite_b = mean_over_workers(loss_b.mean()), loss_b.isfinite()
        skipped = not self._engine.was_step_applied()
        return StepStats(
            loss=float(loss),
            logit_scale=self._scale_in_use(log_scale),
            grad_norm=float(self._engine.get_global_grad_norm() or 0.0),
            skipped=skipped,
            broken=gathered(batch.sample_B[~finite_b.cpu().numpy()]) if skipped else (),
            weight_norm=self._weight_norm() if skipped else 0.0,
        )

    def _micros(self, batch: Batch) -> list[Micro]:
        arrays = (batch.image_BSSC, batch.ids_BT, sample_keys(self._config.seed, batch.position_B))
        tensors = [torch.from_numpy(array).to(self._device, non_blocking=True) for array in arrays]
        parts = zip(*(tensor.split(self.micro_batch) for tensor in tensors), strict=True)
        return [Micro(*part) for part in parts]

    def _backward(self, loss: Tensor, last: bool) -> None:
        # Told each time, because DeepSpeed's own count would go on from a checkpoint with other micro-batches.
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss, scale_wrt_gas=False)
        self._engine.step()

    def _weight_norm(self) -> float:
        """Over all weights; at stage 3 each worker has a part of them. Collective."""
        parts = self._config.zero.stage == 3
        weights = [getattr(weight, "ds_tensor", weight).detach() for weight in self._forward.parameters()]
        square = sum((weight.double().square().sum() for weight in weights), torch.zeros((), dtype=torch.float64))
        return math.sqrt(float(mean_over_workers(square)) * (self._config.scale.workers if parts else 1))

    def _scale_in_use(self, log_scale: Tensor) -> float:
        return min(float(log_scale.exp()), self._config.objective.max_logit_scale)

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
    weights: dict[str, Tensor] = {}
    if stage < 3:
        # Written by raylens, its hash checked against the checkpoint's manifest; plain tensors all the same.
        state = torch.load(folder / TAG / "mp_rank_00_model_states.pt", map_location="cpu", weights_only=False)
        weights |= state["module"]
    if stage > 0:
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

        with _hushed():
            # At stage 1 it leaves out what is frozen, which the module's own weights then supply.
            weights |= get_fp32_state_dict_from_zero_checkpoint(str(folder), tag=TAG)
    # clone(): consolidated tensors may be views into one large buffer, which safetensors would write again and again.
    return {name.removeprefix("model."): tensor.detach().float().clone() for name, tensor in weights.items()}


def _deepspeed_config(config: RunConfig, micro_batch: int) -> dict[str, Any]:
    return {
        "train_batch_size": config.global_batch,
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": config.worker_batch // micro_batch,
        # Always given: DeepSpeed's own default clips at 1.0. At stage 0 the optimiser does it.
        "gradient_clipping": config.optim.clip_norm if config.zero.stage else 0.0,
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
