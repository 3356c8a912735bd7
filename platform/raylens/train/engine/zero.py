"""The training engine on DeepSpeed ZeRO, in the only file that imports deepspeed."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from raylens.config import RunConfig
from raylens.errors import ConfigError, TrainingError
from raylens.models import Embedded
from raylens.train.checkpoint.fragments import WEIGHT
from raylens.train.collective.reduce import all_mean, gather_numbers
from raylens.train.engine.deepspeed_config import deepspeed_config
from raylens.train.engine.forward import Forward, PairForward, pair_loss, sample_keys
from raylens.train.engine.gradcache import MicroBatch, accumulate_backward, gradcache_backward
from raylens.train.engine.optimizer import build_optimizer, set_learning_rates
from raylens.train.engine.skip_nonfinite import skip_nonfinite
from raylens.train.engine.state import TrainingState, fp32_weights
from raylens.train.engine.tower_stats import TowerMonitor
from raylens.train.loop.batch import Batch
from raylens.train.loop.schedule import TrainingProgress, log_scale_at
from raylens.train.loop.stats import StepStats, TowerStats

__all__ = ["ZeroEngine"]

SCALARS = {"model.logit_scale": "log_scale", "model.logit_bias": "bias"}
"""Scalar parameters, which half precision would round to steps of some percent."""


class ZeroEngine:
    """One worker's part of the training engine.

    Every method is collective: all workers call it, in the same order.
    """

    def __init__(self, config: RunConfig, forward: Forward, micro_batch: int, device: torch.device) -> None:
        deepspeed = _deepspeed(config, device)
        self._config, self._device, self._stage = config, device, config.zero.stage
        self.micro_batch = micro_batch
        self._forward = forward
        self._tower_monitor = TowerMonitor(forward.model, device)
        weights = fp32_weights(forward, config)
        optimizer = build_optimizer(forward, config.optim)
        self._engine: Any = deepspeed.initialize(
            model=forward,
            optimizer=optimizer if config.zero.stage else skip_nonfinite(optimizer, config.optim.clip_norm),
            config=deepspeed_config(config, micro_batch, on_gpu=device.type == "cuda"),
        )[0]
        self.state = TrainingState(config, forward, self._engine, weights, device)

    def train_step(self, batch: Batch, progress: TrainingProgress) -> StepStats:
        """Take one step on the worker's share of the global batch; a gradient that is not finite updates nothing.

        Raises:
            TrainingError: the device has not enough memory.
        """
        with self._memory_diagnosis():
            set_learning_rates(self._engine.optimizer, self._config.optim, progress)
            self._forward.exact = self._exact(progress)
            micro_batches = self._micro_batches(batch)
            if isinstance(self._forward, PairForward):
                # Two passes: the loss over all pairs comes before the first backward pass.
                loss, embedded = gradcache_backward(self._engine, micro_batches, self._pair_loss, self._backward)
                log_scale, finite_b = embedded.log_scale, (embedded.image_BD + embedded.text_BD).isfinite().all(dim=1)
                self._tower_monitor.pairs(embedded)
            else:
                loss_b, log_scale = accumulate_backward(self._engine, micro_batches, self._backward)
                loss, finite_b = all_mean(loss_b.mean()), loss_b.isfinite()
            self._engine.step()
        skipped = not self._engine.was_step_applied()
        self.state.after_step(skipped=skipped)
        self._tower_monitor.captions(batch.ids_BT)
        return StepStats(
            loss=float(loss),
            logit_scale=min(float(log_scale.exp()), self._config.objective.max_logit_scale),
            grad_norm=float(self._engine.get_global_grad_norm() or 0.0),
            skipped=skipped,
            broken=gather_numbers(batch.sample_B[~finite_b.cpu().numpy()]) if skipped else (),
            weight_norm=self.state.weight_norm() if skipped else 0.0,
        )

    def _pair_loss(self, embedded: Embedded) -> Tensor:
        return pair_loss(embedded, self._config.objective)

    def _backward(self, loss: Tensor, last: bool) -> None:
        """Add the gradient of a part of the loss; with the last part of a step, the workers' gradients are reduced."""
        # Set each time, because DeepSpeed's own count would continue from a checkpoint with other micro-batches.
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss, scale_wrt_gas=False)

    @contextmanager
    def _memory_diagnosis(self) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"scale.micro_batch = {self.micro_batch}: the device has not enough memory for so many pairs at a time "
                f"({error}); halve it, or set towers.checkpoint_blocks=true"
            ) from None

    def tower_stats(self) -> TowerStats:
        """Implement `loop.Engine.tower_stats`: return the statistics of the towers in the last step."""
        return self._tower_monitor.tower_stats()

    def _exact(self, progress: TrainingProgress) -> dict[str, float]:
        """Return the values that replace the module's own in a step; see `Forward.exact`."""
        scheduled = log_scale_at(self._config.objective, progress)
        if scheduled is not None:
            return {"log_scale": scheduled}
        if not self._config.half_weights:
            return {}
        values = torch.zeros(2, len(SCALARS), dtype=torch.float64, device=self._device)
        for fragment in self.state.trainable():
            if fragment.name in SCALARS and fragment.stop > fragment.start:
                at = list(SCALARS).index(fragment.name)
                values[0, at], values[1, at] = fragment.tensors[WEIGHT].double()[0], 1.0
        dist.all_reduce(values)
        return {
            name: float(values[0, at] / values[1, at])
            for at, name in enumerate(SCALARS.values())
            if float(values[1, at])
        }

    def _micro_batches(self, batch: Batch) -> list[MicroBatch]:
        arrays = (batch.image_BSSC, batch.ids_BT, sample_keys(self._config.seed, batch.position_B))
        tensors = [torch.from_numpy(array).to(self._device, non_blocking=True) for array in arrays]
        parts = zip(*(tensor.split(self.micro_batch) for tensor in tensors), strict=True)
        return [MicroBatch(*part) for part in parts]

    @contextmanager
    def averaged(self, progress: TrainingProgress) -> Iterator[Forward]:
        """Yield the module for evaluation after a step, with averaged weights if the run keeps an average."""
        was = self._forward.training
        with self.state.averaged():
            self._forward.exact = self._exact(progress)
            self._forward.eval()
            try:
                yield self._forward
            finally:
                self._forward.train(was)


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Hide a package from imports within the block: DeepSpeed's autotuner would import mlflow, which takes 2 s."""
    absent = package not in sys.modules
    if absent:
        sys.modules[package] = None  # type: ignore[assignment] # an import of it fails, as documented
    try:
        yield
    finally:
        if absent:
            del sys.modules[package]


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Make ``torch.compile`` return functions unchanged within the block.

    DeepSpeed decorates with it an optimiser that raylens does not use, and the decoration alone imports torch's
    compiler: 1.5 s of a core in each worker.
    """
    compiles: Any = torch.compile
    setattr(torch, "compile", lambda function=None, **_: function or (lambda target: target))  # noqa: B010 (for mypy)
    try:
        yield
    finally:
        setattr(torch, "compile", compiles)  # noqa: B010


def _deepspeed(config: RunConfig, device: torch.device) -> Any:
    """Import DeepSpeed, and keep it from compiling a CPU kernel at first use, which takes a minute and a compiler."""
    on_cpu = device.type == "cpu"  # also on a machine with GPUs, where a run may use none
    if on_cpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    with _hidden("mlflow"), _uncompiled():
        import deepspeed
        import deepspeed.ops
        import deepspeed.runtime.zero.muon.original_muon  # otherwise `initialize` imports it later
    # DeepSpeed collects garbage several times while it sets up; the imported modules need not be searched.
    gc.freeze()
    from deepspeed.accelerator import get_accelerator

    if config.precision == "fp16" and not get_accelerator().is_fp16_supported():
        raise ConfigError("precision = 'fp16': this machine's CPU does not support it: use bf16, or a GPU")
    if on_cpu:
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
