"""Ray's trainer, with policies of raylens for the number of workers and for failures."""

import contextlib
import os
import time
from typing import TYPE_CHECKING, Any

import ray
import ray.train

from raylens.capacity import is_own_cluster
from raylens.config import RunConfig
from raylens.errors import RaylensError, StorageError, UnreachableError, own_error
from raylens.ray_internals import (
    ENABLE_PREEMPTION_WATCHER_ENV_VAR,
    RAY_NODE_ID_KEY,
    DataParallelTrainer,
    DatasetsCallback,
    ElasticScalingPolicy,
    FailureDecision,
    FailurePolicy,
    PlacementGroupCleanerCallback,
    PreemptionError,
    TrainController,
    WorkerGroup,
    WorkerGroupCallback,
    WorkerGroupStartupTimeoutError,
)
from raylens.train.checkpoint.store import Checkpoints
from raylens.train.collective.signals import listen_for_term
from raylens.train.loop.events import Preparing, Restarting
from raylens.train.ray.resources import DATA_CPUS, nodes_are_coming, placement_of, resource_requests
from raylens.train.ray.stream_callback import StreamCallback

if TYPE_CHECKING:
    from collections.abc import Callable

    from raylens.interrupts import Interrupts

__all__ = ["Trainer", "WorkerStart", "workers_to_start"]

OUTAGE_SECONDS = 1800.0
"""Seconds for which the store may be unreachable before a run gives up."""


class Trainer(DataParallelTrainer):  # type: ignore[misc] # Ray is untyped here
    """Ray's trainer with raylens' own policies and stream of data.

    On a cluster that this command started and will end, a run has fewer processes, and uses those that Ray started in
    advance: everything in such a cluster has this process's environment, so that nothing needs a runtime environment of
    its own; no other user's node is taken away; and nothing that a lost driver leaves reserved outlives the cluster.
    """

    def __init__(
        self,
        *args: Any,
        run: RunConfig,
        checkpoints: Checkpoints,
        channel: Any,
        stream: "Callable[[], ray.data.Dataset]",
        decode_selector: dict[str, str],
        **others: Any,
    ) -> None:
        super().__init__(*args, **others)
        self._run = run
        self._stream = StreamCallback(stream, decode_selector)
        self._failures = RetryPolicy(run, checkpoints, channel)
        self.interrupts: Interrupts | None = None

    def _initialize_and_run_controller(self, **settings: Any) -> Any:
        if self.scaling_config.elasticity_enabled:
            settings["scaling_policy"] = DivisorScalingPolicy(self.scaling_config, self._run)
        settings["failure_policy"] = self._failures
        if not is_own_cluster():
            return super()._initialize_and_run_controller(**settings)
        here = {RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}
        controller = ray.remote(num_cpus=0, label_selector=here)(_Controller).remote(**settings)
        self._register_sigint_handler(controller)
        ray.get(controller.run.remote())
        return ray.get(controller.get_result.remote())

    def _create_default_callbacks(self) -> list[Any]:
        unwanted: tuple[type, ...] = (DatasetsCallback,)
        if is_own_cluster():
            unwanted += (PlacementGroupCleanerCallback,)
        return [call for call in super()._create_default_callbacks() if not isinstance(call, unwanted)] + [self._stream]

    def _register_sigint_handler(self, controller: Any) -> None:
        """Register nothing: Ray's handler would end the run at the first Ctrl-C."""

        def abort() -> None:
            # The controller ends with its workers, and cannot respond.
            with contextlib.suppress(ray.exceptions.RayActorError):
                ray.get(controller.abort.remote())

        if self.interrupts is not None:
            self.interrupts.abort = abort


class _Workers(WorkerGroup):  # type: ignore[misc]
    """Workers in processes that Ray started in advance, which have no runtime environment of their own."""

    @staticmethod
    def _get_worker_runtime_env(custom_runtime_env: Any) -> dict[str, Any]:
        return dict(custom_runtime_env)


class _Controller(TrainController):  # type: ignore[misc]
    worker_group_cls = _Workers

    def __init__(self, **settings: Any) -> None:
        # In its own process. Nobody announces the removal of this machine, so that Ray Train need not watch for it.
        os.environ.setdefault(ENABLE_PREEMPTION_WATCHER_ENV_VAR, "0")
        super().__init__(**settings)


_starting: dict[str, int] = {}


def workers_to_start(otherwise: int) -> int:
    """Return the number of workers that the policy chose, or ``otherwise`` if it is fixed; called in the controller."""
    return _starting.get("workers", otherwise)


