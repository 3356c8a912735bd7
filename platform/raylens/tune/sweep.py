"""A sweep on a Ray cluster, from its configuration to the best trial."""

import logging
import os
import signal
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ray import tune

from raylens.capacity import Node, ResourceRequest, live_nodes, possible_nodes
from raylens.config import RunConfig
from raylens.data import build_plan
from raylens.extras import require_extra
from raylens.interrupts import Interrupts, signal_handlers
from raylens.messages import Say, print_line
from raylens.placement import Placement
from raylens.storage import Store
from raylens.train.ray import check_resources, placement_of, resource_requests
from raylens.train.run import load_manifests
from raylens.tune.best import write_best
from raylens.tune.config import SweepConfig
from raylens.tune.monitor import BudgetStopper, SweepMonitor, TrialCallback, set_monitor
from raylens.tune.paths import REPORT, RUNS, SWEEP_SETTINGS, TUNE, sweep_store
from raylens.tune.report import render_report
from raylens.tune.results import Configuration, ranked
from raylens.tune.search.candidates import candidates, with_repeats
from raylens.tune.search.schedulers import scheduler_of
from raylens.tune.space import Space
from raylens.tune.trial import Trial
from raylens.tune.trials import SweepRecord, read_or_new_sweep, trial_name

__all__ = ["GUESSED_STEPS", "SweepResult", "concurrency", "sweep"]

GUESSED_STEPS = 10_000
"""Steps assumed for a run before its data set is indexed: enough to check a space."""

TUNE_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Paths in a configuration are relative to the working directory of the command.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # A diverged run has evaluations without the metric.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_SLOW_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "600",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}


@dataclass(frozen=True)
class SweepResult:
    """The result of a sweep: its record and best configuration."""

    uri: str
    record: SweepRecord
    best: Configuration | None
    """The best configuration; None if no trial has a value."""


def sweep(
    config: SweepConfig,
    *,
    say: Say = print_line,
    on_change: Callable[[SweepRecord], None] | None = None,
) -> SweepResult:
    """Run trials until all are done or the budget is used up; Ray must be initialised.

    The same call again continues an interrupted sweep, whatever the cause.

    Args:
        config: the sweep.
        say: called with a line for each phase.
        on_change: called with the record whenever it has changed.

    Raises:
        ConfigError: the space is invalid; the message names the key.
        MissingExtraError: ``raylens[train]`` is not installed.
        KeyboardInterrupt: the sweep was interrupted; trials are kept, and the same call continues.
        RaylensError: the input is invalid, or the cluster is too small.
    """
    require_extra("train", "a sweep")
    config.check(GUESSED_STEPS)
    check_resources(config.run, say)
    store = sweep_store(config)
    SWEEP_SETTINGS.claim(store, config)
    record = read_or_new_sweep(store)
    if record.state in ("finished", "stopped"):
        say(f"nothing to do: the sweep {record.state}{f' ({record.why})' if record.why else ''}")
        return _result(store, config, record)
    steps = _steps_of(config.run, store, say)
    space = config.check(steps)
    record = record.model_copy(update={"state": "running", "run_samples": steps * config.run.global_batch})
    monitor = SweepMonitor(store, config, record, on_change or (lambda _: None))
    _quiet_tune()
    tuner = _tuner(store, config, space, steps, monitor, say)
    interrupts = Interrupts(say, "the sweep's state is saved")
    interrupts.stop = lambda: signal.raise_signal(signal.SIGUSR1)
    # Ray Tune saves its state and ends at a SIGUSR1, which would end the process until Ray Tune handles it.
    with signal_handlers({signal.SIGUSR1: signal.SIG_IGN}), interrupts, warnings.catch_warnings():
        # A copied trial is a new run in a new process, which rules out `reuse_actors`.
        warnings.filterwarnings("ignore", "Consider boosting PBT performance", UserWarning)
        tuner.fit()
    return _end(store, config, monitor, interrupts.count > 0, say)


