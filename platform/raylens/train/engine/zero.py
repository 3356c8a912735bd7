"""DeepSpeed ZeRO behind a few calls: the only file that imports deepspeed."""

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
from raylens.train.checkpoint.fragments import WEIGHT
from raylens.train.collective.reduce import gathered, mean_over_workers
from raylens.train.engine.deepspeed_config import deepspeed_config
from raylens.train.engine.forward import Forward, PairForward, pair_loss
from raylens.train.engine.gradcache import Micro, over_pairs, over_samples
from raylens.train.engine.keys import sample_keys
from raylens.train.engine.optimizer import optimizer_of, take_rates
from raylens.train.engine.skip_nonfinite import guard
from raylens.train.engine.state import TrainingState, whole_weights
from raylens.train.engine.tower_stats import Watched
from raylens.train.loop.batch import Batch
from raylens.train.loop.schedule import Moment, log_scale_at
from raylens.train.loop.stats import Figures, StepStats

__all__ = ["ZeroEngine"]

SCALARS = {"model.logit_scale": "log_scale", "model.logit_bias": "bias"}
"""Parameters of one number, which half precision would round to steps of some percent."""


class ZeroEngine:
    """One worker's share of the training state.

    Every method is collective: all workers call it, in the same order.
    """

    def __init__(self, config: RunConfig, forward: Forward, micro_batch: int, device: torch.device) -> None:
        deepspeed = _deepspeed(config, device)
        self._config, self._device, self._stage = config, device, config.zero.stage
        self.micro_batch = micro_batch
        self._forward = forward
        self._watched = Watched(forward.model, device)
        whole = whole_weights(forward, config)
        optimizer = optimizer_of(forward, config.optim)
        self._engine: Any = deepspeed.initialize(
            model=forward,
            optimizer=optimizer if config.zero.stage else guard(optimizer, config.optim.clip_norm),
            config=deepspeed_config(config, micro_batch, on_gpu=device.type == "cuda"),
        )[0]
        self.state = TrainingState(config, forward, self._engine, whole, device)

    def train_step(self, batch: Batch, now: Moment) -> StepStats:
        """Forward, backward and update on the worker's share of the global batch; no update by what is not finite.

        Raises:
            TrainingError: the device has not enough memory.
        """
        try:
            return self._step(batch, now)
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                f"resources.micro_batch = {self.micro_batch}: so many pairs do not fit the device ({error}); set half "
                "of it, or towers.checkpoint_blocks=true"
            ) from None

    def _step(self, batch: Batch, now: Moment) -> StepStats:
        take_rates(self._engine.optimizer, self._config.optim, now)
        self._forward.exact = self._exact(now)
        micros = self._micros(batch)
        self._watched.captions(batch.ids_BT)
        if isinstance(self._forward, PairForward):
            objective = self._config.objective
            loss, embedded = over_pairs(self._engine, micros, lambda all_: pair_loss(all_, objective), self._backward)
            self._watched.pairs(embedded)
            log_scale, finite_b = embedded.log_scale, (embedded.image_BD + embedded.text_BD).isfinite().all(dim=1)
        else:
            loss_b, log_scale = over_samples(self._engine, micros, self._backward)
            loss, finite_b = mean_over_workers(loss_b.mean()), loss_b.isfinite()
        skipped = not self._engine.was_step_applied()
        self.state.stepped(skipped=skipped)
        return StepStats(
            loss=float(loss),
            logit_scale=self._scale_in_use(log_scale),
            grad_norm=float(self._engine.get_global_grad_norm() or 0.0),
            skipped=skipped,
            broken=gathered(batch.sample_B[~finite_b.cpu().numpy()]) if skipped else (),
            weight_norm=self.state.weight_norm() if skipped else 0.0,
        )

    def figures(self) -> Figures:
        """See `loop.Engine`."""
        return self._watched.figures()

    def _exact(self, now: Moment) -> dict[str, float]:
        """Numbers to compute with in place of the module's own; see `Forward.exact`."""
        scheduled = log_scale_at(self._config.objective, now)
        if scheduled is not None:
            return {"log_scale": scheduled}
        if not self._config.half_weights:
            return {}
        found = torch.zeros(2, len(SCALARS), dtype=torch.float64, device=self._device)
        for fragment in self.state.learning():
            if fragment.name in SCALARS and fragment.stop > fragment.start:
                at = list(SCALARS).index(fragment.name)
                found[0, at], found[1, at] = fragment.tensors[WEIGHT].double()[0], 1.0
        dist.all_reduce(found)
        return {
            name: float(found[0, at] / found[1, at]) for at, name in enumerate(SCALARS.values()) if float(found[1, at])
        }

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

    def _scale_in_use(self, log_scale: Tensor) -> float:
        return min(float(log_scale.exp()), self._config.objective.max_logit_scale)

    @contextmanager
    def averaged(self, now: Moment) -> Iterator[Forward]:
        """The module for evaluation after a step, inside with averaged weights if the run keeps an average."""
        was = self._forward.training
        with self.state.averaged():
            self._forward.exact = self._exact(now)
            self._forward.eval()
            try:
                yield self._forward
            finally:
                self._forward.train(was)


@contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Have a package not be found inside: DeepSpeed's autotuner would import mlflow, 2 s of a core for nothing."""
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
    """Have ``torch.compile`` leave functions as they are inside.

    DeepSpeed decorates an optimiser with it that raylens does not use, and the decoration alone imports torch's
    compiler: 1.5 s of a core in each worker.
    """
    compiles: Any = torch.compile
    setattr(torch, "compile", lambda function=None, **_: function or (lambda given: given))  # noqa: B010 (for mypy)
    try:
        yield
    finally:
        setattr(torch, "compile", compiles)  # noqa: B010


def _deepspeed(config: RunConfig, device: torch.device) -> Any:
    """Import DeepSpeed without its habit of compiling a CPU kernel at first use (a minute, and a compiler)."""
    on_cpu = device.type == "cpu"  # also on a machine with GPUs, where a run may do without
    if on_cpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    with _hidden("mlflow"), _uncompiled():
        import deepspeed
        import deepspeed.ops
        import deepspeed.runtime.zero.muon.original_muon  # which `initialize` imports otherwise
    # DeepSpeed collects garbage several times while it sets up; what was imported is none.
    gc.freeze()
    from deepspeed.accelerator import get_accelerator

    if config.precision == "fp16" and not get_accelerator().is_fp16_supported():
        raise ConfigError("precision = 'fp16': this machine's processor does not compute in it; use bf16, or a GPU")
    if on_cpu:
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed
