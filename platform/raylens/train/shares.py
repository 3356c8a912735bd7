"""How Ray Train deals the stream of data out to the workers of a run."""

import atexit
import os
from collections.abc import Mapping
from typing import Any

import ray.train

from raylens.data.stream import execution_options

__all__ = ["Shares"]


class Shares(ray.train.DataConfig):  # type: ignore[misc] # Ray publishes no types
    """In order; and the process that deals them out leaves nothing behind.

    Args:
        selector: labels of the nodes that make the data.
    """

    def __init__(self, selector: Mapping[str, str]) -> None:
        super().__init__(execution_options=execution_options(selector))

    def configure(self, *arguments: Any, **more: Any) -> Any:
        """Called by Ray, in an actor of its own."""
        # When such a process ends, Ray 2.60 now and then waits for itself for ever (the destructor of its
        # CoreWorkerProcessImpl posts to a queue whose lock it holds), and 400 MB stay behind a lost driver. By then all
        # is done, so the process ends before that.
        atexit.register(os._exit, 0)
        return super().configure(*arguments, **more)
