"""The process group of a run's workers, created without torch in Ray Train's controller.

Ray's own ``TorchConfig`` imports torch wherever it is unpickled: in the driver and in the controller, neither of which
computes. Here only the workers import torch, and the functions that run there are Ray's (2.60).
"""

import os
from dataclasses import dataclass
from typing import Any, Self

import ray
from ray.train.backend import Backend, BackendConfig

from raylens.ray_internals import TrainingFramework, get_address_and_port, join_process_group, leave_process_group

__all__ = ["ProcessGroupConfig"]

SHUTDOWN_SECONDS = 30.0


class _Device:
    """Makes the worker's GPU the current device while the training function runs."""

    def __enter__(self) -> Self:
        import torch

        if torch.cuda.is_available():
            from ray.train.torch import get_device

            device = get_device()
            if device.type == "cuda":
                torch.cuda.set_device(device)
        return self

    def __exit__(self, *_: object) -> None:
        return None


@dataclass
class ProcessGroupConfig(BackendConfig):  # type: ignore[misc] # Ray is untyped here
    """Settings of the process group: NCCL if the workers have GPUs, and gloo otherwise."""

    timeout_s: int = 1800
    """Seconds after which a collective operation that has not ended is an error."""

    @property
    def backend_cls(self) -> type["_ProcessGroup"]:
        """Return the class that Ray Train calls after workers start and before they stop."""
        return _ProcessGroup

    @property
    def train_func_context(self) -> type[_Device]:
        """Return the context in which a worker runs the training function."""
        return _Device

    @property
    def framework(self) -> Any:
        """Return the framework that Ray Train shows on its dashboard."""
        return TrainingFramework.TORCH

    def to_dict(self) -> dict[str, Any]:
        """Return the settings that Ray Train shows on its dashboard."""
        return {"timeout_s": self.timeout_s}


class _ProcessGroup(Backend):  # type: ignore[misc]
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: ProcessGroupConfig) -> None:
        gpus = worker_group.get_resources_per_worker().get("GPU", 0)
        address, port = worker_group.execute_single(0, get_address_and_port)
        count = len(worker_group)
        ray.get(
            [
                worker_group.execute_single_async(
                    rank,
                    _join,
                    backend="nccl" if gpus else "gloo",
                    address=address,
                    port=port,
                    world_rank=rank,
                    workers=count,
                    timeout_s=backend_config.timeout_s,
                )
                for rank in range(count)
            ]
        )

    def on_shutdown(self, worker_group: Any, backend_config: ProcessGroupConfig) -> None:
        del backend_config
        leaving = worker_group.execute_async(leave_process_group, destroy=len(worker_group) > 1)
        ray.wait(leaving, num_returns=len(leaving), timeout=SHUTDOWN_SECONDS)


def _join(*, backend: str, address: str, port: int, world_rank: int, workers: int, timeout_s: int) -> None:
    """Join the process group, in a worker whose environment variables torch and DeepSpeed read."""
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = address, str(port)
    join_process_group(backend, world_rank, workers, timeout_s)