def _quiet_tune() -> None:
    """Silence the tables and loggers of Ray Tune, whose information is in the record of the sweep."""
    os.environ.update(TUNE_SETTINGS)
    for name in ("ray.tune", "ray.air", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _end(store: Store, config: SweepConfig, monitor: SweepMonitor, interrupted: bool, say: Say) -> SweepResult:
    why = monitor.why_end
    if interrupted and not why:
        monitor.write(state="interrupted", why="")
        _write_report(store, config, monitor.record)
        say(f"interrupted; the same command or `raylens sweep resume {store.describe()}` continues")
        raise KeyboardInterrupt
    monitor.write(state="stopped" if why else "finished", why=why)
    if why:
        say(f"ended: {why}")
    return _result(store, config, monitor.record)


def _result(store: Store, config: SweepConfig, record: SweepRecord) -> SweepResult:
    _write_report(store, config, record)
    write_best(store, config, record)
    order = ranked(record.trials, config.metric, config.goal)
    return SweepResult(store.uri, record, order[0] if order else None)


def _write_report(store: Store, config: SweepConfig, record: SweepRecord) -> None:
    """Write the report of the present state of a sweep."""
    store.write(REPORT, render_report(config, record).encode())


def _steps_of(run: RunConfig, store: Store, say: Say) -> int:
    """Return the steps of a run of the base configuration; index its data set once for all trials.

    Raises:
        ManifestError: the data set has no shard, or no usable sample.
    """
    manifests = load_manifests(store, run.data.train, store / RUNS / "manifests", say)
    plan = build_plan(run, manifests)
    return run.length.steps(sum(order.epoch_size for order in plan.orders), run.global_batch)


def concurrency(run: RunConfig, nodes: Sequence[Node], placement: Placement) -> int:
    """Return how many trials fit into a cluster: each needs its workers, and a CPU to read data.

    Args:
        run: the configuration of the trials.
        nodes: the nodes that the cluster has or may add.
        placement: the node groups of the cluster.
    """
    workers, data = resource_requests(run, placement)
    count = run.resources.workers
    gpus, data_cpus = count * workers.each["GPU"], data.each["CPU"]
    have = _sums(nodes, workers)
    limits = [have["GPU"] // gpus] if gpus else []
    if data.selector == workers.selector:
        limits.append(have["CPU"] // (count * workers.each["CPU"] + data_cpus))
    else:
        limits += [have["CPU"] // (count * workers.each["CPU"]), _sums(nodes, data)["CPU"] // data_cpus]
    return max(1, int(min(limits)))


def _sums(nodes: Sequence[Node], request: ResourceRequest) -> dict[str, float]:
    """Sum the resources of the nodes on which a request may be placed."""
    own = [node for node in nodes if request.allows(node.labels)]
    return {name: sum(node.count * node.resources.get(name, 0.0) for node in own) for name in ("CPU", "GPU")}


def _tuner(store: Store, config: SweepConfig, space: Space, steps: int, monitor: SweepMonitor, say: Say) -> Any:
    filesystem, path = store.arrow()
    placement = placement_of(config.run)
    # The process of a trial computes nothing, and must not take a CPU from a worker that needs all of a node.
    beside = placement.selector("decode")
    request = tune.PlacementGroupFactory([{"CPU": 0.001}], **({"bundle_label_selector": [beside]} if beside else {}))
    trainable = tune.with_resources(Trial, request)
    tune_path = f"{path}/{TUNE}"
    set_monitor(monitor)
    if tune.Tuner.can_restore(tune_path, storage_filesystem=filesystem):
        say("continuing the sweep")
        return tune.Tuner.restore(tune_path, trainable, storage_filesystem=filesystem)
    store.delete_tree(TUNE)  # from a start that ended before Ray Tune saved its state
    param_space, search = _search(config, space, store.uri)
    at_a_time = config.concurrent or concurrency(config.run, possible_nodes(live_nodes()), placement)
    say(
        f"{_count(param_space, config)} trials, {at_a_time} at a time, of {steps} steps unless the space says otherwise"
    )
    return tune.Tuner(
        trainable,
        param_space=param_space,
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=scheduler_of(config, space, steps),
            num_samples=1 if search is None else config.budget.trials * config.repeats,
            max_concurrent_trials=at_a_time,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=TUNE,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=tune.FailureConfig(max_failures=config.retries),
            callbacks=[TrialCallback()],
            stop=BudgetStopper(),
            verbose=0,
        ),
    )


def _search(config: SweepConfig, space: Space, uri: str) -> tuple[dict[str, Any], Any]:
    """Return Ray Tune's parameter space with all configurations, or a searcher that chooses them."""
    if config.search.kind == "tpe":
        from raylens.tune.search.searchers import tpe

        return {}, tpe(config, space, uri)
    return {"sweep": uri, "trial": tune.grid_search(with_repeats(config, candidates(config, space)))}, None


def _count(param_space: dict[str, Any], config: SweepConfig) -> int:
    if not param_space:
        return config.budget.trials * config.repeats
    return len(param_space["trial"]["grid_search"])


def _trial_name(trial: Any) -> str:
    """Return the permanent name of a trial of Ray Tune, equal to `TrialRecord.name`."""
    fields = trial.config["trial"]
    return trial_name(fields["number"], fields["repeat"])
