"""Pauses for Ray Data's executor while it has no work.

The loop that runs a data set (`StreamingExecutor.run`) waits for running tasks only. While no task runs, or finished
tasks may not hand over their blocks because enough blocks are ready, it spins without waiting, about a hundred times a
second. In a run that is limited by its devices, this happens all the time and takes a core. Here the loop waits after
an iteration without progress: until a consumer asks for a block or the executor is shut down, and never for long, since
freed memory, new resources and Ray's own timers give no signal.
"""

import threading
import time
from typing import TYPE_CHECKING, Any

from raylens.ray_internals import (
    WAIT_FOR_TASK_COMPLETION_TIMEOUT_S,
    ExecutionCallback,
    blocks_awaiting_metadata,
    operator_states,
    output_state,
)

if TYPE_CHECKING:
    import ray.data

__all__ = ["IdlePause", "Pacer", "with_idle_pause"]

FIRST_SECONDS = 0.005
GROWTH = 4
"""Factor from one pause to the next: an iteration takes about 5 ms of a core, so few should fall between two blocks."""
LONGEST_SECONDS = 0.4
"""Longest pause, which bounds how late the executor sees events without a signal."""
WANTED_SECONDS = 0.02
"""Longest pause while a consumer waits for a block, or a block for its metadata."""
WAITED_SECONDS = WAIT_FOR_TASK_COMPLETION_TIMEOUT_S / 2
"""Seconds from which an iteration counts as having waited for running tasks, so that it needs no pause."""


def with_idle_pause(dataset: "ray.data.Dataset") -> "ray.data.Dataset":
    """Add pauses after idle iterations to the executor of a data set, wherever it is executed."""
    # The context belongs to the data set and travels with it to the process that executes it.
    dataset.context.custom_execution_callback_classes = [*dataset.context.custom_execution_callback_classes, IdlePause]
    return dataset


class Pacer:
    """The length of the pause after an iteration of the loop: zero after progress, else longer each time.

    Pauses grow geometrically, so that an event without a signal is seen late by at most a few times the time it took.
    """

    def __init__(self) -> None:
        self._done: object = None
        self._next = FIRST_SECONDS

    def pause(self, done: object, turn_seconds: float, *, wanted: bool) -> float:
        """Return the seconds to wait after an iteration.

        Args:
            done: counters of all work so far; an iteration that left them unchanged made no progress.
            turn_seconds: duration of the iteration.
            wanted: whether a consumer waits for the next block.
        """
        if done != self._done:
            self._done, self._next = done, FIRST_SECONDS
            return 0.0
        if turn_seconds >= WAITED_SECONDS:
            return 0.0
        pause = min(self._next, WANTED_SECONDS if wanted else LONGEST_SECONDS)
        self._next = min(GROWTH * self._next, LONGEST_SECONDS)
        return pause


class IdlePause(ExecutionCallback):  # type: ignore[misc] # Ray publishes no types
    """Pauses one executor; Ray Data creates one instance for each executor."""

    def __init__(self) -> None:
        self._pacer, self._woken, self._ending = Pacer(), threading.Event(), False
        self._turn_began = 0.0
        self.turns = 0
        """Number of iterations of the loop."""

    def before_execution_starts(self, executor: Any) -> None:
        """Make the executor signal consumers that ask for blocks, and its shutdown."""
        output = output_state(executor)
        take, shutdown = output.get_output_blocking, executor.shutdown

        def take_and_wake(*arguments: Any, **more: Any) -> Any:
            if not output.output_queue.has_next(*arguments, **more):
                self._woken.set()  # a consumer that finds no block releases blocks that are held back
            try:
                return take(*arguments, **more)
            finally:
                self._woken.set()  # there is room for another block

        def wake_and_shut_down(*arguments: Any, **more: Any) -> None:
            self._ending = True  # shutdown waits for the loop to end
            self._woken.set()
            shutdown(*arguments, **more)

        output.get_output_blocking, executor.shutdown = take_and_wake, wake_and_shut_down
        self._turn_began = time.perf_counter()

    def on_execution_step(self, executor: Any) -> None:
        """Pause after an iteration; Ray Data calls this in the thread of the loop."""
        self.turns += 1
        took = time.perf_counter() - self._turn_began
        pause = self._pacer.pause(_done(executor), took, wanted=_wanted(executor))
        if pause and not self._ending:
            self._woken.wait(pause)
        # A request from here on is seen by the next iteration, or ends the pause after it at once.
        self._woken.clear()
        self._turn_began = time.perf_counter()


def _done(executor: Any) -> tuple[object, ...]:
    """Return counters of all work of the executor; any progress changes at least one of them."""
    operators = [
        (
            operator.num_active_tasks(),
            operator.metrics.num_inputs_received,
            operator.metrics.num_tasks_submitted,
            operator.metrics.num_tasks_finished,
            operator.metrics.num_task_outputs_generated,
            operator.metrics.num_outputs_taken,
            state.inputs_done_called,
            operator.has_completed(),
        )
        for operator, state in operator_states(executor).items()
    ]
    return (*operators, blocks_awaiting_metadata(executor))


def _wanted(executor: Any) -> bool:
    return output_state(executor).num_waiting_consumers > 0 or blocks_awaiting_metadata(executor) > 0
