"""Lets Ray Data's executor rest while there is nothing for it to do.

The loop that runs a data set (`StreamingExecutor.run`) waits for running tasks, and for nothing else: while none runs,
or those that have finished may not hand over their blocks because enough lie ahead, it comes around without waiting,
some hundred times a second. For a run that its devices hold up, that is always, and takes a core. Here it waits after a
turn that did nothing: until a consumer asks for a block, or the executor is told to end, and never for long, since
memory that is freed, resources that come and Ray's own timers say nothing.
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
"""From one pause to the next: a turn takes some 5 ms of a core, so those between two blocks should be few."""
LONGEST_SECONDS = 0.4
"""At most so late does the executor see what nobody tells it of."""
WANTED_SECONDS = 0.02
"""The same, while a consumer stands still for want of a block, or a block for want of its metadata."""
WAITED_SECONDS = WAIT_FOR_TASK_COMPLETION_TIMEOUT_S / 2
"""A turn that took so long has waited for running tasks, which end it as soon as they are done: it needs no pause."""


def with_idle_pause(dataset: "ray.data.Dataset") -> "ray.data.Dataset":
    """The data set, told to rest between turns of its executor that do nothing, wherever it is executed."""
    # The context is the data set's own, and goes with it to the process that executes it.
    dataset.context.custom_execution_callback_classes = [*dataset.context.custom_execution_callback_classes, IdlePause]
    return dataset


class Pacer:
    """How long to wait after a turn of the loop: not at all if it did something, else longer each time.

    A pause grows from turn to turn, so that what nobody announces is seen late by no more than a few times what it took
    to come.
    """

    def __init__(self) -> None:
        self._done: object = None
        self._next = FIRST_SECONDS

    def pause(self, done: object, turn_seconds: float, *, wanted: bool) -> float:
        """Seconds to wait.

        Args:
            done: all that was done so far; a turn that left it as it was did nothing.
            turn_seconds: what the turn took.
            wanted: whether somebody waits for what comes next.
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
    """Pauses one executor; Ray Data makes one of these for each."""

    def __init__(self) -> None:
        self._pacer, self._woken, self._ending = Pacer(), threading.Event(), False
        self._turn_began = 0.0
        self.turns = 0
        """How often the loop came around."""

    def before_execution_starts(self, executor: Any) -> None:
        """Has the executor tell of consumers that ask, and of its end."""
        output = output_state(executor)
        take, shutdown = output.get_output_blocking, executor.shutdown

        def take_and_wake(*arguments: Any, **more: Any) -> Any:
            if not output.output_queue.has_next(*arguments, **more):
                self._woken.set()  # a consumer that finds nothing frees blocks that are held back
            try:
                return take(*arguments, **more)
            finally:
                self._woken.set()  # there is room for one more

        def wake_and_shut_down(*arguments: Any, **more: Any) -> None:
            self._ending = True  # it waits for the loop to end
            self._woken.set()
            shutdown(*arguments, **more)

        output.get_output_blocking, executor.shutdown = take_and_wake, wake_and_shut_down
        self._turn_began = time.perf_counter()

    def on_execution_step(self, executor: Any) -> None:
        """Is called after each turn, in the thread of the loop."""
        self.turns += 1
        took = time.perf_counter() - self._turn_began
        pause = self._pacer.pause(_done(executor), took, wanted=_wanted(executor))
        if pause and not self._ending:
            self._woken.wait(pause)
        # What is asked for from here on is seen by the turn that begins, or ends the pause behind it at once.
        self._woken.clear()
        self._turn_began = time.perf_counter()


def _done(executor: Any) -> tuple[object, ...]:
    """All that the executor has done: whatever a turn changes counts up, comes or goes in here."""
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
