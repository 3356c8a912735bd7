"""The part of the training state that a worker holds, in a DeepSpeed engine and beside it: saved and restored."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from raylens.config import RunConfig
from raylens.errors import CheckpointError
from raylens.train.checkpoint.fragments import AVERAGE, WEIGHT, Fragment, copy_into, key_of, worker_slice
from raylens.train.checkpoint.snapshot import Snapshot
from raylens.train.collective.reduce import all_mean
from raylens.train.engine.ema import Ema
from raylens.train.engine.forward import Forward
from raylens.train.engine.rng_state import local_state, restore_local_state
from raylens.train.engine.zero_state import after_skip, ensure_state, fragments_of, push_weights, scaler_of, set_scaler

__all__ = ["TrainingState", "fp32_weights"]


def fp32_weights(forward: Forward, config: RunConfig) -> dict[str, Tensor]:
    """Return fp32 copies of all weights that half precision is about to round, or else of those that are locked."""
    return {
        name: parameter.detach().float().cpu().flatten().clone()
        for name, parameter in forward.named_parameters()
        if config.half_weights or not parameter.requires_grad
    }


class TrainingState:
    """One worker's share of the weights, the optimiser's moments and the moving averages.

    Args:
        config: the configuration of the run.
        forward: the module that was given to the engine.
        engine: DeepSpeed's engine.
        whole: the result of `fp32_weights`, taken before the engine was created.
        device: the device of the module.
    """

    def __init__(
        self, config: RunConfig, forward: Forward, engine: Any, weights: dict[str, Tensor], device: torch.device
    ) -> None:
        self._engine, self._forward, self._device = engine, forward, device
        self._stage, self._kind = config.zero.stage, config.optim.kind
        self._rank, self._workers = dist.get_rank(), dist.get_world_size()
        self.applied = 0
        """Number of steps that changed the weights."""
        if config.half_weights:
            # DeepSpeed makes its master copies from weights that it has rounded.
            copy_into(self.trainable(), {key_of(name, 0, WEIGHT): tensor for name, tensor in weights.items()})
            push_weights(engine, self._stage)
        self._locked = self._locked_of(weights)
        self._average = Ema(self.trainable(), config.optim.ema_decay) if config.optim.ema_decay else None

    def _locked_of(self, weights: dict[str, Tensor]) -> list[Fragment]:
        """Return this worker's share of the locked weights, which make a checkpoint complete by itself."""
        names = {name for name, parameter in self._forward.named_parameters() if not parameter.requires_grad}
        return [
            worker_slice(Fragment(name, 0, len(tensor), {WEIGHT: tensor}), self._rank, self._workers)
            for name, tensor in weights.items()
            if name in names
        ]

    def trainable(self) -> list[Fragment]:
        """Return views of this worker's part of the parameters that are trained."""
        return list(fragments_of(self._engine, self._stage, self._kind))

    def after_step(self, *, skipped: bool) -> None:
        """Update the moving average and the count of steps, after the engine's step."""
        if skipped:
            after_skip(self._engine, self._stage)
            return
        if self._average is not None:
            self._average.update(self.applied)
        self.applied += 1

    def weight_norm(self) -> float:
        """Return the norm of all weights that are trained. Collective."""
        square = torch.zeros((), dtype=torch.float64)
        for fragment in self._shares():
            square += fragment.tensors[WEIGHT].double().square().sum().cpu()
        return math.sqrt(float(all_mean(square.to(self._device))) * self._workers)

    def _with_averages(self) -> list[Fragment]:
        live = self.trainable()
        if self._average is None:
            return live
        return [
            Fragment(part.name, part.start, part.stop, {**part.tensors, AVERAGE: average})
            for part, average in zip(live, self._average.tensors, strict=True)
        ]

    def _shares(self) -> list[Fragment]:
        """Return the fragments with their averages, each element on one worker only."""
        live = self._with_averages()
        if self._stage == 0:
            live = [worker_slice(fragment, self._rank, self._workers) for fragment in live]
        return [fragment for fragment in live if fragment.stop > fragment.start]

    def snapshot(self) -> Snapshot:
        """Return a copy of this worker's share of the state; each element belongs to one worker."""
        return Snapshot(
            tensors={
                key_of(fragment.name, fragment.start, kind): tensor.detach().to("cpu", copy=True)
                for fragment in (*self._shares(), *self._locked)
                for kind, tensor in fragment.tensors.items()
            },
            local=local_state(self._forward, self._device),
            scaler=scaler_of(self._engine),
            applied=self.applied,
        )

    def wanted(self) -> list[tuple[str, int, int]]:
        """Return the parts that `restore` needs: parameter, first element, and the one after the last."""
        return [(fragment.name, fragment.start, fragment.stop) for fragment in (*self.trainable(), *self._locked)]

    def restore(self, snapshot: Snapshot) -> None:
        """Restore a state, of which at least this worker's part is given. Collective.

        Raises:
            CheckpointError: a part of the state is missing.
        """
        ensure_state(self._engine, self._stage, self._kind, snapshot.applied)
        needed = [*self._with_averages(), *self._locked]
        filled = copy_into(needed, snapshot.tensors)
        wanted = sum(len(tensor) for fragment in needed for tensor in fragment.tensors.values())
        if filled != wanted:
            raise CheckpointError(
                f"the checkpoint has {filled:,} of the {wanted:,} elements that worker {self._rank} needs: it was "
                "written with another optim.kind, optim.ema_decay or model; start a new run with another name"
            )
        push_weights(self._engine, self._stage)
        set_scaler(self._engine, snapshot.scaler)
        restore_local_state(snapshot.local, self._forward, self._device)
        self.applied = snapshot.applied

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the module its averaged weights within the block, if the run keeps an average. Collective."""
        swapping = self._average if self._average is not None and self.applied else None
        if swapping is not None:
            swapping.swap()
            push_weights(self._engine, self._stage)
        try:
            yield
        finally:
            if swapping is not None:
                swapping.swap()
                push_weights(self._engine, self._stage)
