"""Deals the stream of data out to the workers of a run, beginning while they start.

Ray Train's own callback has an actor that makes the stream when the first worker asks for its share, so that all of its
start-up comes behind the workers'. Here the process that deals blocks out starts beside the workers, and makes the
first blocks while they import torch.
"""

import atexit
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray

from raylens.data.stream import execution_options
from raylens.ray_internals import StreamSplitDataIterator, WorkerGroupCallback, coordinator_of, with_coordinator

__all__ = ["StreamCallback"]

logger = logging.getLogger(__name__)

NAME = "train"
SHUTDOWN_SECONDS = 5.0


class StreamCallback(WorkerGroupCallback):  # type: ignore[misc] # Ray is untyped here
    """Makes a stream for each start of the workers, also after a failure, and ends it with them.

    Args:
        make: returns the stream from where the workers will begin; called in Ray Train's controller.
        selector: labels of the nodes that make the data.
    """

    def __init__(self, make: "Callable[[], ray.data.Dataset]", selector: Mapping[str, str]) -> None:
        self._make, self._selector = make, dict(selector)
        self._shares: list[StreamSplitDataIterator] = []

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        """Start the process that deals blocks out, in the order of the plan."""
        self._end()  # of a start that failed half-way: its tasks would hold the CPUs that these workers wait for
        dataset = self._make()
        dataset.set_name(NAME)
        dataset.context.execution_options = execution_options(self._selector)
        self._shares = dataset.streaming_split(worker_group_context.num_workers, equal=True)
        # When such a process ends, Ray 2.60 now and then waits for itself for ever (the destructor of its
        # CoreWorkerProcessImpl posts to a queue whose lock it holds), and 400 MB stay behind a lost driver. By then all
        # is done, so the process ends before that.
        self._coordinator().__ray_call__.remote(_end_at_once)

    def before_init_train_context(self, workers: list[Any]) -> dict[str, list[Any]]:
        """Have the first blocks made, now that the workers have their CPUs, and tell each worker its share."""
        epochs = [self._coordinator().start_epoch.remote(rank) for rank in range(len(workers))]
        shares = zip(self._shares, epochs, strict=True)
        return {"dataset_shard_provider": [_Share(_begun(share, epoch)) for share, epoch in shares]}

    def after_worker_group_shutdown(self, worker_group_context: Any) -> None:
        """End the stream and free what it holds."""
        del worker_group_context
        self._end()

    def after_worker_group_abort(self, worker_group_context: Any) -> None:
        """End the stream after the workers were ended at once."""
        del worker_group_context
        self._end()

    def _end(self) -> None:
        if not self._shares:
            return
        try:
            ray.get(self._coordinator().shutdown_executor.remote(), timeout=SHUTDOWN_SECONDS)
        except ray.exceptions.RayError as error:  # it is lost, or busy: it ends with its last handle in any case
            logger.info("the stream did not end by itself: %s", error)
        self._shares = []

    def _coordinator(self) -> Any:
        return coordinator_of(self._shares[0])


def _end_at_once(_: object) -> None:
    atexit.register(os._exit, 0)


def _begun(share: StreamSplitDataIterator, epoch: Any) -> StreamSplitDataIterator:
    return with_coordinator(share, _Begun(coordinator_of(share), epoch))


@dataclass(frozen=True)
class _Begun:
    """A handle of the coordinator for an iterator whose only epoch has begun already."""

    actor: Any
    epoch: Any
    """Reference to the epoch's number."""

    @property
    def start_epoch(self) -> "_Begun":
        return self

    def remote(self, _: int) -> Any:
        """Stand for the call that would begin an epoch, and wait for all workers to make it."""
        return self.epoch

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # what pickle looks for before the fields are there
            raise AttributeError(name)
        return getattr(self.actor, name)


@dataclass(frozen=True)
class _Share:
    """What `ray.train.get_dataset_shard` asks in a worker."""

    share: StreamSplitDataIterator

    def get_dataset_shard(self, _: object) -> StreamSplitDataIterator:
        return self.share
