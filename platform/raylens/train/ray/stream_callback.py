"""Deals the stream of data out to the workers of a run, beginning while they start.

Ray Train's own callback has an actor that creates the stream when the first worker asks for its share, so that the
stream starts only after the workers. Here the process that deals blocks out starts beside the workers, and makes the
first blocks while they import torch.
"""

import atexit
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray

from raylens.data import execution_options
from raylens.ray_internals import StreamSplitDataIterator, WorkerGroupCallback, coordinator_of, with_coordinator

__all__ = ["StreamCallback"]

logger = logging.getLogger(__name__)

NAME = "train"
SHUTDOWN_SECONDS = 5.0


class StreamCallback(WorkerGroupCallback):  # type: ignore[misc] # Ray is untyped here
    """Creates a stream for each start of the workers, also after a failure, and ends it with them.

    Args:
        make: returns the stream from the position at which the workers begin; called in Ray Train's controller.
        selector: labels of the nodes that make the data.
    """

    def __init__(self, make: "Callable[[], ray.data.Dataset]", selector: Mapping[str, str]) -> None:
        self._make, self._selector = make, dict(selector)
        self._iterators: list[StreamSplitDataIterator] = []

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        """Start the process that deals blocks out, in the order of the plan."""
        self._end()  # after a start that failed half-way, whose tasks would hold the CPUs that these workers wait for
        dataset = self._make()
        dataset.set_name(NAME)
        dataset.context.execution_options = execution_options(self._selector)
        self._iterators = dataset.streaming_split(worker_group_context.num_workers, equal=True)
        # When such a process ends, Ray 2.60 sometimes deadlocks (the destructor of its CoreWorkerProcessImpl posts to a
        # queue whose lock it holds), and a lost driver leaves 400 MB behind. All work is done by then, so the process
        # exits before that.
        self._coordinator().__ray_call__.remote(_end_at_once)

    def before_init_train_context(self, workers: list[Any]) -> dict[str, list[Any]]:
        """Start the first blocks, now that the workers have their CPUs, and give each worker its share."""
        epochs = [self._coordinator().start_epoch.remote(rank) for rank in range(len(workers))]
        iterators = zip(self._iterators, epochs, strict=True)
        return {
            "dataset_shard_provider": [_ShardProvider(_with_epoch(iterator, epoch)) for iterator, epoch in iterators]
        }

    def after_worker_group_shutdown(self, worker_group_context: Any) -> None:
        """End the stream, and free what it holds."""
        del worker_group_context
        self._end()

    def after_worker_group_abort(self, worker_group_context: Any) -> None:
        """End the stream after the workers were killed."""
        del worker_group_context
        self._end()

    def _end(self) -> None:
        if not self._iterators:
            return
        try:
            ray.get(self._coordinator().shutdown_executor.remote(), timeout=SHUTDOWN_SECONDS)
        except ray.exceptions.RayError as error:  # it is lost or busy, and ends with its last handle in any case
            logger.info("the stream did not end by itself: %s", error)
        self._iterators = []

    def _coordinator(self) -> Any:
        return coordinator_of(self._iterators[0])


def _end_at_once(_: object) -> None:
    atexit.register(os._exit, 0)


def _with_epoch(iterator: StreamSplitDataIterator, epoch: Any) -> StreamSplitDataIterator:
    return with_coordinator(iterator, _StartedEpoch(coordinator_of(iterator), epoch))


@dataclass(frozen=True)
class _StartedEpoch:
    """A handle of the stream's coordinator, for an iterator whose only epoch has begun already."""

    actor: Any
    epoch: Any
    """Reference to the number of the epoch."""

    @property
    def start_epoch(self) -> "_StartedEpoch":
        return self

    def remote(self, _: int) -> Any:
        """Replace the call that would begin an epoch and wait until all workers make it."""
        return self.epoch

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pickle looks these up before the fields exist
            raise AttributeError(name)
        return getattr(self.actor, name)


@dataclass(frozen=True)
class _ShardProvider:
    """The object that `ray.train.get_dataset_shard` queries in a worker."""

    iterator: StreamSplitDataIterator

    def get_dataset_shard(self, _: object) -> StreamSplitDataIterator:
        return self.iterator
