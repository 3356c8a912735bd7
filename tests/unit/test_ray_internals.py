"""What raylens relies on of Ray's internals is what the pinned version has, and is imported in one file."""

import ast
import dataclasses
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.data.block import BlockMetadataWithSchema
from ray.data.context import DataContext

from raylens import ray_internals

ROOT = Path(__file__).parents[2]
DOOR = ROOT / "platform" / "raylens" / "ray_internals.py"
INTERNAL = re.compile(r"ray\.(.*\.)?_[a-z].*|ray\.(core|dashboard|train\.v2)(\..*)?")

CALLED = {
    "BlockEntry": "ref metadata",
    "DatasetStats": "metadata parent base_name",
    "InputData": "input_data",
    "LogicalPlan": "dag context",
    "RefBundle": "blocks schema owns_blocks slices output_split_idx _cached_object_meta _cached_preferred_locations",
    "StreamSplitDataIterator": "coord_actor output_split_idx world_size",
    "TaskContext.get_current": "",
    "DataParallelTrainer": "train_loop_per_worker train_loop_config backend_config scaling_config run_config datasets "
    "dataset_config resume_from_checkpoint metadata validation_config",
    "ElasticScalingPolicy": "scaling_config",
    "FailurePolicy": "failure_config",
    "TrainController.abort": "self",
    "TrainController.get_result": "self",
    "TrainController.run": "self",
    "WorkerGroup.execute": "self fn fn_args fn_kwargs",
    "get_address_and_port": "",
    "get_or_create_autoscaling_coordinator": "",
}
"""Parameters of what raylens calls."""
OVERRIDDEN = {
    "DataParallelTrainer._create_default_callbacks": "self",
    "DataParallelTrainer._initialize_and_run_controller": "self controller_init_kwargs",
    "DataParallelTrainer._register_sigint_handler": "self controller",
    "ElasticScalingPolicy._count_possible_workers": "self reserved_resources",
    "ElasticScalingPolicy._get_resize_decision": "self num_workers",
    "ExecutionCallback.before_execution_starts": "self executor",
    "ExecutionCallback.on_execution_step": "self executor",
    "FailurePolicy.make_decision": "self training_failed_error",
    "TrainController": "train_fn_ref train_run_context scaling_policy failure_policy callbacks validation_config",
    "WorkerGroup._get_worker_runtime_env": "custom_runtime_env",
    "WorkerGroupCallback.after_worker_group_abort": "self worker_group_context",
    "WorkerGroupCallback.after_worker_group_shutdown": "self worker_group_context",
    "WorkerGroupCallback.after_worker_group_start": "self worker_group",
    "WorkerGroupCallback.before_init_train_context": "self workers",
    "WorkerGroupCallback.before_worker_group_start": "self worker_group_context",
}
"""Parameters of what raylens writes anew."""
VALUES = {
    "ENABLE_PREEMPTION_WATCHER_ENV_VAR": "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER",
    "RAY_NODE_ID_KEY": "ray.io/node-id",
    "WAIT_FOR_TASK_COMPLETION_TIMEOUT_S": 0.1,
}
CLASSES = {
    "AutoscalingState",
    "DatasetsCallback",
    "GetClusterStatusReply",
    "PlacementGroupCleanerCallback",
    "PreemptionError",
    "ThreadedMetadataFetcher",
    "WorkerGroupStartupTimeoutError",
}
"""Known by their class alone."""
MEMBERS = {"FailureDecision": {"RETRY", "RAISE"}, "TrainingFramework": {"TORCH"}}


def parameters(function: Any) -> list[str]:
    """Names of parameters, without what Ray adds to methods of actors."""
    return [name for name in inspect.signature(function).parameters if name != "_ray_trace_ctx"]


def member(path: str) -> Any:
    name, *attributes = path.split(".")
    thing = getattr(ray_internals, name)
    for attribute in attributes:
        thing = getattr(thing, attribute)
    return thing


def test_the_installed_version_is_the_pinned_one() -> None:
    pinned = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert version("ray") == ray.__version__ == pinned[1]


def test_every_name_of_the_door_is_held_to_something() -> None:
    held = {path.split(".")[0] for path in (*CALLED, *OVERRIDDEN, *VALUES, *CLASSES, *MEMBERS)}
    assert held == set(ray_internals.NAMES) < set(ray_internals.__all__)


@pytest.mark.parametrize(("path", "names"), [*CALLED.items(), *OVERRIDDEN.items()])
def test_signatures_are_those_relied_upon(path: str, names: str) -> None:
    assert parameters(member(path)) == names.split()


def test_values_classes_and_members_are_those_relied_upon() -> None:
    assert {name: member(name) for name in VALUES} == VALUES
    assert all(isinstance(member(name), type) for name in CLASSES)
    assert {name: members & set(member(name).__members__) for name, members in MEMBERS.items()} == MEMBERS


