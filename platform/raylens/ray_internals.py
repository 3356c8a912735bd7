"""The one door to Ray's internals: every private name, attribute and function of Ray 2.60 that raylens relies on.

Ray promises nothing about them. ``tests/unit/test_ray_internals.py`` holds each to the version that is pinned, and
looks for ways around this file. Nothing is imported before it is asked for: who needs Train's internals does not
import Data's.
"""
# ruff: noqa: F822 (most of the public names are imported on demand; a test asks for each)

from collections.abc import Callable, Mapping
from typing import Any

from raylens.lazy import lazy_face

__all__ = [
    "ENABLE_PREEMPTION_WATCHER_ENV_VAR",
    "MODULES_OF_INIT",
    "NAMES",
    "RAY_NODE_ID_KEY",
    "WAIT_FOR_TASK_COMPLETION_TIMEOUT_S",
    "AutoscalingState",
    "BlockEntry",
    "DataParallelTrainer",
    "DatasetStats",
    "DatasetsCallback",
    "ElasticScalingPolicy",
    "ExecutionCallback",
    "FailureDecision",
    "FailurePolicy",
    "GetClusterStatusReply",
    "InputData",
    "LogicalPlan",
    "PlacementGroupCleanerCallback",
    "PreemptionError",
    "RefBundle",
    "StreamSplitDataIterator",
    "TaskContext",
    "ThreadedMetadataFetcher",
    "TrainController",
    "TrainingFramework",
    "WorkerGroup",
    "WorkerGroupCallback",
    "WorkerGroupStartupTimeoutError",
    "blocks_awaiting_metadata",
    "cluster_config",
    "cluster_status",
    "coordinator_of",
    "get_address_and_port",
    "get_or_create_autoscaling_coordinator",
    "is_head_process",
    "is_preemption_announced",
    "join_process_group",
    "leave_process_group",
    "on_worker_output",
    "operator_states",
    "output_state",
    "session_folder",
    "with_coordinator",
]

MODULES_OF_INIT = (
    "ray._common.usage.usage_lib",
    "ray._private.runtime_env.uv_runtime_env_hook",
    "ray.autoscaler.v2.utils",
    "ray.dashboard.optional_deps",
    "ray._private.thirdparty.pynvml",
)
"""What ``ray.init`` imports by itself."""

_TRAIN = "train.v2._internal"
_DATA = "data._internal"
NAMES: Mapping[str, str] = {
    "RAY_NODE_ID_KEY": "_raylet",
    # What the autoscaler writes down and is asked.
    "AutoscalingState": "core.generated.autoscaler_pb2",
    "GetClusterStatusReply": "core.generated.autoscaler_pb2",
    "get_or_create_autoscaling_coordinator": f"{_DATA}.cluster_autoscaler",
    # Ray Data: a data set without an object for each block, and its executor.
    "BlockEntry": f"{_DATA}.execution.interfaces.ref_bundle",
    "DatasetStats": f"{_DATA}.stats",
    "ExecutionCallback": f"{_DATA}.execution.execution_callback",
    "InputData": f"{_DATA}.logical.operators",
    "LogicalPlan": f"{_DATA}.logical.interfaces",
    "RefBundle": f"{_DATA}.execution.interfaces",
    "StreamSplitDataIterator": f"{_DATA}.iterator.stream_split_iterator",
    "TaskContext": f"{_DATA}.execution.interfaces",
    "ThreadedMetadataFetcher": f"{_DATA}.execution.metadata_fetcher",
    "WAIT_FOR_TASK_COMPLETION_TIMEOUT_S": f"{_DATA}.execution.streaming_executor_state",
    # Ray Train: its controller, callbacks and policies.
    "DataParallelTrainer": "train.v2.api.data_parallel_trainer",
    "DatasetsCallback": f"{_TRAIN}.callbacks.datasets",
    "ENABLE_PREEMPTION_WATCHER_ENV_VAR": f"{_TRAIN}.constants",
    "ElasticScalingPolicy": f"{_TRAIN}.execution.scaling_policy",
    "FailureDecision": f"{_TRAIN}.execution.failure_handling",
    "FailurePolicy": f"{_TRAIN}.execution.failure_handling",
    "PlacementGroupCleanerCallback": f"{_TRAIN}.callbacks.placement_group_callback",
    "PreemptionError": "train.v2.api.exceptions",
    "TrainController": f"{_TRAIN}.execution.controller.controller",
    "TrainingFramework": f"{_TRAIN}.util",
    "WorkerGroup": f"{_TRAIN}.execution.worker_group",
    "WorkerGroupCallback": f"{_TRAIN}.execution.callback",
    "WorkerGroupStartupTimeoutError": f"{_TRAIN}.exceptions",
    "get_address_and_port": "train._internal.utils",
}
"""Names that this module has, with the module below ``ray`` that defines each."""