class DivisorScalingPolicy(ElasticScalingPolicy):  # type: ignore[misc]
    """Chooses the largest number of workers that fits, of those that share a global batch equally."""

    def __init__(self, scaling_config: Any, run: RunConfig) -> None:
        super().__init__(scaling_config)
        self._counts = run.worker_counts
        self._workers, self._data = resource_requests(run, placement_of(run))

    def _get_resize_decision(self, num_workers: int) -> Any:
        # The policy and the stream share the controller's process; a stream is made for a number of workers.
        _starting["workers"] = num_workers
        return super()._get_resize_decision(num_workers)

    def _count_possible_workers(self, reserved_resources: Any) -> int:
        # The resources that Ray reserved for the run may be on any node (Ray 2.60).
        own = {row["NodeID"] for row in ray.nodes() if self._workers.allows(row.get("Labels") or {})}
        possible = super()._count_possible_workers(
            {node: has for node, has in reserved_resources.items() if node in own}
        )
        if self._data.selector:
            return max((count for count in self._counts if count <= possible), default=0)
        each = self._workers.each["CPU"]
        cpus = ray.cluster_resources().get("CPU", 0.0) - DATA_CPUS
        return max((count for count in self._counts if count <= possible and count * each <= cpus), default=0)


class RetryPolicy(FailurePolicy):  # type: ignore[misc]
    """Retries a run after a failure that may not recur, up to a number of failures without a new checkpoint."""

    def __init__(self, run: RunConfig, checkpoints: Checkpoints, channel: Any) -> None:
        super().__init__(ray.train.FailureConfig())
        self._run, self._checkpoints, self._channel = run, checkpoints, channel
        self._failures, self._step = 0, -1
        self._unreachable_since: float | None = None

    def make_decision(self, training_failed_error: Any) -> Any:
        """Implement `FailurePolicy.make_decision`: retry or raise."""
        if _is_short_of_room(training_failed_error) and nodes_are_coming(self._run):
            return FailureDecision.RETRY  # machines take minutes to start; nothing has failed
        own = _own(training_failed_error)
        if own is None or isinstance(own, UnreachableError):
            again = self._worth_it(training_failed_error, own)
        else:
            again = False  # bad input, bad settings or a diagnosis would only recur
        if again:
            self._channel.post.remote(Restarting(_reason(own, training_failed_error)))
        return FailureDecision.RETRY if again else FailureDecision.RAISE

    def _worth_it(self, error: Any, own: RaylensError | None) -> bool:
        if isinstance(error, PreemptionError):
            return True
        step = self._newest()
        if step > self._step:
            self._step, self._failures, self._unreachable_since = step, 0, None
        if own is not None:
            # An unreachable store does not count as a failure of the run.
            self._unreachable_since = self._unreachable_since or time.monotonic()
            return time.monotonic() - self._unreachable_since < OUTAGE_SECONDS
        self._failures += 1
        return self._failures <= self._run.resources.max_failures

    def _newest(self) -> int:
        try:
            return max(self._checkpoints.steps(), default=0)
        except StorageError:
            return self._step


def _is_short_of_room(error: Any) -> bool:
    return isinstance(getattr(error, "controller_failure", None), WorkerGroupStartupTimeoutError)


def _own(error: Any) -> RaylensError | None:
    """Return the error of raylens behind a failure; of several, the one that ends the run."""
    errors = (error, *getattr(error, "worker_failures", {}).values())
    own_errors = [own for failure in errors if (own := own_error(failure)) is not None]
    return min(own_errors, key=lambda own: isinstance(own, UnreachableError), default=None)


def _reason(own: RaylensError | None, error: Any) -> str:
    if own is not None:
        return str(own)
    failures = getattr(error, "worker_failures", {})
    if not failures:
        return _first_line(getattr(error, "controller_failure", None) or error)
    rank, failure = next(iter(failures.items()))
    return f"worker {rank}: {_first_line(failure)}"


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or [repr(error)])[0]


class WorkerStart(WorkerGroupCallback):  # type: ignore[misc]
    """Reports workers that have started, and makes each record SIGTERM in its main thread before it trains."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def before_init_train_context(self, workers: list[Any]) -> dict[str, list[Any]]:
        """Implement `WorkerGroupCallback.before_init_train_context`: report that the workers are up."""
        self._channel.post.remote(Preparing(f"{len(workers)} worker processes up; loading torch and DeepSpeed"))
        return {}

    def after_worker_group_start(self, worker_group: Any) -> None:
        """Implement `WorkerGroupCallback.after_worker_group_start`: listen for SIGTERM."""
        worker_group.execute(listen_for_term)