def test_nothing_else_is_let_through() -> None:
    with pytest.raises(AttributeError):
        _ = ray_internals.Worker


def test_the_process_that_ray_keeps_has_what_the_door_asks_it() -> None:
    from ray._private import state, worker
    from ray._private.node import Node

    assert worker._global_node is None
    assert not ray_internals.is_head_process()
    assert parameters(Node.is_head) == parameters(Node.get_session_dir_path) == ["self"]
    assert parameters(worker.print_to_stdstream) == ["data", "ignore_prefix"]
    assert parameters(state.state.get_cluster_config) == []
    for name in ray_internals.MODULES_OF_INIT:
        importlib.import_module(name)


def test_workers_of_a_run_have_what_the_door_asks_them() -> None:
    from ray.train.torch import config
    from ray.train.v2._internal.execution.context import TrainContext, get_train_context
    from ray.train.v2._internal.execution.preemption import PreemptionContext

    assert parameters(get_train_context) == []
    assert "preemption_context" in {field.name for field in dataclasses.fields(TrainContext)}
    assert PreemptionContext().preemption_info is None
    assert parameters(config._set_torch_distributed_env_vars) == []
    names = ["backend", "world_rank", "world_size", "init_method", "timeout_s"]
    assert parameters(config._setup_torch_process_group) == names
    assert parameters(config._shutdown_torch) == ["destroy_process_group"]


def test_shares_of_a_stream_are_taken_apart_and_made_anew() -> None:
    from ray.data._internal.iterator.stream_split_iterator import SplitCoordinator

    share = ray_internals.StreamSplitDataIterator("an actor", 1, 2)
    other = ray_internals.with_coordinator(share, "another")
    assert [ray_internals.coordinator_of(one) for one in (share, other)] == ["an actor", "another"]
    assert other.world_size() == 2
    methods = SplitCoordinator.__ray_metadata__.modified_class
    assert parameters(methods.start_epoch) == ["self", "split_idx"]
    assert parameters(methods.shutdown_executor) == ["self"]


def test_executors_have_what_the_door_asks_them() -> None:
    from ray.data._internal.execution.streaming_executor import StreamingExecutor
    from ray.data._internal.execution.streaming_executor_state import OpState

    executor = StreamingExecutor(DataContext.get_current())
    assert ray_internals.blocks_awaiting_metadata(executor) == 0
    assert ray_internals.operator_states(executor) is None  # before it runs
    executor._output_node = ("the last operator", "its state")
    assert ray_internals.output_state(executor) == "its state"
    assert ray_internals.ThreadedMetadataFetcher()._fifos == {}
    assert parameters(OpState.get_output_blocking) == ["self", "output_split_idx"]
    assert parameters(StreamingExecutor.shutdown) == ["self", "force", "exception"]
    assert parameters(BlockMetadataWithSchema.from_block)[0] == "block"
    assert parameters(ray.data.Dataset)[:3] == ["logical_plan", "context", "in_stats"]


def test_one_part_of_ray_is_imported_without_the_others() -> None:
    program = """if True:
        import sys
        from raylens import ray_internals
        assert "ray" not in sys.modules
        from raylens.ray_internals import ExecutionCallback
        print(*({"ray.data", "ray.train", "ray.serve", "ray.tune", "torch"} & sys.modules.keys()))"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["ray.data"]


def test_no_other_file_reaches_for_ray_s_internals() -> None:
    sources = [path for path in ROOT.glob("*/raylens/**/*.py") if path != DOOR]
    assert len(sources) > 300
    around = [f"{path.relative_to(ROOT)}: {name}" for path in sources for name in reached(path) if INTERNAL.match(name)]
    assert around == []


def test_the_search_for_ways_around_finds_them(tmp_path: Path) -> None:
    ways = (
        "import ray._private.worker",
        "from ray.data import _internal",
        "from ray.train.v2._internal.util import TrainingFramework",
        "def late():\n    import ray.dashboard.optional_deps",
        "import ray\nnode = ray._raylet.RAY_NODE_ID_KEY",
        "from importlib import import_module\nimport_module('ray.serve._private.api')",
    )
    for way in ways:
        (tmp_path / "way.py").write_text(way)
        assert any(INTERNAL.match(name) for name in reached(tmp_path / "way.py")), way
    (tmp_path / "way.py").write_text("import ray.train\nfrom ray.data import Dataset\nray.init(address='ray://head')")
    assert not any(INTERNAL.match(name) for name in reached(tmp_path / "way.py"))


def reached(path: Path) -> Iterator[str]:
    """All that a file imports, the chains of attributes in it, and its texts that might name a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            yield ast.unparse(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