__getattr__ = lazy_face("ray", NAMES)


def is_head_process() -> bool:
    """Return whether this process began the cluster that it is connected to."""
    import ray._private.worker

    node: Any = ray._private.worker._global_node
    return node is not None and bool(node.is_head())


def session_folder() -> str:
    """Return the folder of this node where Ray keeps its logs and spills objects to."""
    import ray._private.worker

    return str(ray._private.worker.global_worker.node.get_session_dir_path())


def on_worker_output(sink: Callable[[dict[str, Any], bool], None]) -> None:
    """Have lines of Ray's daemons and workers go to ``sink``, which Ray would print."""
    import ray._private.worker

    ray._private.worker.print_to_stdstream = sink


def cluster_config() -> Any:
    """Return what a service that manages the cluster has reported of its groups of nodes; None without a report."""
    import ray._private.state

    return ray._private.state.state.get_cluster_config()


def cluster_status(timeout_s: int) -> bytes:
    """Return a serialized `GetClusterStatusReply`: what the autoscaler wrote down last, and what is asked of it."""
    import ray._private.worker

    reply: bytes = ray._private.worker.global_worker.gcs_client.get_cluster_status(timeout_s=timeout_s)
    return reply


def is_preemption_announced() -> bool:
    """Return, in a worker of Ray Train, whether a machine of the run is about to be taken away.

    Ray Train's own question is a barrier each time; this looks at what its watcher left with this worker.
    """
    from ray.train.v2._internal.execution.context import get_train_context

    return get_train_context().preemption_context.preemption_info is not None


def join_process_group(backend: str, rank: int, workers: int, timeout_s: int) -> None:
    """Join torch's process group in a worker of Ray Train, and set the variables that torch and DeepSpeed read."""
    from ray.train.torch import config

    config._set_torch_distributed_env_vars()
    config._setup_torch_process_group(backend, rank, workers, "env://", timeout_s)


def leave_process_group(*, destroy: bool) -> None:
    """Free the memory of a worker's GPU, and leave torch's process group if it is to be destroyed."""
    from ray.train.torch import config

    config._shutdown_torch(destroy_process_group=destroy)


def coordinator_of(share: Any) -> Any:
    """Return the actor that deals out the blocks of a `StreamSplitDataIterator`."""
    return share._coord_actor


def with_coordinator(share: Any, actor: Any) -> Any:
    """Return a `StreamSplitDataIterator` of the same share that asks another actor for its blocks."""
    return type(share)(actor, share._output_split_idx, share._world_size)


def output_state(executor: Any) -> Any:
    """Return the state of a streaming executor's last operator, from which consumers take blocks."""
    _, state = executor._output_node
    return state


def operator_states(executor: Any) -> Mapping[Any, Any]:
    """Return the operators of a streaming executor, each with its state."""
    topology: Mapping[Any, Any] = executor._topology
    return topology


def blocks_awaiting_metadata(executor: Any) -> int:
    """Return how many blocks were taken from their tasks and are not handed on yet."""
    from ray.data._internal.execution.metadata_fetcher import ThreadedMetadataFetcher

    fetcher = executor._metadata_fetcher
    return sum(map(len, fetcher._fifos.values())) if isinstance(fetcher, ThreadedMetadataFetcher) else 0
